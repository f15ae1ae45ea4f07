"""Chapter 06: one exported sub-network under three protocols, with the accuracy of the same file.

Source: Section 4 and Table 1 of the paper (200 ms between passes, FP16), v2 Appendix K and Table 20 (pauses).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.benchmark.accuracy import evaluate_artifact, record_accuracy
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.protocols import Measurement
from rfdetr.benchmark.records import (
    AccuracyRecord,
    ArtifactMismatchError,
    JointRecord,
    LatencyRecord,
    join,
    read_records,
    to_frame,
)
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.benchmark.statistics import NOISE_LIMIT
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import Profile, Timing, get_profile
from rfdetr.export.artifact import Artifact
from rfdetr.paper import tables
from rfdetr.quiet import alone
from rfdetr.sources import package_root

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.evaluation.coco import CocoResult
    from rfdetr.model.detector import RFDETR

CAMERAS = (30.0, 60.0)
"""Frame rates of common cameras, per second."""

OVERLOAD = 1.5
"""The third frame rate, relative to what the artifact can do back to back."""

TOLERANCE = 0.001
"""Largest allowed difference in AP between the exported file and the network it came from."""


def printed_pauses() -> "pd.DataFrame":
    """v2 Table 20 in long form: name, pause_ms, latency_ms."""
    frame = tables.table(20).melt(["model", "size", "ap"], var_name="pause_ms", value_name="latency_ms")
    frame["pause_ms"] = frame["pause_ms"].str.extract(r"(\d+)ms$")[0].astype(float)
    return frame.assign(name=frame["model"] + " " + frame["size"])[["name", "pause_ms", "latency_ms"]]


@dataclass(frozen=True)
class Timed:
    """records: one per protocol and setting. traces: of `rate`, one row per frame: fps, arrival_s,
    latency_ms.
    """

    records: list[LatencyRecord]
    traces: "pd.DataFrame"

    @property
    def frame(self) -> "pd.DataFrame":
        """One tidy row per record, with a readable label."""
        unfinished = [r.unfinished for r in self.records]
        return to_frame(self.records).assign(setting=[label(r) for r in self.records], unfinished=unfinished)

    def only(self, protocol: str, **parameters: float) -> LatencyRecord:
        """The first record of a protocol with these parameters; KeyError when there is none."""
        for record in self.records:
            if record.protocol == protocol and parameters.items() <= dict(record.parameters).items():
                return record
        raise KeyError(f"no record of {protocol} with {parameters}")


def label(record: LatencyRecord) -> str:
    """E.g. "buffered, 200 ms", "rate, 30/s"; the blank inside does not break into lines."""
    if record.protocol == "buffered":
        return f"buffered, {record.parameters['pause_ms']:g}\N{NO-BREAK SPACE}ms"
    if record.protocol == "rate":
        return f"rate, {record.parameters['fps']:.0f}/s"
    return record.protocol


def timed(runtime: Runtime, protocol: str, **options: Any) -> LatencyRecord:
    """`time_artifact` while no other chapter of the book runs."""
    with alone():
        return time_artifact(runtime, protocol, **options)


def time_protocols(runtime: Runtime, timing: Timing, pause_ms: float) -> Timed:
    """`buffered` twice, minutes apart where the profile is long, with `sustained` and three frame rates in
    between.

    The last frame rate is `OVERLOAD` times what `sustained` could do, so its queue must grow.
    """
    import pandas as pd

    def single() -> LatencyRecord:
        return timed(runtime, "buffered", pause_ms=pause_ms, samples=timing.samples)

    records = [single()]
    records.append(timed(runtime, "sustained", seconds=timing.seconds, warm_seconds=timing.seconds / 2))
    above = OVERLOAD * 1000 / records[1].statistics["mean_ms"]
    samples: list[Measurement] = []
    for fps in (*CAMERAS, above):
        records.append(timed(runtime, "rate", runs=1, kept=samples, fps=fps, seconds=timing.seconds))
    records.append(single())
    traces = [
        pd.DataFrame({"fps": m.parameters["fps"], "arrival_s": m.arrivals_s, "latency_ms": m.latencies_ms})
        for m in samples
    ]
    return Timed(records, pd.concat(traces, ignore_index=True))


def time_pauses(runtime: Runtime, timing: Timing) -> Timed:
    """`buffered` at every pause of the profile, as v2 Table 20."""
    import pandas as pd

    records = [
        timed(runtime, "buffered", pause_ms=pause, samples=max(8, timing.samples // 3))
        for pause in timing.pauses_ms
    ]
    return Timed(records, pd.DataFrame(columns=["fps", "arrival_s", "latency_ms"]))


def repeatability(first: LatencyRecord, second: LatencyRecord) -> "pd.DataFrame":
    """Do two measurements of one artifact under one protocol agree? One row per run, then one for the two
    together.

    Columns: what, median_ms, difference (relative to the smaller median), agrees (within 5 %), why (of
    doubt). ValueError for two artifacts or two protocols: those need not agree.
    """
    import pandas as pd

    if (first.sha256, first.protocol, first.parameters) != (
        second.sha256,
        second.protocol,
        second.parameters,
    ):
        raise ValueError("only two measurements of the same artifact under the same protocol can be compared")

    def row(what: str, medians: Sequence[float], why: Sequence[str]) -> dict[str, Any]:
        difference = (max(medians) - min(medians)) / min(medians)
        return {
            "what": what,
            "median_ms": float(np.median(medians)),
            "difference": difference,
            "agrees": difference <= NOISE_LIMIT,
            "why": "; ".join(why),
        }

    return pd.DataFrame(
        [
            row("two runs at the start", first.runs_ms, first.reasons),
            row("two runs at the end", second.runs_ms, second.reasons),
            row("start against end", [first.median_ms, second.median_ms], ()),
        ]
    )


def summarise(values: Mapping[str, "CocoResult"], dataset: DetectionDataset, seed: int = 0) -> "pd.DataFrame":
    """AP of several networks or files on the same images, against the first one.

    Columns: what, AP, AP50, difference (AP minus the first one's), low and high (bootstrap 95 % over images,
    paired).
    """
    import pandas as pd

    from rfdetr.evaluation.bootstrap import Matches, paired_difference

    matches = {what: Matches(dataset, result.detections) for what, result in values.items()}
    reference = next(iter(matches.values()))
    rows = []
    for what, result in values.items():
        change = paired_difference(matches[what], reference, resamples=300, seed=seed)
        rows.append(
            {
                "what": what,
                "AP": result.ap,
                "AP50": result.boxes["AP50"],
                "difference": result.ap - next(iter(values.values())).ap,
                "low": change.low,
                "high": change.high,
            }
        )
    return pd.DataFrame(rows)


def evaluated(runtime: Runtime, dataset: DetectionDataset) -> "tuple[CocoResult, AccuracyRecord]":
    """What an artifact detects, and the record of its accuracy."""
    result = evaluate_artifact(runtime, dataset, masks=False)
    return result, record_accuracy(runtime, dataset, result)


def refused(accuracy: AccuracyRecord, latency: LatencyRecord) -> str:
    """What the library says when accuracy and latency of two artifacts are put into one row.

    AssertionError if it did not refuse.
    """
    try:
        joined: JointRecord = join(accuracy, latency)
    except ArtifactMismatchError as error:
        return str(error)
    raise AssertionError(f"this row should not exist: {joined.row()}")


def committed(root: str | Path | None = None) -> list[LatencyRecord]:
    """Records of the nano network that were made on a quiet machine; empty where the repository is not at
    hand.
    """
    path = Path(root or package_root()) / "results" / "latency-cpu" / "records.jsonl"
    return read_records(path) if path.is_file() else []


def end_to_end(runtimes: Mapping[str, Runtime], samples: int) -> "pd.DataFrame":
    """Median back-to-back latency of what a pass may include: what, includes, median_ms, low and high of the
    median.
    """
    rows = []
    for what, runtime in runtimes.items():
        record = timed(runtime, "buffered", pause_ms=0, samples=samples)
        rows.append(
            {
                "what": what,
                "includes": " + ".join(record.includes),
                "median_ms": record.median_ms,
                "low_ms": record.statistics["median_low_ms"],
                "high_ms": record.statistics["median_high_ms"],
                "copies": "none: one memory" if not record.copies_ms else str(dict(record.copies_ms)),
                "noisy": record.noisy,
            }
        )
    import pandas as pd

    return pd.DataFrame(rows)


def untrained(model: "RFDETR", segmentation: bool, seed: int = 0) -> "RFDETR":
    """A network of the same sizes with random weights, with or without a mask head; times do not depend on
    weights.
    """
    import torch

    from rfdetr.model.detector import RFDETR

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RFDETR(**{**model.config.to_dict(), "segmentation": segmentation}).eval()


def embedded(profile: Profile) -> Profile:
    """The profile whose supernet this chapter exports: `cpu`, but for a test that the code runs."""
    return get_profile("cpu") if profile.meaningful else profile


def on_a_t4(profile: Profile, folder: Path) -> "tuple[pd.DataFrame | None, str]":
    """The rows of `rfdetr.benchmark.t4.run_t4` with the profile t4; otherwise nothing, and why."""
    if profile.name != "t4":
        return None, f"**Not executed on TensorRT**: this copy was made with the profile `{profile.name}`."
    from rfdetr.benchmark.t4 import check_device, run_t4
    from rfdetr.data.registry import load_dataset

    # What is missing here is said on the page; what fails on a T4 that is there fails the chapter.
    try:
        check_device()
        dataset = load_dataset("coco2017", "val")
    except UserError as error:
        return None, f"**Not executed on TensorRT**: {error}."
    return run_t4(folder, dataset), ""


def raw_form(artifact: Artifact, path: Path) -> Artifact:
    """The graph with its outputs as one [B, 4 + K, Q] tensor, the form that detectors with suppression
    have.
    """
    import onnx
    from onnx import helper

    from rfdetr.export.artifact import load_artifact

    model = onnx.load(artifact.file)
    graph = model.graph
    batch, queries, classes = artifact.outputs[0].shape
    graph.node.extend(
        [
            helper.make_node("Sigmoid", ["logits"], ["scores"], name="raw/Sigmoid"),
            helper.make_node("Concat", ["boxes", "scores"], ["rows"], name="raw/Concat", axis=2),
            helper.make_node("Transpose", ["rows"], ["output0"], name="raw/Transpose", perm=[0, 2, 1]),
        ]
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [batch, 4 + int(classes), queries])
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return load_artifact(path)
