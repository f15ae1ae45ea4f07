"""Artifact store: what takes long is made once, and results are written with where they come from.

An artifact (a trained supernet, a search table) is a folder whose name holds a key of everything that decides
its content. Two chapters that ask for the same artifact share it, also when they run at the same time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.files import atomic_path, write_json
from rfdetr.sources import meaning_digest, module_files, package_root

if TYPE_CHECKING:
    import pandas as pd

_MARK = "artifact.json"
# Another version of these may give other numbers, so what was made with it is another artifact.
_COMPUTING = ("torch", "numpy")


def default_root() -> Path:
    """Folder of the store: $RFDETR_STORE, or build/artifacts below the repository or, for an installed
    package, here.
    """
    chosen = os.environ.get("RFDETR_STORE")
    if chosen:
        return Path(chosen).expanduser()
    checkout = package_root()
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "build" / "artifacts"


def artifact_key(key: Mapping[str, Any], modules: Iterable[str] = ()) -> str:
    """Hex SHA-256 of the canonical JSON of `key`, of the code reached from `modules` (comments left out) and
    of the versions of the libraries that compute.

    TypeError for a value that JSON cannot hold exactly: a key that depends on how an object prints is no key.
    """
    text = json.dumps(dict(key), sort_keys=True, separators=(",", ":"), allow_nan=False)
    names = sorted(modules)
    code = meaning_digest(module_files(names), package_root()) if names else ""
    versions = " ".join(f"{library} {metadata.version(library)}" for library in _COMPUTING)
    return hashlib.sha256(f"{text}\n{code}\n{versions}".encode()).hexdigest()


class Store:
    """Artifacts and results below one folder. An empty `root` means `default_root()`."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = (Path(root) if root else default_root()).absolute()

    def path(self, name: str, key: Mapping[str, Any], modules: Iterable[str] = ()) -> Path:
        """Folder that the artifact has, or would have."""
        if not name or any(mark in name for mark in "/\\ "):
            raise ValueError(
                f"an artifact's name is part of a file name, without blanks and slashes, not {name!r}"
            )
        return self.root / f"{name}-{artifact_key(key, modules)[:16]}"

    def artifact(
        self, name: str, key: Mapping[str, Any], build: Callable[[Path], Any], modules: Iterable[str] = ()
    ) -> Path:
        """Folder of the artifact; `build(work)` fills the folder `work` if the artifact does not exist yet.

        name     readable part of the folder's name
        key      everything that decides the content, JSON values only (profile, seed, sizes)
        modules  module names whose code decides the content too, e.g. `rfdetr.training.loop`

        `work` is `<name>-<key>.partial` and outlives a killed or failed build, so `build` can resume from
        what it finds there; it becomes the artifact only when `build` returns. A second process that asks
        meanwhile waits and gets the same folder.
        """
        from filelock import FileLock

        modules = tuple(modules)
        final = self.path(name, key, modules)
        if (final / _MARK).is_file():
            return final
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create the artifact store {self.root}: {error.strerror}; set RFDETR_STORE"
            ) from error
        # The lock belongs to the open file, so it ends with the process, however that ends.
        with FileLock(final.with_name(final.name + ".lock")):
            if (final / _MARK).is_file():
                return final
            work = final.with_name(final.name + ".partial")
            work.mkdir(exist_ok=True)
            started = datetime.now(UTC)
            build(work)
            seconds = (datetime.now(UTC) - started).total_seconds()
            record = {
                "name": name,
                "key": dict(key),
                "modules": sorted(modules),
                "seconds": round(seconds, 1),
            }
            write_json(work / _MARK, {**record, "created": started.isoformat(timespec="seconds")})
            work.rename(final)
        return final

    def results(self, profile: str, chapter: str) -> Path:
        """Folder of a chapter's machine-readable results for one profile."""
        return self.root / "results" / profile / chapter


def save_result(
    store: Store, chapter: str, df: "pd.DataFrame", provenance: Mapping[str, Any], name: str = "result"
) -> Path:
    """Write a table as `<name>.csv` and its provenance and columns as `<name>.json`; returns the path of the
    CSV.
    """
    folder = store.results(str(provenance["profile"]), chapter)
    path = folder / f"{name}.csv"
    with atomic_path(path) as temporary:
        df.to_csv(temporary, index=False)
    columns = {str(column): str(kind) for column, kind in df.dtypes.items()}
    write_json(
        path.with_suffix(".json"), {"rows": len(df), "columns": columns, "provenance": dict(provenance)}
    )
    return path
