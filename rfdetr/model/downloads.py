"""Public weight files: download by name, with checksum, resume and a local cache."""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import yaml

from rfdetr.errors import UserError
from rfdetr.sources import shipped_folder

MANIFEST = "official.yaml"


@functools.cache
def manifest() -> dict[str, Any]:
    """The file list: section -> licence, source and files: name -> {file, url, md5 or sha256}."""
    path = shipped_folder("data_manifests") / MANIFEST
    if not path.is_file():
        raise UserError(f"the list of public weight files {path} is missing: install the package again")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def cache_folder() -> Path:
    """Where downloads are kept: $RFDETR_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("RFDETR_CACHE") or pooch.os_cache("rfdetr")) / "weights"


def fetch(section: str, name: str) -> Path:
    """Path of a public file in the cache, downloaded first if it is not there or differs from its checksum.

    An interrupted download is continued. Raises UserError for an unknown name, when the network fails, and
    when the content does not have the listed checksum.
    """
    import pooch
    from filelock import FileLock

    entries = manifest()[section]["files"]
    if name not in entries:
        raise UserError(f"there is no public file for {name!r}; available: {', '.join(entries)}")
    entry = entries[name]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    known = next((f"{kind}:{entry[kind]}" for kind in ("sha256", "md5") if entry.get(kind)), None)
    # Two processes that want one file must not write into the same partial download.
    with FileLock(folder / f"{entry['file']}.lock"):
        partial = folder / f"{entry['file']}.part"
        try:
            return Path(
                pooch.retrieve(
                    entry["url"],
                    known_hash=known,
                    fname=entry["file"],
                    path=folder,
                    downloader=functools.partial(_resume, partial=partial),
                )
            )
        except ValueError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"the download of {entry['url']} does not have the listed checksum {known}: it was tampered"
                " with or damaged and is not used. Try again, or put the right file at"
                f" {folder / entry['file']}"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot download {entry['url']}: {error}. Check the network and call again (the download"
                f" continues where it stopped), or put the file at {folder / entry['file']}"
            ) from error


def verify(path: Any, checksum: str) -> None:
    """Raise UserError unless `path` is a file with the given checksum, "md5:..." or "sha256:..."."""
    kind, _, expected = checksum.rpartition(":")
    kind = kind or ("md5" if len(expected) == 32 else "sha256")
    if kind not in ("md5", "sha256"):
        raise UserError(f"unknown checksum kind {kind!r}: write md5:... or sha256:...")
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise UserError(
            "a checksum goes with one file;"
            f" {path if isinstance(path, str | os.PathLike) else 'a state dict'} is none"
        )
    with Path(path).open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected.lower():
        raise UserError(
            f"{path} has {kind} {found}, expected {expected}: it was changed or damaged; download it again"
        )


def _resume(url: str, output_file: Any, downloader: Any, *, partial: Path) -> None:
    """Pooch downloader that continues a partial file with a range request."""
    import requests

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        complete = response.status_code == 416  # nothing is left to send
        if not complete:
            response.raise_for_status()
            mode = "ab" if response.status_code == 206 else "wb"
            with partial.open(mode) as file:
                for block in response.iter_content(1 << 15):
                    file.write(block)
    partial.replace(output_file)
