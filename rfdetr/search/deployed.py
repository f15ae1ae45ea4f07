"""The front of what is deployed: accuracy of the very files that were timed, for precisions that change it.

A grid is evaluated in float32. What is deployed in FP16, bfloat16 or INT8 has another accuracy, and the one
that counts is its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.int8_layers import within_limit
from rfdetr.benchmark.prepare import int8_path, quantises
from rfdetr.benchmark.subnetworks import kept_threads, loader
from rfdetr.evaluation.bootstrap import bootstrap_ap
from rfdetr.export.artifact import load_artifact
from rfdetr.export.onnx import export_many
from rfdetr.files import read_json, write_json
from rfdetr.interrupts import check
from rfdetr.search.intervals import RESAMPLES
from rfdetr.search.pareto import front
from rfdetr.search.timing import Protocol, Timings

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

SLACK = 0.005
"""A network whose float32 accuracy is at most so far below the front is evaluated as well: a shorter type may
cost it less than those on the front.
"""


@dataclass(frozen=True)
class Deployed:
    """numbers: `CocoResult.row` of the file that was timed. precision: as executed. sha256: of the file.
    samples: AP on resampled images, where that is what decides.
    """

    numbers: dict[str, float]
    precision: str
    sha256: str
    samples: np.ndarray | None


def column(metric: str) -> str:
    """Name of the column that holds the accuracy of what was timed."""
    return f"deployed_{metric}"


def deployed_accuracy(
    model: "RFDETR",
    archs: list[Arch],
    dataset: "DetectionDataset",
    protocol: Protocol,
    folder: Path,
    metric: str = "AP",
    seed: int = 0,
) -> dict[Arch, Deployed]:
    """Each sub-network evaluated as `protocol` runs it.

    folder: of the search; the files of the timing are found in it, and results are kept in `deployed/` under
    the SHA-256 of what was evaluated.
    """
    found: dict[Arch, Deployed] = {}
    with kept_threads():
        load = loader(
            model,
            archs,
            protocol.runtime,
            protocol.check(),
            protocol.threads,
            protocol.gpu,
            folder / "onnx",
            protocol.images,
        )
        for arch in archs:
            check()
            with load(arch) as runtime:
                sha256, precision = runtime.artifact.sha256, runtime.info.precision
                name = f"{sha256[:16]}-{precision}-{dataset.fingerprint[:16]}-{metric}-{seed}"
                path = folder / "deployed" / f"{name}.json"
                kept: Any = read_json(path) if path.is_file() else None
                if kept is None:
                    kept = _evaluated(runtime, dataset, metric, seed)
                    write_json(path, kept)
            numbers = {n: float("nan") if v is None else float(v) for n, v in kept["numbers"].items()}
            samples = None if kept["samples"] is None else np.array(kept["samples"], dtype=float)
            found[arch] = Deployed(numbers, precision, sha256, samples)
    return found


def _evaluated(runtime: Any, dataset: "DetectionDataset", metric: str, seed: int) -> dict[str, Any]:
    result = evaluate_artifact(runtime, dataset)
    numbers, samples = result.row(), None
    if metric in ("AP", "mask_AP") and np.isfinite(numbers[metric]):
        kind = "segm" if metric == "mask_AP" else "bbox"
        drawn = bootstrap_ap(dataset, result.detections, kind, resamples=RESAMPLES, seed=seed).samples
        samples = [None if np.isnan(value) else float(value) for value in drawn]
    return {"numbers": numbers, "samples": samples}


def contenders(table: "pd.DataFrame", metric: str, slack: float = SLACK) -> list[Arch]:
    """The timed rows that are on the front of float32 accuracy and latency, or less than `slack` below it;
    fastest first.
    """
    timed = table.dropna(subset=["latency_ms", metric]).sort_values("latency_ms", kind="stable")
    best = timed[metric].cummax()
    return [Arch.parse(name) for name in timed["arch"][timed[metric] >= best - slack]]


def deployed_front(
    model: "RFDETR",
    table: "pd.DataFrame",
    timings: Timings,
    dataset: "DetectionDataset",
    metric: str,
    seed: int = 0,
    max_loss: float | None = None,
) -> "tuple[pd.DataFrame, pd.DataFrame, dict[Arch, Deployed], tuple[str, ...]]":
    """(table, front, what was evaluated, notes), the front by the accuracy and latency of the same files.

    table     of `Timings.complete_front`; gets `deployed_<metric>`, empty where only the float32 network was
              evaluated, and `accuracy_of`: "timed file" or "float32 network"
    max_loss  accuracy that INT8 may cost before the parts that lose most stay in floating point
              (`rfdetr.benchmark.int8_layers`); None: every file stays as it was quantised
    """
    protocol, folder = timings.protocol, timings.folder
    archs = contenders(table, metric)
    found = deployed_accuracy(model, archs, dataset, protocol, folder, metric, seed)
    notes: list[str] = []
    if max_loss is not None and quantises(protocol.runtime, protocol.check()):
        full = dict(zip(table["arch"], table[metric].astype(float), strict=True))
        lossy = {arch for arch in archs if full[arch.id] - found[arch].numbers[metric] > max_loss}
        changed, notes = _with_parts_kept(model, archs, lossy, protocol, dataset, folder, metric, max_loss)
        found |= deployed_accuracy(model, changed, dataset, protocol, folder, metric, seed) if changed else {}
    # A file that was changed, or made anew by another version, has the latency of no other.
    timed = dict(zip(timings.rows["arch"], timings.rows["sha256"], strict=True))
    stale = [arch for arch, one in found.items() if timed.get(arch.id) != one.sha256]
    if stale:
        timings.measure_again(stale)
        table = timings.onto(table, seed)
    names = {arch.id: one.numbers[metric] for arch, one in found.items()}
    values = [names.get(name, float("nan")) for name in table["arch"]]
    of = ["timed file" if name in names else "float32 network" for name in table["arch"]]
    columns: dict[str, Any] = {column(metric): values, "accuracy_of": of}
    table = table.assign(**columns)
    return table, front(table.dropna(subset=["latency_ms"]), column(metric), "time_ms"), found, tuple(notes)


def _with_parts_kept(
    model: "RFDETR",
    archs: list[Arch],
    lossy: set[Arch],
    protocol: Protocol,
    dataset: "DetectionDataset",
    folder: Path,
    metric: str,
    max_loss: float,
) -> tuple[list[Arch], list[str]]:
    """New INT8 files, in place of the old ones, for networks that lose too much; those that were made anew,
    and for each with parts in floating point a note.
    """
    assert protocol.images is not None
    changed, notes = [], []
    files = export_many(model, archs, folder / "onnx")
    for arch in archs:
        check()
        file = load_artifact(int8_path(files[arch], folder / "onnx", protocol.runtime))
        if arch in lossy and "parts_kept" not in file.metadata:  # else chosen by an earlier call
            print(f"{arch.id} loses more than {max_loss:g} under INT8: looking for the parts", flush=True)
            file = within_limit(
                files[arch],
                folder / "onnx",
                protocol.images,
                dataset,
                metric,
                protocol.check(),
                max_loss,
                protocol.threads,
                protocol.runtime,
            ).file
            changed.append(arch)
        if kept := file.metadata.get("parts_kept"):
            notes.append(f"{arch.id}: in floating point stay {kept}")
    return changed, notes
