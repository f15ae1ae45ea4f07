"""Artifact store: what takes long is made once, and results are written with where they come from.

An artifact (a trained supernet, a search table) is a folder whose name holds a key of everything that decides its content.
Two chapters that ask for the same artifact share it, also when they run at the same time.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.files import atomic_path, write_json
from rfdetr.sources import meaning_digest, module_files, package_root

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("reproduced", "consistent", "not resolved", "contradicted")
_NEEDS = "needs "
_MARK = "artifact.json"
_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pycocotools",
    "onnx",
    "onnxruntime",
    "optuna",
    "tensorrt",
)


def default_root() -> Path:
    """Folder of the store: $RFDETR_STORE, or build/artifacts below the repository or, for an installed package, here."""
    chosen = os.environ.get("RFDETR_STORE")
    if chosen:
        return Path(chosen).expanduser()
    checkout = package_root()
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "build" / "artifacts"


def artifact_key(key: Mapping[str, Any], modules: Iterable[str] = ()) -> str:
    """Hex SHA-256 of the canonical JSON of `key` and of the code reached from `modules` (comments left out).

    TypeError for a value that JSON cannot hold exactly: a key that depends on how an object prints is no key.
    """
    text = json.dumps(dict(key), sort_keys=True, separators=(",", ":"), allow_nan=False)
    names = sorted(modules)
    code = meaning_digest(module_files(names), package_root()) if names else ""
    return hashlib.sha256(f"{text}\n{code}".encode()).hexdigest()


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

        `work` is `<name>-<key>.partial` and outlives a killed or failed build, so `build` can resume from what it finds there; it
        becomes the artifact only when `build` returns. A second process that asks meanwhile waits and gets the same folder.
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


@cache
def commit() -> str:
    """Commit of the code, with `+changes` if tracked files differ from it; `unknown` outside a repository."""
    git = ["git", "-C", str(package_root())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


@cache
def machine() -> str:
    """Processor, cores and memory in words."""
    import psutil

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    # Cores that this process may use, which on shared machines are fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def provenance(profile: str, seed: int, **extra: Any) -> dict[str, Any]:
    """Where a result comes from: profile, seed, commit, library versions, device, UTC time, and `extra`."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "profile": profile,
        "seed": seed,
        "commit": commit(),
        "versions": versions,
        "device": _device(),
        "machine": machine(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def save_result(
    store: Store, chapter: str, df: "pd.DataFrame", provenance: Mapping[str, Any], name: str = "result"
) -> Path:
    """Write a table as `<name>.csv` and its provenance and columns as `<name>.json`; returns the path of the CSV."""
    folder = store.results(str(provenance["profile"]), chapter)
    path = folder / f"{name}.csv"
    with atomic_path(path) as temporary:
        df.to_csv(temporary, index=False)
    columns = {str(column): str(kind) for column, kind in df.dtypes.items()}
    write_json(
        path.with_suffix(".json"), {"rows": len(df), "columns": columns, "provenance": dict(provenance)}
    )
    return path


@dataclass(frozen=True)
class Verdict:
    """What a chapter found about one claim of the paper.

    claim    id in the claims ledger (C001 ...) or, for a claim that the ledger lacks, the claim in words
    verdict  reproduced, consistent, not resolved, contradicted, or `needs ...` saying what is missing
    numbers  the numbers that decided it
    why      one sentence
    """

    claim: str
    verdict: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    def __post_init__(self) -> None:
        needs = self.verdict.startswith(_NEEDS) and self.verdict[len(_NEEDS) :].strip()
        if self.verdict not in VERDICTS and not needs:
            raise ValueError(
                f"a verdict is one of {', '.join(VERDICTS)} or 'needs ...', not {self.verdict!r}"
            )
        if self.claim[:1] == "C" and self.claim[1:].isdigit() and self.claim not in _claims():
            raise ValueError(f"no claim {self.claim} in the ledger; it has {len(_claims())} claims")
        if not self.claim.strip():
            raise ValueError("a verdict needs a claim")

    @property
    def statement(self) -> str:
        """The claim in words."""
        return _claims().get(self.claim, self.claim)


@cache
def _claims() -> dict[str, str]:
    from rfdetr.paper.tables import document

    return {claim["id"]: claim["statement"] for claim in document("claims")}


def save_verdicts(
    store: Store, chapter: str, verdicts: Iterable[Verdict], provenance: Mapping[str, Any]
) -> Path:
    """Write a chapter's verdicts as `verdicts.json`, which the book's status board lists; returns its path."""
    path = store.results(str(provenance["profile"]), chapter) / "verdicts.json"
    rows = [{**asdict(verdict), "statement": verdict.statement} for verdict in verdicts]
    write_json(path, {"chapter": chapter, "verdicts": rows, "provenance": dict(provenance)})
    return path
