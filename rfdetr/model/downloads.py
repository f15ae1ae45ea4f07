"""Public weight files: download by name, with checksum, resume and a local cache."""

import functools
import os
from pathlib import Path
from typing import Any

import yaml

from rfdetr.errors import UserError
from rfdetr.fetch import fetch as download
from rfdetr.fetch import verify
from rfdetr.sources import shipped_folder

__all__ = ["cache_folder", "fetch", "manifest", "verify"]
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

    Raises UserError for an unknown name and as `rfdetr.fetch.fetch`.
    """
    entries = manifest()[section]["files"]
    if name not in entries:
        raise UserError(f"there is no public file for {name!r}; available: {', '.join(entries)}")
    entry = entries[name]
    known = next((f"{kind}:{entry[kind]}" for kind in ("sha256", "md5") if entry.get(kind)), None)
    return download(entry["url"], cache_folder(), entry["file"], known)
