"""The paper's latency tables on a T4 in one command: Table 1 (FP32 and FP16) and v2 Table 20 (pauses).

For every configuration: export once, build several engines per precision, time each under `buffered`,
evaluate the first of them, and put accuracy and latency of that same engine into one row, beside the range of
the other builds and the printed numbers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.benchmark.accuracy import accuracy_record
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.nms import WithNms
from rfdetr.benchmark.records import LatencyRecord, join, write_records
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.benchmark.runtimes.tensorrt_build import build_engine
from rfdetr.errors import UserError
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.export.onnx import export_onnx
from rfdetr.files import atomic_path, check_folder
from rfdetr.networks import open_network
from rfdetr.paper import tables

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

PAUSES_MS = (0.0, 200.0, 400.0, 800.0)  # Table 20
PAPER_PAUSE_MS = 200.0
MODELS = ("nano", "small", "medium", "large", "seg-nano")
COLUMNS = (
    "model",
    "precision",
    "protocol",
    "pause_ms",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "printed_ms",
    "ap",
    "printed_ap",
    "throttle",
    "noisy",
)


def check_device(device: int = 0) -> None:
    """Raise UserError now, not after the downloads, when TensorRT, its bindings or the GPU are missing."""
    from rfdetr.benchmark.runtimes.cuda import Cuda
    from rfdetr.benchmark.runtimes.tensorrt import load_tensorrt

    load_tensorrt()
    Cuda(device).close()


def run_t4(
    out: str | Path,
    dataset: "DetectionDataset | None" = None,
    models: Sequence[str] = MODELS,
    others: Mapping[str, str | Path] | None = None,
    precisions: Sequence[str] = ("fp32", "fp16"),
    engines: int = 3,
    samples: int = 100,
    sustained_s: float = 30.0,
    pauses_ms: Sequence[float] = PAUSES_MS,
    device: int = 0,
    log: Callable[[str], None] = print,
    **accuracy_options: Any,
) -> "pd.DataFrame":
    """Regenerate the RF-DETR rows of Table 1 and Table 20 on this machine's GPU.

    out         folder for engines, records.jsonl and t4.csv
    dataset     COCO val2017 (`load_dataset("coco2017", "val")`); None leaves accuracy out
    models      targets of `rfdetr.networks.open_network`; the printed rows are those of `medium`
    others      name -> ONNX file of another detector, timed in the same way; a graph with one output [B, 4 +
                K, N] gets NMS inside its pass. Their accuracy is not measured here
    engines     builds per precision. Accuracy and latency of a row are those of the first; the range is that
                of all builds' medians
    sustained_s duration of the `sustained` protocol (0 leaves it out); thermal steady state takes minutes

    Returns one row per model, precision, protocol and pause, with `printed_ms` and `printed_ap` where the
    paper has them. Raises UserError before the first export when a network's classes are not the dataset's.
    """
    check_device(device)
    folder = Path(out)
    check_folder(folder)
    rows: list[dict[str, Any]] = []
    sources: dict[str, Artifact] = {}
    networks = {name: open_network(name) for name in models}
    for name, network in networks.items():
        if dataset is not None:
            check_data(name, network, dataset)
    for name, network in networks.items():
        path = folder / f"{re.sub('[:/]', '-', name)}.onnx"
        sources[name] = export_onnx(network, network.config.default_arch, path)
    sources |= {name: load_artifact(path) for name, path in (others or {}).items()}
    for name, source in sources.items():
        for precision in precisions:
            log(f"{name} {precision}: {engines} engines")
            built = [
                build_engine(
                    source,
                    folder / f"{source.file.stem}-{precision}-{i}.engine",
                    precision,
                    timing_cache=None if i else folder / "timing.cache",
                    device=device,
                )
                for i in range(engines)
            ]
            runs = [("buffered", {"pause_ms": p, "samples": samples}) for p in pauses_ms]
            if sustained_s:
                runs.append(("sustained", {"seconds": sustained_s, "warm_seconds": sustained_s}))
            rows += _rows(name, precision, built, runs, dataset, device, folder, accuracy_options)
    import pandas as pd

    frame = pd.DataFrame(rows)
    with atomic_path(folder / "t4.csv") as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def check_data(name: str, network: "RFDETR", dataset: "DetectionDataset") -> None:
    """Raise UserError when the accuracy of a network on a dataset is not defined: classes, masks, objects."""
    to_data_labels(network, dataset)
    if network.config.segmentation and not dataset.has_masks:
        raise UserError(f"{name} is evaluated by its masks and {dataset!r} has none: leave --data empty")
    if not any(not annotation.get("iscrowd") for annotation in dataset.coco["annotations"]):
        raise UserError(f"{dataset!r} has no objects, AP is not defined: leave --data empty")


def _rows(
    name: str,
    precision: str,
    built: Sequence[Artifact],
    runs: Sequence[tuple[str, dict[str, Any]]],
    dataset: "DetectionDataset | None",
    device: int,
    folder: Path,
    accuracy_options: dict[str, Any],
) -> list[dict[str, Any]]:
    records: list[list[LatencyRecord]] = []
    accuracy = None
    for index, artifact in enumerate(built):
        with _with_nms(load_runtime("tensorrt", artifact, device=device)) as loaded:
            records.append([time_artifact(loaded, protocol, **options) for protocol, options in runs])
            if index == 0 and dataset is not None and artifact.arch is not None:
                accuracy = accuracy_record(loaded, dataset, **accuracy_options)
    rows = []
    for same in zip(*records, strict=True):
        medians = [r.median_ms for r in same]
        first = same[0]
        joined = [join(accuracy, first) if accuracy is not None else first, *same[1:]]
        write_records(folder / "records.jsonl", joined)
        metric = "mask_AP" if built[0].has_masks else "AP"
        rows.append(
            {
                "model": name,
                "requested": precision,
                "precision": first.precision,
                "protocol": first.protocol,
                "pause_ms": first.parameters.get("pause_ms"),
                "latency_ms": first.median_ms,
                "latency_low_ms": min(medians),
                "latency_high_ms": max(medians),
                "engines": len(same),
                "ap": 100 * accuracy.metrics[metric] if accuracy is not None else None,
                **printed(name, precision, first.protocol, first.parameters.get("pause_ms")),
                "throttle": _worst(r.throttle for r in same),
                "noisy": any(r.noisy for r in same),
                "includes": "+".join(first.includes),
                "device": first.device,
                "sha256": first.sha256,
            }
        )
    return rows


def _worst(states: Any) -> str:
    found = set(states)
    return next(s for s in ("throttled", "not monitored", "clean") if s in found)


def _with_nms(loaded: Runtime) -> Runtime:
    outputs = loaded.artifact.outputs
    needs = loaded.artifact.arch is None and len(outputs) == 1 and len(outputs[0].shape) == 3
    return WithNms(loaded) if needs else loaded


_PRINTED = {"medium": ("RF-DETR", "M")}


def printed(name: str, precision: str, protocol: str, pause_ms: float | None) -> dict[str, float | None]:
    """The paper's latency (ms) and AP for a row, None where it prints none. Tables 1 and 20 hold the medium
    model.
    """
    nothing: dict[str, float | None] = {"printed_ms": None, "printed_ap": None}
    if name not in _PRINTED or protocol != "buffered" or pause_ms is None:
        return nothing
    model, size = _PRINTED[name]
    if pause_ms == PAPER_PAUSE_MS:
        row = tables.find_row(1, model=model, size=size, setting=f"buffering_{precision}")
        return {"printed_ms": float(row["latency_ms"]), "printed_ap": float(row["ap"])}
    if precision == "fp16" and pause_ms in PAUSES_MS:
        row = tables.find_row(20, model=model, size=size)
        return {
            "printed_ms": float(row[f"latency_ms_buffer_{pause_ms:.0f}ms"]),
            "printed_ap": float(row["ap"]),
        }
    return nothing
