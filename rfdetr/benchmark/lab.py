"""What `python -m rfdetr benchmark` does: open a model or file, time it, evaluate it, write the records."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import accuracy_record
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.prepare import prepare
from rfdetr.benchmark.records import LatencyRecord, join, to_frame, write_records
from rfdetr.benchmark.runtimes import (
    FILE_RUNTIMES,
    PRECISIONS,
    TORCH_RUNTIMES,
    check_runtime,
    load_runtime,
)
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.errors import UserError
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.networks import is_exported, named_categories, open_network
from rfdetr.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

Log = Callable[[str], None]


def open_runtime(
    target: str,
    runtime: str,
    folder: Path,
    arch: str | None = None,
    precision: str = "",
    threads: int = 1,
    batch: int | None = None,
    device: int = 0,
    images: "DetectionDataset | None" = None,
    log: Log = print,
    categories: str | None = None,
    evaluated: "DetectionDataset | None" = None,
) -> Runtime:
    """Load a model or file in a runtime, exporting, converting and building what is needed into `folder`.

    precision  one of the runtime's, "": its default. images: of the data that the network is for, where they
               are at hand (`rfdetr.benchmark.prepare`)
    categories what the classes are, where the target does not say it (`rfdetr.networks.named_categories`)
    evaluated  what the runtime is evaluated on later; UserError before the work when the classes do not fit
    """
    is_file = is_exported(target)
    if is_file and runtime in TORCH_RUNTIMES:
        raise UserError(f"{runtime} runs networks, not {target}; use --runtime {FILE_RUNTIMES[0]}")
    if is_file and arch is not None:
        raise UserError(f"{target} already is one sub-network; --arch goes with a model")
    asked, precision = precision, check_runtime(runtime, precision, device)
    if runtime in TORCH_RUNTIMES:
        import torch

        from rfdetr.benchmark.runtimes.torch import TorchRuntime

        model = open_network(target, categories)
        _check(model, evaluated)
        mode = runtime.partition("-")[2] or "eager"
        where = f"cuda:{device}" if torch.cuda.is_available() else "cpu"
        subnet = model.subnet(_arch(model, arch))
        return TorchRuntime.of(subnet, mode, where, precision, threads, batch or 1)
    if is_file:
        artifact = load_artifact(target)
        if categories is not None:
            artifact = artifact.with_categories(named_categories(categories, artifact.num_classes))
        _check(artifact, evaluated)
        if not asked and artifact.precision in PRECISIONS[runtime] and artifact.precision != "fp32":
            precision = artifact.precision  # a converted file says what it is
    else:
        model = open_network(target, categories)
        _check(model, evaluated)
        artifact = _export(model, target, arch, folder, batch or 1, log)
    artifact = prepare(artifact, runtime, precision, folder, images, device, log)
    return load_runtime(runtime, artifact, precision, threads=threads, device=device)


def _arch(model: "RFDETR", arch: str | None) -> Arch:
    return model.resolve(Arch.parse(arch) if arch is not None else None)


def _check(model: "RFDETR | Artifact", dataset: "DetectionDataset | None") -> None:
    if dataset is not None:
        to_data_labels(model, dataset)


def _export(model: "RFDETR", target: str, arch: str | None, folder: Path, batch: int, log: Log) -> Artifact:
    from rfdetr.export.onnx import export_onnx

    chosen = _arch(model, arch)
    path = folder / f"{target.replace(':', '-').replace('/', '-')}-{chosen.id}-b{batch}.onnx"
    log(f"exporting {chosen.id}")
    return export_onnx(model, chosen, path, batch=batch)


def protocol_runs(
    protocols: Sequence[str], pauses_ms: Sequence[float], samples: int, seconds: float, fps: Sequence[float]
) -> list[tuple[str, dict[str, Any]]]:
    """(protocol, options) of every measurement asked for; UserError for an unknown protocol, or none."""
    unknown = sorted(set(protocols) - {"buffered", "sustained", "rate"})
    if unknown or not protocols:
        raise UserError(
            f"unknown protocol {', '.join(unknown) or 'none'}; choose from buffered, sustained, rate"
        )
    runs: list[tuple[str, dict[str, Any]]] = []
    for protocol in protocols:
        if protocol == "buffered":
            runs += [(protocol, {"pause_ms": p, "samples": samples}) for p in pauses_ms]
        elif protocol == "sustained":
            runs.append((protocol, {"seconds": seconds, "warm_seconds": min(seconds, 5.0)}))
        else:
            runs += [(protocol, {"fps": f, "seconds": seconds}) for f in fps]
    return runs


def benchmark_command(
    target: str,
    runtime: str = "onnxruntime",
    protocols: Sequence[str] = ("buffered",),
    arch: str | None = None,
    precision: str = "",
    threads: int = 1,
    batch: int | None = None,
    pauses_ms: Sequence[float] = (200.0,),
    samples: int = 50,
    seconds: float = 10.0,
    fps: Sequence[float] = (30.0,),
    runs: int = 2,
    coco: str | None = None,
    split: str = "val",
    images: int | None = None,
    nms: bool = False,
    device: int = 0,
    categories: str | None = None,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    log: Log = print,
) -> list[Any]:
    """Time a model or file under one or more protocols and, with `coco`, evaluate the same artifact.

    target      .onnx, .engine, .xml, a checkpoint, a published name, or random:<name>
    runtime     a name of `rfdetr.benchmark.runtimes.PRECISIONS`, precision one of its values; "": the default
    batch       images in a pass; None: those of a file with a fixed batch, else 1
    coco        name or folder of a dataset; adds its accuracy to every row (`rfdetr.benchmark.records.join`),
                and its training images show FP16 the ranges and INT8 the scales
    device      index of the GPU, as CUDA counts
    nms         end every pass with NMS, for detectors that need it
    categories  as `open_runtime`
    out         file of records, JSON lines, to append to
    folder      where exported files and engines are kept; a temporary one if None

    Prints a table, returns the records.
    """
    todo = protocol_runs(protocols, pauses_ms, samples, seconds, fps)
    dataset = images_of(coco, split, images) if coco is not None else None
    holder = tempfile.TemporaryDirectory() if folder is None else nullcontext(str(folder))
    with holder as place:
        seen = training_images(coco, dataset, log) if coco is not None and dataset is not None else None
        loaded = open_runtime(
            target,
            runtime,
            Path(place),
            arch,
            precision,
            threads,
            batch,
            device,
            seen,
            log,
            categories,
            dataset,
        )
        if nms:
            from rfdetr.benchmark.nms import WithNms

            loaded = WithNms(loaded)
        with loaded:
            records = _measure_all(loaded, todo, runs, batch, progress)
            joined = _with_accuracy(records, loaded, dataset, progress)
    if out is not None:
        write_records(out, joined)
    log("\n".join([table_text(to_frame(joined)), *_noise(records)]))
    return joined


def _with_accuracy(
    records: list[LatencyRecord], loaded: Runtime, dataset: "DetectionDataset | None", progress: bool
) -> list[Any]:
    if dataset is None:
        return list(records)
    accuracy = accuracy_record(loaded, dataset, progress=progress)
    return [join(accuracy, record) for record in records]


def _noise(records: Sequence[LatencyRecord]) -> Iterator[str]:
    """Why measurements are noisy, one line each."""
    for record in records:
        settings = ", ".join(f"{k} {v:g}" for k, v in record.parameters.items())
        yield from (f"noisy ({record.protocol}, {settings}): {reason}" for reason in record.reasons)


def _measure_all(
    loaded: Runtime,
    todo: Sequence[tuple[str, dict[str, Any]]],
    runs: int,
    batch: int | None,
    progress: bool,
) -> list[LatencyRecord]:
    records = []
    for protocol, options in todo:
        label = f"{protocol} " + " ".join(f"{k}={v:g}" for k, v in options.items())
        with progress_bar(progress, 1, label, "pass", leave=False) as report:
            records.append(time_artifact(loaded, protocol, runs, batch, progress=report, **options))
    return records


def images_of(data: str, split: str, size: int | None = None) -> "DetectionDataset":
    """A split of a dataset by name or folder."""
    from rfdetr.data.registry import load_dataset

    return load_dataset(data, split, size=size)


def training_images(data: str, evaluated: "DetectionDataset", log: Log = print) -> "DetectionDataset":
    """The training split, which a conversion may look at; the split that is evaluated, said so, where there
    is no other.
    """
    try:
        return images_of(data, "train")
    except UserError as error:
        log(f"conversions look at the images that are evaluated: {error}")
        return evaluated


_COLUMNS = (
    "name",
    "runtime",
    "precision",
    "protocol",
    "pause_ms",
    "fps",
    "median_ms",
    "p90_ms",
    "p99_ms",
    "max_ms",
    "misses",
    "growth_ms_per_s",
    "AP",
    "mask_AP",
    "throttle",
    "noisy",
)


def table_text(frame: "pd.DataFrame", columns: Sequence[str] = _COLUMNS) -> str:
    """The columns that matter, for a terminal. Latency with one decimal from 1 ms on: more is not
    repeatable.
    """
    shown = frame[[c for c in columns if c in frame and frame[c].notna().any()]]
    formats: Any = {c: _milliseconds for c in shown if str(c).endswith("_ms")}
    return shown.to_string(index=False, formatters=formats, na_rep="", float_format=lambda v: f"{v:.3f}")


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
