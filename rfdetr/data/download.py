"""Fetches registered datasets: a mirror folder first, else the source; everything verified before it is
used.
"""

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from rfdetr.data.folders import NotFoundError
from rfdetr.data.manifests import Manifest, content_digest, included
from rfdetr.data.voc import convert_voc
from rfdetr.errors import UserError
from rfdetr.files import sha256_file


def data_home() -> Path:
    """Folder of fetched and converted datasets: RFDETR_DATA, else ~/.cache/rfdetr."""
    return Path(os.environ.get("RFDETR_DATA") or Path.home() / ".cache" / "rfdetr")


def obtain(manifest: Manifest, split: str, download: bool = False) -> Path:
    """COCO-format folder of a registered dataset; fetched, verified and converted if it is not there yet.

    Small datasets (kind "archive") are fetched when first used; large ones only with `download`. Raises
    UserError with the remedy when the files cannot be had or are not what the manifest says.
    """
    if manifest.kind == "archive":
        return _obtain_archive(manifest)
    root = data_home() / manifest.name
    if manifest.kind == "parts":
        return _obtain_parts(manifest, split, root, download)
    if root.is_dir():
        return root
    raise UserError(
        f"{manifest.title} has to be fetched by hand into {root}:\n{manifest.instructions.strip()}"
    )


def _obtain_archive(manifest: Manifest) -> Path:
    # The digest is part of the name: a manifest that changes never meets an old conversion.
    target = data_home() / f"{manifest.name}-{manifest.content_sha256[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{manifest.name}.", dir=target.parent) as temporary:
        raw, converted = Path(temporary) / "raw", Path(temporary) / "coco"
        archive, strip = _archive(manifest, Path(temporary))
        extract(archive, raw, manifest.include, strip)
        found, count = content_digest(raw, manifest.include)
        if found != manifest.content_sha256:
            raise UserError(
                f"the content of {archive} is not {manifest.name} as its manifest describes it ({count} files"
                f" with digest {found[:12]}, expected {manifest.files} with {manifest.content_sha256[:12]}):"
                f" remove the file and fetch it again from {manifest.source['url']}"
            )
        if manifest.converter == "voc":
            convert_voc(raw, converted, classes=manifest.classes or None, name=manifest.name)
        else:
            raw.rename(converted)
        for licence in raw.glob("LICEN[CS]E*") if raw.is_dir() else ():
            shutil.copyfile(licence, converted / licence.name)
        try:
            converted.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same verified content
                raise
    return target


def _archive(manifest: Manifest, temporary: Path) -> tuple[Path, int]:
    """The archive file, and how many leading folders of its paths to cut off."""
    mirror = os.environ.get("RFDETR_MIRROR")
    if mirror and (path := Path(mirror) / manifest.mirror["file"]).is_file():
        if sha256_file(path) != manifest.mirror["sha256"]:
            raise UserError(
                f"{path} has another SHA-256 than the manifest of {manifest.name} gives: copy the file again"
            )
        return path, 0
    # Archives of a commit are made anew by the hosting site, so their own hash is not stable; their content
    # is verified.
    return _fetch(manifest.source["url"], None, temporary, manifest.name), 1


def _obtain_parts(manifest: Manifest, split: str, root: Path, download: bool) -> Path:
    if split not in manifest.needs:
        raise NotFoundError(
            f"{manifest.title} has no split {split!r} with annotations: use one of"
            f" {', '.join(manifest.needs)}"
        )
    missing = [name for name in manifest.needs[split] if not (root / manifest.parts[name]["folder"]).is_dir()]
    if missing and not download:
        size = sum(manifest.parts[name]["gigabytes"] for name in missing)
        urls = "\n".join(f"  {manifest.parts[name]['url']}" for name in missing)
        raise UserError(
            f"{manifest.title}, split {split}, is not in {root} ({size:.1f} GB to fetch):\n{urls}\nAllow the"
            " download (download=True), or unpack these files there yourself, or give the path of your own"
            " copy"
        )
    for name in missing:
        part = manifest.parts[name]
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as temporary:
            archive = _fetch(part["url"], f"md5:{part['md5']}", root / "downloads", manifest.name)
            extract(archive, Path(temporary), ("*",), 0)
            (Path(temporary) / part["folder"]).rename(root / part["folder"])
            archive.unlink()
    return root


def _fetch(url: str, known_hash: str | None, folder: Path, name: str) -> Path:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, known_hash, path=folder, progressbar=False))
    except Exception as error:
        raise UserError(
            f"{name} could not be fetched from {url} ({error}): check the network, or put the archive into a"
            " folder named by RFDETR_MIRROR"
        ) from error


def extract(archive: Path, destination: Path, patterns: Sequence[str], strip: int) -> None:
    """Unpack the regular files of a tar or zip archive that match `patterns` (after `strip` leading folders
    are cut).

    Links and devices are left out. Raises UserError for a damaged archive, and for a path that would leave
    `destination`.
    """
    try:
        for name, content in _members(archive):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise UserError(
                    f"{archive} holds the unsafe path {name!r}: it was not unpacked; do not trust this file"
                )
            relative = PurePosixPath(*path.parts[strip:]).as_posix()
            if len(path.parts) > strip and included(relative, patterns):
                target = destination / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(
            f"{archive} could not be unpacked to {destination} ({error}): fetch it again, check the disk"
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content
