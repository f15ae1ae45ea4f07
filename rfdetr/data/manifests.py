"""Data manifests: where a public dataset comes from, under which licence, and how its content is verified.

One YAML file per dataset in `data_manifests/`. Its `kind` says how the files are had:
- archive: a source repository at one commit, small, fetched when first used (or taken from a mirror folder);
- parts: large archives with checksums, fetched only when asked for;
- manual: an account or a licence agreement is needed; the manifest holds the instructions.
"""

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from rfdetr.errors import UserError
from rfdetr.files import sha256_file
from rfdetr.sources import shipped_folder

KINDS = ("archive", "parts", "manual")
_REQUIRED = {
    "archive": ("source", "mirror", "include", "content_sha256", "files", "converter"),
    "parts": ("parts", "needs"),
    "manual": ("instructions",),
}


@dataclass(frozen=True)
class Manifest:
    """One dataset. Fields that its kind does not use are empty.

    source: {repository, commit, url}. mirror: {file, sha256} of an archive below a mirror folder.
    include: patterns of the files that belong to the dataset (relative to the repository's root). subset:
    rules by which a part of the source's files is taken (see `keep_subset`); empty: all. content_sha256:
    `content_digest` of these files, whatever archive they came in; files: how many there are. converter:
    the format they are in, as `rfdetr.data.formats` calls it. classes: those used, in this order (empty:
    all of the source); ignore: names of regions that are no objects; rename: other names for the
    source's. images, objects: what there is then, per class. splits: pictures per split of the source;
    empty: the source gives none. attribution: what a user of the data has to name. package: {module,
    function, key} of a Python package that fetches a collection into a folder, with the environment
    variable that holds the key. parts: name -> {url, md5, gigabytes, folder}; needs: split -> names of
    its parts.
    """

    name: str
    kind: str
    title: str
    licence: str
    homepage: str = ""
    classes: tuple[str, ...] = ()
    splits: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    mirror: dict[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    content_sha256: str = ""
    files: int = 0
    converter: str = ""
    subset: tuple[dict[str, Any], ...] = ()
    ignore: tuple[str, ...] = ()
    rename: dict[str, str] = field(default_factory=dict)
    images: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    attribution: str = ""
    package: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)
    instructions: str = ""
    notes: str = ""


def manifest_folder() -> Path:
    """Folder of the manifests: RFDETR_MANIFESTS if set, else that of this checkout or installation."""
    chosen = os.environ.get("RFDETR_MANIFESTS")
    folder = Path(chosen) if chosen else shipped_folder("data_manifests")
    if not folder.is_dir():
        raise UserError(f"no data manifests in {folder}: set RFDETR_MANIFESTS to a folder that has them")
    return folder


def manifest_names() -> list[str]:
    """Names of the registered public datasets (other manifests in the folder describe weights)."""
    return sorted(path.stem for path in manifest_folder().glob("*.yaml") if _kind(path) in KINDS)


def _kind(path: Path) -> str:
    found = re.search(r"^kind: *(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def load_manifest(name: str) -> Manifest:
    """Read and check one manifest. Raises UserError naming the file and what is wrong with it."""
    path = manifest_folder() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no manifest {path}: registered datasets are {', '.join(manifest_names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in ("include", "classes", "subset", "ignore"):
            if key in values:
                values[key] = tuple(values[key])
        manifest = Manifest(**values)
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"manifest {path} is not valid: {error}") from error
    if manifest.kind not in KINDS:
        raise UserError(f"manifest {path}: unknown kind {manifest.kind!r}, use one of {', '.join(KINDS)}")
    missing = [key for key in _REQUIRED[manifest.kind] if not getattr(manifest, key)]
    if missing:
        raise UserError(f"manifest {path}: a dataset of kind {manifest.kind!r} needs {', '.join(missing)}")
    return manifest


def included(path: str, patterns: Sequence[str]) -> bool:
    """True when a relative path (with "/") matches one of the patterns."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def keep_subset(root: Path, rules: Sequence[dict[str, Any]]) -> None:
    """Remove the files of a whole source that a subset does not take.

    Each rule takes the entries 0, k, 2k, ... (`every`: k) of names sorted by their bytes, and removes the
    files of the others. The names are those of the files that match `files`, or stand first in the lines of
    the list `lines`. `take`: patterns of an entry's files, with {name} (without suffix) and {stem} (without
    folders, too).
    """
    for rule in rules:
        names = listed_names(root, rule)
        for name in sorted(set(names) - set(names[:: rule["every"]])):
            bare = PurePosixPath(name).with_suffix("")
            parts = {"name": glob.escape(bare.as_posix()), "stem": glob.escape(bare.name)}
            for pattern in rule["take"]:
                for path in sorted(root.glob(pattern.format(**parts))):
                    path.unlink()


def listed_names(root: Path, rule: dict[str, Any]) -> list[str]:
    """Names that a subset rule counts, sorted, each once."""
    if "files" in rule:
        return sorted(path.relative_to(root).as_posix() for path in root.glob(rule["files"]))
    lines = (root / rule["lines"]).read_text(encoding="utf-8").splitlines()
    return sorted({re.split(r"[,\s]", line, maxsplit=1)[0] for line in lines if line.strip()})


def content_digest(root: str | os.PathLike[str], patterns: Sequence[str] = ("*",)) -> tuple[str, int]:
    """Digest of the content of a folder's files that match `patterns`, and their number.

    SHA-256 over one line "<path> <sha256>" per file, sorted by path: independent of the archive's format,
    compression, time stamps and file order, which a hosting site may change at any time.
    """
    root = Path(root)
    paths = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    paths = [path for path in paths if included(path, patterns)]
    lines = "".join(f"{path} {sha256_file(root / path)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest(), len(paths)
