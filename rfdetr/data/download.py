"""Fetches registered datasets: a mirror folder first, else the source; everything verified before it is
used.
"""

import importlib
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from rfdetr.data.conversion import data_home
from rfdetr.data.formats.inventory import canonical_split
from rfdetr.data.manifests import Manifest, content_digest, included, keep_subset
from rfdetr.errors import NotFoundError, UserError
from rfdetr.fetch import fetch
from rfdetr.fetch import verify as verify_file
from rfdetr.files import sha256_file

EXPANSION = 200
"""An archive that unpacks to more than this many times its own size is refused: annotations shrink to a
twentieth, pictures hardly.
"""
SMALL = 2**26
"""Bytes that any archive may unpack to."""
MEMBERS = 5_000_000
"""Entries that an archive may have."""


def obtain(manifest: Manifest, split: str, download: bool = False) -> Path:
    """Folder with the source files of a registered dataset; fetched and verified if it is not there yet.

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


def fetch_dataset(manifest: Manifest, split: str | None = None) -> Path:
    """Fetch a registered dataset, whatever its kind; the folder it is in then.

    split: of a dataset in parts, this split alone. Raises UserError as `obtain`, and for a collection whose
    package or key is missing.
    """
    if manifest.kind == "parts":
        for name in manifest.needs if split is None else (canonical_split(split),):
            obtain(manifest, name, download=True)
        return data_home() / manifest.name
    if manifest.kind == "manual" and manifest.package:
        return _by_package(manifest)
    return obtain(manifest, "train")


def whereabouts(manifest: Manifest) -> str:
    """Whether a dataset is there, in the mirror, or has to be fetched, in a few words."""
    if manifest.kind == "archive":
        if archive_folder(manifest).is_dir():
            return "there"
        return "in the mirror" if _mirror(manifest.mirror["file"]) else "fetched when first used"
    if (data_home() / manifest.name).is_dir():
        return "there"
    return "large: `data fetch`" if manifest.kind == "parts" or manifest.package else "to be fetched by hand"


def _by_package(manifest: Manifest) -> Path:
    """Fetches a collection by the package that its publisher gives out, into its folder."""
    target = data_home() / manifest.name
    if target.is_dir():
        return target
    module, function, key = (manifest.package[part] for part in ("module", "function", "key"))
    if not os.environ.get(key):
        raise UserError(
            f"{manifest.title} needs a key in the environment variable {key}:\n"
            f"{manifest.instructions.strip()}"
        )
    try:
        call = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{manifest.title} is fetched by the package {module} ({error}): pip install {module}"
        ) from error
    # A fixed name: the package goes on with what is there. The folder gets its own name when all is there.
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        call(path=str(partial))
    except Exception as error:
        raise UserError(
            f"{module} could not fetch {manifest.title} ({error}): call again to go on"
        ) from error
    partial.rename(target)
    return target


def verify(manifest: Manifest) -> str:
    """Compare what is there with the manifest; one line that says what was compared.

    Raises UserError when the dataset is not there, or differs.
    """
    if manifest.kind == "archive":
        folder = archive_folder(manifest)
        if not folder.is_dir():
            raise UserError(f"{manifest.name} is not there: `data fetch {manifest.name}` fetches it")
        found, count = content_digest(folder, manifest.include)
        if found != manifest.content_sha256:
            raise UserError(
                f"{folder} was changed: {count} files with digest {found[:12]}, the manifest gives"
                f" {manifest.files} with {manifest.content_sha256[:12]}: remove the folder and fetch it again"
            )
        return f"{count} files in {folder} are those of the manifest (digest {found[:12]})"
    root = data_home() / manifest.name
    if manifest.kind == "manual":
        raise UserError(
            f"{manifest.title} comes without checksums: `data check {manifest.name}/...` reads every picture"
        )
    there = [part["folder"] for part in manifest.parts.values() if (root / part["folder"]).is_dir()]
    if not there:
        raise UserError(f"{manifest.title} is not in {root}: `data fetch {manifest.name}` fetches it")
    return f"{', '.join(there)} in {root}: unpacked from archives of the listed checksums"


def archive_folder(manifest: Manifest) -> Path:
    """Where the files of a dataset of kind "archive" lie. The digest is part of the name: a manifest that
    changes never meets an old folder.
    """
    return data_home() / f"{manifest.name}-{manifest.content_sha256[:12]}"


def _obtain_archive(manifest: Manifest) -> Path:
    target = archive_folder(manifest)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return target
        with tempfile.TemporaryDirectory(prefix=f".{manifest.name}.", dir=target.parent) as temporary:
            raw = Path(temporary) / "raw"
            archive, mirrored = _archive(manifest)
            extract(archive, raw, manifest.include, strip=0 if mirrored else 1)
            if not mirrored:
                keep_subset(raw, manifest.subset)
            found, count = content_digest(raw, manifest.include)
            if not mirrored:
                archive.unlink()
            if found != manifest.content_sha256:
                raise UserError(
                    f"the content of {archive} is not {manifest.name} as its manifest describes it ({count}"
                    f" files with digest {found[:12]}, expected {manifest.files} with"
                    f" {manifest.content_sha256[:12]}): fetch it again from {manifest.source['url']}"
                )
            raw.rename(target)
    return target


def _mirror(file: str) -> Path | None:
    mirror = os.environ.get("RFDETR_MIRROR")
    path = Path(mirror) / file if mirror else None
    return path if path is not None and path.is_file() else None


def _archive(manifest: Manifest) -> tuple[Path, bool]:
    """The archive file, and whether it comes from the mirror (it then holds the subset alone, and no leading
    folder).
    """
    path = _mirror(manifest.mirror["file"])
    if path is not None:
        if sha256_file(path) != manifest.mirror["sha256"]:
            raise UserError(
                f"{path} has another SHA-256 than the manifest of {manifest.name} gives: copy the file again"
            )
        return path, True
    # Archives of a commit are made anew by the hosting site, so their own hash is not stable; their content
    # is verified.
    name = f"{manifest.name}-{manifest.source['commit'][:12]}.tar.gz"
    remedy = "put the archive into a folder named by RFDETR_MIRROR"
    return fetch(manifest.source["url"], data_home() / "downloads", name, None, remedy), False


def _obtain_parts(manifest: Manifest, split: str, root: Path, download: bool) -> Path:
    if split not in manifest.needs:
        raise NotFoundError(
            f"{manifest.title} has no split {split!r} with annotations: use one of"
            f" {', '.join(manifest.needs)}"
        )
    missing = [name for name in manifest.needs[split] if not (root / manifest.parts[name]["folder"]).is_dir()]
    mirrored = {name: _mirror(_mirror_file(manifest, name)) for name in missing}
    if not download and not all(mirrored.values()):
        size = sum(manifest.parts[name]["gigabytes"] for name in missing)
        urls = "\n".join(f"  {manifest.parts[name]['url']}" for name in missing)
        raise UserError(
            f"{manifest.title}, split {split}, is not in {root} ({size:.1f} GB to fetch):\n{urls}\nFetch them"
            f" with `python -m rfdetr data fetch {manifest.name}` (download=True), unpack them there"
            " yourself, or give the path of your own copy"
        )
    root.mkdir(parents=True, exist_ok=True)
    for name in missing:
        part = manifest.parts[name]
        with FileLock(root / f".{name}.lock"):
            if not (root / part["folder"]).is_dir():
                _obtain_part(manifest, name, mirrored[name], root)
    return root


def _mirror_file(manifest: Manifest, part: str) -> str:
    return f"{manifest.name}/{PurePosixPath(manifest.parts[part]['url']).name}"


def _obtain_part(manifest: Manifest, name: str, mirrored: Path | None, root: Path) -> None:
    part = manifest.parts[name]
    checksum = f"md5:{part['md5']}"
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as temporary:
        if mirrored is None:
            remedy = f"put the archive into {manifest.name}/ of a folder named by RFDETR_MIRROR"
            file = PurePosixPath(part["url"]).name
            archive = fetch(part["url"], root / "downloads", file, checksum, remedy)
        else:
            verify_file(mirrored, checksum)
            archive = mirrored
        extract(archive, Path(temporary), ("*",), 0)
        (Path(temporary) / part["folder"]).rename(root / part["folder"])
        if mirrored is None:
            archive.unlink()


def extract(archive: Path, destination: Path, patterns: Sequence[str], strip: int) -> None:
    """Unpack the regular files of a tar or zip archive that match `patterns` (after `strip` leading folders
    are cut).

    Links and devices are left out. Raises UserError for a damaged archive, for a path that would leave
    `destination`, and for an archive that unpacks to far more than its size.
    """
    room = max(SMALL, EXPANSION * archive.stat().st_size)
    try:
        for number, (name, content) in enumerate(_members(archive)):
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
                    room -= _copy(content, file, room)
            if room < 0 or number > MEMBERS:
                raise UserError(
                    f"{archive} unpacks to more than {EXPANSION} times its size, or has more than {MEMBERS}"
                    " entries: it was not unpacked; do not trust this file"
                )
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(
            f"{archive} could not be unpacked to {destination} ({error}): fetch it again, check the disk"
        ) from error


def _copy(source: IO[bytes], target: IO[bytes], room: int) -> int:
    """Copy until the end or until `room` is used up; the number of bytes, or more than `room`."""
    done = 0
    while done <= room and (block := source.read(1 << 20)):
        target.write(block)
        done += len(block)
    return done


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
