"""Records of measurements, and the rule that accuracy and latency in one row come from one artifact.

A `LatencyRecord` and an `AccuracyRecord` each name their artifact by SHA-256 and say at which precision it
was executed. `join` takes one of each and refuses two different ones: an FP16 latency next to an FP32
accuracy cannot be written down.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.files import strict, write_atomic

if TYPE_CHECKING:
    import pandas as pd


class ArtifactMismatchError(UserError):
    """Accuracy and latency of different artifacts or precisions."""


@dataclass(frozen=True)
class LatencyRecord:
    """One artifact timed once under one protocol. Times in ms; `statistics` as
    `rfdetr.benchmark.statistics.summary`.

    artifact       sha256, format, name, precision as written, arch, preset, source_sha256
    precision      as executed
    noisy, reasons whether the median should not be relied on, and why
    throttle       clean, throttled or not monitored
    copies_ms      host to device and back, medians; not part of the latency; empty where there is no device
                   memory
    includes       what is inside the timed pass, e.g. ["network", "masks"]
    """

    sha256: str
    artifact: Mapping[str, Any]
    runtime: str
    runtime_version: str
    precision: str
    device: str
    driver: str
    input_shape: tuple[int, ...]
    batch: int
    protocol: str
    parameters: Mapping[str, Any]
    statistics: Mapping[str, float]
    clock: str
    warm_up: Mapping[str, Any]
    noisy: bool
    reasons: tuple[str, ...]
    throttle: str
    readings: Mapping[str, Any]
    time_utc: str
    frames: int = 0
    misses: int = 0
    unfinished: int = 0
    growth_ms_per_s: float = 0.0
    runs_ms: tuple[float, ...] = ()
    copies_ms: Mapping[str, float] = field(default_factory=dict)
    includes: tuple[str, ...] = ("network",)
    details: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median_ms(self) -> float:
        """Median latency."""
        return self.statistics["median_ms"]

    def row(self) -> dict[str, Any]:
        """One flat row for a table."""
        return {
            "name": self.artifact["name"],
            "arch": self.artifact.get("arch"),
            "runtime": self.runtime,
            "precision": self.precision,
            "protocol": self.protocol,
            **self.parameters,
            "batch": self.batch,
            **self.statistics,
            "frames": self.frames,
            "misses": self.misses,
            "growth_ms_per_s": self.growth_ms_per_s,
            "noisy": self.noisy,
            "reasons": "; ".join(self.reasons),
            "throttle": self.throttle,
            "includes": "+".join(self.includes),
            **{f"copy_{k}_ms": v for k, v in self.copies_ms.items()},
            "device": self.device,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class AccuracyRecord:
    """One artifact evaluated on one dataset. `metrics`: AP, AP50, ... (and mask_AP, ...), 0..1."""

    sha256: str
    artifact: Mapping[str, Any]
    runtime: str
    runtime_version: str
    precision: str
    dataset: str
    split: str
    fingerprint: str
    images: int
    metrics: Mapping[str, float]
    time_utc: str
    environment: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """One flat row for a table."""
        return {
            "name": self.artifact["name"],
            "arch": self.artifact.get("arch"),
            "runtime": self.runtime,
            "precision": self.precision,
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
            **self.metrics,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class JointRecord:
    """Accuracy and latency of one artifact. Made by `join`; the constructor checks too."""

    accuracy: AccuracyRecord
    latency: LatencyRecord

    def __post_init__(self) -> None:
        for record, kind in ((self.accuracy, AccuracyRecord), (self.latency, LatencyRecord)):
            if not isinstance(record, kind):
                raise TypeError(f"expected a {kind.__name__}, got {type(record).__name__}")
        a, b = self.accuracy, self.latency
        if a.sha256 != b.sha256:
            raise ArtifactMismatchError(
                f"accuracy is of artifact {a.sha256[:12]} ({a.artifact['name']}, {a.precision}), latency of "
                f"{b.sha256[:12]} ({b.artifact['name']}, {b.precision}): evaluate and time the same file"
            )
        if a.precision != b.precision:
            raise ArtifactMismatchError(
                f"artifact {a.sha256[:12]} was evaluated at {a.precision} ({a.runtime}) but timed at"
                f" {b.precision} ({b.runtime}): run both in the same runtime at the same precision"
            )

    def row(self) -> dict[str, Any]:
        """One flat row with both; the metrics' names are distinct."""
        return self.latency.row() | {
            "accuracy_runtime": self.accuracy.runtime,
            "dataset": self.accuracy.dataset,
            "images": self.accuracy.images,
            **self.accuracy.metrics,
        }


def join(accuracy: AccuracyRecord, latency: LatencyRecord) -> JointRecord:
    """Put accuracy and latency of ONE artifact into one row. ArtifactMismatchError if they are not of the
    same one.
    """
    return JointRecord(accuracy, latency)


_KINDS: dict[str, type] = {"latency": LatencyRecord, "accuracy": AccuracyRecord}


def to_json(record: LatencyRecord | AccuracyRecord | JointRecord) -> dict[str, Any]:
    """Plain values with the kind of record; `from_json` reads them back."""
    if isinstance(record, JointRecord):
        return {"kind": "joint", "accuracy": to_json(record.accuracy), "latency": to_json(record.latency)}
    kind = "latency" if isinstance(record, LatencyRecord) else "accuracy"
    return {"kind": kind, **asdict(record)}


def from_json(values: Mapping[str, Any]) -> LatencyRecord | AccuracyRecord | JointRecord:
    """A record from its plain values. Raises UserError for an unknown kind or missing fields."""
    kind = values.get("kind")
    if kind == "joint":
        accuracy, latency = from_json(values["accuracy"]), from_json(values["latency"])
        return JointRecord(accuracy, latency)  # type: ignore[arg-type]
    if kind not in _KINDS:
        raise UserError(f"unknown kind of record {kind!r}; known: {', '.join(_KINDS)}, joint")
    known = {f.name for f in fields(_KINDS[kind])}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    for name in {"metrics", "statistics"} & given.keys():  # JSON has no NaN: undefined is null there
        given[name] = {k: math.nan if v is None else v for k, v in values[name].items()}
    try:
        return _KINDS[kind](**given)
    except TypeError as error:
        raise UserError(f"this is no complete {kind} record: {error}") from error


def write_records(path: str | Path, records: Iterable[Any], append: bool = True) -> None:
    """Write records as JSON lines, atomically; `append` keeps those that the file already has."""
    path = Path(path)
    before = path.read_text(encoding="utf-8") if append and path.is_file() else ""
    lines = [json.dumps(strict(to_json(r)), sort_keys=True, allow_nan=False) for r in records]
    write_atomic(path, before + "".join(line + "\n" for line in lines))


def read_records(path: str | Path) -> list[Any]:
    """Records of a JSON-lines file. Raises UserError naming the line that cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file of records {path}")
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(from_json(json.loads(line)))
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: not a record ({error})") from error
    return records


def to_frame(records: Iterable[Any]) -> "pd.DataFrame":
    """A tidy table, one row per record."""
    import pandas as pd

    return pd.DataFrame([r.row() for r in records])
