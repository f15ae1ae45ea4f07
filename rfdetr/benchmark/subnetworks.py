"""Latency of many sub-networks of one supernet, in turns, so that they can be compared."""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.benchmark.inputs import random_inputs
from rfdetr.benchmark.prepare import converts, prepare
from rfdetr.benchmark.protocols import time_pass, warm_up
from rfdetr.benchmark.runtimes import TORCH_RUNTIMES, check_runtime, load_runtime
from rfdetr.benchmark.runtimes.base import Runtime, RuntimeInfo
from rfdetr.benchmark.statistics import NOISE_LIMIT
from rfdetr.errors import UserError
from rfdetr.interrupts import check
from rfdetr.model.detector import RFDETR
from rfdetr.progress import Report, progress_bar
from rfdetr.provenance import environment
from rfdetr.quiet import alone

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset

Loader = Callable[[Arch], Runtime]
# Loaded at a time: each takes tens of megabytes of main memory, or of a GPU that may have few.
_AT_ONCE = {"tensorrt": 32, "onnxruntime-tensorrt": 32, "onnxruntime-cuda": 32}


def measure_latency(
    model: RFDETR,
    archs: Iterable[Arch],
    runtime: str = "onnxruntime",
    threads: int = 1,
    rounds: int = 5,
    passes: int = 5,
    pause_ms: float = 0.0,
    progress: bool | Report = False,
    cache_dir: str | Path | None = None,
    max_seconds: float | None = None,
    at_once: int | None = None,
    precision: str = "",
    device: int = 0,
    images: "DetectionDataset | None" = None,
    log: Callable[[str], None] = print,
) -> "pd.DataFrame":
    """Export and time many sub-networks of one supernet, batch 1, on one machine, comparably.

    The sub-networks take turns: every round times each of them for `passes` passes, in a new order, so that a
    drift of the machine hits all alike. The latency of one is the median of its rounds' medians; `spread` is
    how far the rounds are apart, (max - min) / median.

    runtime      any name of `rfdetr.benchmark.runtimes`, with one of its precisions ("": its default, which
                 is fp16 for tensorrt); device: index of the GPU, as CUDA counts
    cache_dir    keeps the exported files, engines and quantised models (used again when weights and versions
                 are the same)
    max_seconds  end the timing after the round in which it passes; three rounds are always made
    at_once      so many are loaded at a time, drawn at random; default by runtime
    images       of the data that the network is for; int8 needs them, FP16 files should have them

    Returns one row per distinct sub-network, in the order given: the five knobs, arch, latency_ms,
    latency_low_ms and latency_high_ms (smallest and largest round), spread, noisy (spread over 5 % between
    the middle rounds), sha256, precision (as executed), runtime, device, threads, rounds. `frame.attrs` holds
    "environment" and "device".
    """
    import pandas as pd

    precision = check_runtime(runtime, precision, device)
    wanted = list(dict.fromkeys(model.resolve(a) for a in archs))
    if not wanted:
        raise UserError("there is no sub-network to time")
    at_once = at_once or (16 if runtime in TORCH_RUNTIMES else _AT_ONCE.get(runtime, 150))
    total = (2 + converts(runtime, precision)) * len(wanted)
    with (
        progress_bar(progress, total, "export and time", "step") as report,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(cache_dir) if cache_dir is not None else Path(scratch)
        load = loader(model, wanted, runtime, precision, threads, device, folder, images, report, log)
        with kept_threads():
            timed = _time_all(wanted, load, at_once, rounds, passes, pause_ms, max_seconds, report, total)
    frame = pd.DataFrame([_row(arch, *timed[arch], threads) for arch in wanted])
    # Plain values: pandas copies and compares what is in attrs.
    frame.attrs["environment"] = environment()
    frame.attrs["device"] = timed[wanted[0]][2].device
    return frame


def loader(
    model: RFDETR,
    wanted: Sequence[Arch],
    runtime: str,
    precision: str,
    threads: int,
    device: int,
    folder: Path,
    images: "DetectionDataset | None" = None,
    report: Report = lambda done, total: None,
    log: Callable[[str], None] = print,
) -> Loader:
    """A function that loads any of the `wanted` sub-networks; their files are exported and converted first.

    The arguments are those of `measure_latency`, with a precision that `check_runtime` has given.
    """
    from rfdetr.export.onnx import export_many

    if runtime in TORCH_RUNTIMES:
        import torch

        from rfdetr.benchmark.runtimes.torch import TorchRuntime

        where = f"cuda:{device}" if torch.cuda.is_available() else "cpu"
        mode = runtime.partition("-")[2] or "eager"
        return lambda arch: TorchRuntime.of(model.subnet(arch), mode, where, precision, threads=threads)
    total = (2 + converts(runtime, precision)) * len(wanted)
    artifacts = export_many(model, wanted, folder, progress=lambda done, _: report(done, total))
    if converts(runtime, precision):
        for number, arch in enumerate(wanted, start=1):
            artifacts[arch] = prepare(artifacts[arch], runtime, precision, folder, images, device, log)
            report(len(wanted) + number, total)
    return lambda arch: load_runtime(runtime, artifacts[arch], precision, threads=threads, device=device)


@contextmanager
def kept_threads() -> Any:
    """PyTorch's number of threads belongs to the process: set back what its runtimes change."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time_all(
    wanted: Sequence[Arch],
    load: Loader,
    at_once: int,
    rounds: int,
    passes: int,
    pause_ms: float,
    max_seconds: float | None,
    report: Report,
    total: int,
) -> dict[Arch, tuple[np.ndarray, str, RuntimeInfo]]:
    """(medians of the rounds in ms, SHA-256 of what was timed, how it ran) of every sub-network."""
    groups = np.array_split(np.random.default_rng(0).permutation(len(wanted)), -(-len(wanted) // at_once))
    limit = None if max_seconds is None else max_seconds / len(groups)
    timed: dict[Arch, tuple[np.ndarray, str, RuntimeInfo]] = {}
    for group in groups:
        runtimes = [load(wanted[i]) for i in group]
        try:
            with alone():
                found = _in_turns(runtimes, rounds, passes, pause_ms, limit)
        finally:
            for loaded in runtimes:
                loaded.close()
        for position, loaded, values in zip(group, runtimes, found.T, strict=True):
            timed[wanted[position]] = (values, loaded.artifact.sha256, loaded.info)
        report(total - len(wanted) + len(timed), total)
    return timed


def _in_turns(
    runtimes: Sequence[Runtime],
    rounds: int,
    passes: int,
    pause_ms: float,
    max_seconds: float | None,
) -> np.ndarray:
    """Medians in ms [rounds made, runtimes] of `passes` passes each, in a new order every round."""
    for loaded in runtimes:
        check()
        loaded.bind(random_inputs(loaded.artifact))
        warm_up(loaded, max_passes=20, max_seconds=1.0)
    random = np.random.default_rng(0)
    medians = np.empty((rounds, len(runtimes)))
    begin = time.perf_counter()
    for index in range(rounds):
        for position in random.permutation(len(runtimes)):
            check()
            loaded = runtimes[position]
            loaded.infer()  # the one before it has the caches
            times = []
            for _ in range(passes):
                if pause_ms:
                    time.sleep(pause_ms / 1000)
                times.append(time_pass(loaded, time.perf_counter))
            medians[index, position] = np.median(times)
        if max_seconds is not None and index >= 2 and time.perf_counter() - begin > max_seconds:
            return medians[: index + 1]
    return medians


def _row(arch: Arch, values: np.ndarray, sha256: str, info: RuntimeInfo, threads: int) -> dict[str, Any]:
    middle = float(np.median(values))
    low, high = np.percentile(values, [25, 75])
    return {
        **arch.to_dict(),
        "arch": arch.id,
        "latency_ms": middle,
        "latency_low_ms": float(values.min()),
        "latency_high_ms": float(values.max()),
        "spread": float((values.max() - values.min()) / middle),
        "noisy": bool((high - low) / middle > NOISE_LIMIT),
        "sha256": sha256,
        "precision": info.precision,
        "runtime": f"{info.runtime} {info.version}",
        "device": info.device,
        "threads": threads,
        "rounds": len(values),
    }
