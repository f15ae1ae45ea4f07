"""What `python -m rfdetr benchmark` does: open a model or file, time it, evaluate it, write the records."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import accuracy_record
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.records import AccuracyRecord, LatencyRecord, join, to_frame, write_records
from rfdetr.benchmark.runtimes import FILE_RUNTIMES, TORCH_RUNTIMES, load_runtime
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.networks import open_network
from rfdetr.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

Log = Callable[[str], None]


def open_runtime(
    target: str,
    runtime: str,
    folder: Path,
    arch: str | None = None,
    precision: str = "fp32",
    threads: int = 1,
    batch: int = 1,
    log: Log = print,
) -> Runtime:
    """Load a model or file in a runtime, exporting, converting and building what is needed into `folder`."""
    if runtime not in (*FILE_RUNTIMES, *TORCH_RUNTIMES):
        raise UserError(
            f"unknown runtime {runtime!r}; choose one of {', '.join((*FILE_RUNTIMES, *TORCH_RUNTIMES))}"
        )
    is_file = target.endswith((".onnx", ".engine", ".plan"))
    if is_file and arch is not None:
        raise UserError(f"{target} already is one sub-network; --arch goes with a model")
    if runtime in TORCH_RUNTIMES:
        if is_file:
            raise UserError(f"{runtime} runs networks, not {target}; use --runtime {FILE_RUNTIMES[0]}")
        import torch

        from rfdetr.benchmark.runtimes.torch import TorchRuntime

        model = open_network(target)
        mode = runtime.partition("-")[2] or "eager"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(threads)
        return TorchRuntime.of(model.subnet(_arch(model, arch)), mode, device, precision)
    artifact = load_artifact(target) if is_file else _export(target, arch, folder, batch, log)
    artifact = _at_precision(artifact, runtime, precision, folder, log)
    return load_runtime(runtime, artifact, threads=threads)


def _arch(model: "RFDETR", arch: str | None) -> Arch:
    return model.resolve(Arch.parse(arch) if arch is not None else None)


def _export(target: str, arch: str | None, folder: Path, batch: int, log: Log) -> Artifact:
    from rfdetr.export.onnx import export_onnx

    model = open_network(target)
    chosen = _arch(model, arch)
    path = folder / f"{target.replace(':', '-').replace('/', '-')}-{chosen.id}-b{batch}.onnx"
    log(f"exporting {chosen.id}")
    return export_onnx(model, chosen, path, batch=batch)


def _at_precision(artifact: Artifact, runtime: str, precision: str, folder: Path, log: Log) -> Artifact:
    if artifact.format == "engine":
        if runtime != "tensorrt":
            raise UserError(f"{artifact.path} is a TensorRT engine; use --runtime tensorrt")
        return artifact
    if runtime == "tensorrt":
        from rfdetr.benchmark.runtimes.tensorrt_build import build_engine

        log(f"building a TensorRT engine ({precision}); this takes minutes")
        path = folder / f"{artifact.file.stem}-{precision}.engine"
        return build_engine(artifact, path, precision, timing_cache=folder / "timing.cache")
    if precision == "fp16" and artifact.precision != "fp16":
        from rfdetr.benchmark.fp16 import to_fp16_safely
        from rfdetr.benchmark.runtimes.base import random_inputs

        path = folder / f"{artifact.file.stem}-fp16.onnx"
        converted, table = to_fp16_safely(artifact, path, [random_inputs(artifact, seed=s) for s in range(2)])
        beyond = int(table["beyond"].sum() + table["inside_beyond"].sum())
        log(f"converted to FP16; {beyond} tensors beyond its range are kept in FP32")
        return converted
    if precision not in ("fp32", "fp16"):
        raise UserError(f"{runtime} runs fp32 and fp16 files; {precision} needs --runtime tensorrt")
    return artifact


def protocol_runs(
    protocols: Sequence[str], pauses_ms: Sequence[float], samples: int, seconds: float, fps: Sequence[float]
) -> list[tuple[str, dict[str, Any]]]:
    """(protocol, options) of every measurement asked for."""
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
    precision: str = "fp32",
    threads: int = 1,
    batch: int = 1,
    pauses_ms: Sequence[float] = (200.0,),
    samples: int = 50,
    seconds: float = 10.0,
    fps: Sequence[float] = (30.0,),
    runs: int = 2,
    coco: str | None = None,
    split: str = "val",
    images: int | None = None,
    nms: bool = False,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    log: Log = print,
) -> list[Any]:
    """Time a model or file under one or more protocols and, with `coco`, evaluate the same artifact.

    target      .onnx, .engine, a checkpoint, a published name, or random:<name>
    runtime     onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, torch, torch-compile,
                torch-cudagraph
    precision   fp32 or fp16; tf32 and int8 with TensorRT. The record says what was executed
    coco        name or folder of a dataset; adds its accuracy to every row (`rfdetr.benchmark.records.join`)
    nms         end every pass with NMS, for detectors that need it
    out         file of records, JSON lines, to append to
    folder      where exported files and engines are kept; a temporary one if None

    Prints a table, returns the records.
    """
    todo = protocol_runs(protocols, pauses_ms, samples, seconds, fps)
    unknown = sorted(set(protocols) - {"buffered", "sustained", "rate"})
    if unknown or not todo:
        raise UserError(
            f"unknown protocol {', '.join(unknown) or 'none'}; choose from buffered, sustained, rate"
        )
    holder = tempfile.TemporaryDirectory() if folder is None else nullcontext(str(folder))
    with holder as place:
        loaded = open_runtime(target, runtime, Path(place), arch, precision, threads, batch, log)
        if nms:
            from rfdetr.benchmark.nms import WithNms

            loaded = WithNms(loaded)
        with loaded:
            records = _measure_all(loaded, todo, runs, batch, progress, log)
            if coco is not None:
                accuracy = _accuracy(loaded, coco, split, images, progress)
                joined: list[Any] = [join(accuracy, r) for r in records]
            else:
                joined = list(records)
    if out is not None:
        write_records(out, joined)
    log(table_text(to_frame(joined)))
    for reason in dict.fromkeys(r for record in records for r in record.reasons):
        log(f"noisy: {reason}")
    return joined


def _measure_all(
    loaded: Runtime,
    todo: Sequence[tuple[str, dict[str, Any]]],
    runs: int,
    batch: int,
    progress: bool,
    log: Log,
) -> list[LatencyRecord]:
    records = []
    for protocol, options in todo:
        label = f"{protocol} " + " ".join(f"{k}={v:g}" for k, v in options.items())
        with progress_bar(progress, 1, label, "pass", leave=False) as report:
            records.append(time_artifact(loaded, protocol, runs, batch, progress=report, **options))
    return records


def _accuracy(loaded: Runtime, coco: str, split: str, images: int | None, progress: bool) -> AccuracyRecord:
    from rfdetr.data.registry import load_dataset

    dataset = load_dataset(coco, split, size=images)
    return accuracy_record(loaded, dataset, progress=progress)


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
