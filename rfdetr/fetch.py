"""Downloads with a checksum, continued where they stopped."""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.progress import progress_bar

_BAR_FROM = 20_000_000
"""Bytes from which a download shows a progress bar."""


def fetch(url: str, folder: Path, name: str, checksum: str | None, remedy: str = "") -> Path:
    """Path of `folder`/`name`, downloaded from `url` if it is not there or differs from its checksum.

    checksum: "md5:..." or "sha256:...", None takes the file as it comes (its content must be verified then).
    remedy: what else a user can do, for the messages. An interrupted download is continued if the server
    can. Raises UserError when the network fails, and when the content does not have the checksum.
    """
    import pooch
    from filelock import FileLock

    pooch.get_logger().setLevel("WARNING")
    folder.mkdir(parents=True, exist_ok=True)
    remedy = remedy or f"put the file at {folder / name}"
    # Two processes that want one file must not write into the same partial download.
    with FileLock(folder / f"{name}.lock"):
        partial = folder / f"{name}.part"
        try:
            downloader = functools.partial(_resume, partial=partial)
            return Path(
                pooch.retrieve(url, known_hash=checksum, fname=name, path=folder, downloader=downloader)
            )
        except ValueError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"the download of {url} does not have the listed checksum {checksum}: it was tampered with or"
                f" damaged and is not used. Try again, or {remedy}"
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot download {url}: {error}. Check the network and call again (the download continues"
                f" where it stopped), or {remedy}"
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
            again = response.status_code == 206
            total = int(response.headers.get("Content-Length") or 0) + (have if again else 0)
            bar = progress_bar(total > _BAR_FROM, total, Path(url).name, "B")
            with partial.open("ab" if again else "wb") as file, bar as report:
                done = have if again else 0
                for block in response.iter_content(1 << 15):
                    file.write(block)
                    done += len(block)
                    report(done, total)
    partial.replace(output_file)
