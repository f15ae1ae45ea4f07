"""What a training step costs here: time and memory, from a few real steps."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.flops import analytic_table
from rfdetr.benchmark.subnetworks import measure_latency
from rfdetr.data.dataset import DetectionDataset
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.nas.options import NasOptions
from rfdetr.search.latency_model import measurement_plan
from rfdetr.search.study import dry_run
from rfdetr.training.config import TrainConfig
from rfdetr.training.loop import train

_STEPS, _WARM = 6, 2
_PROBE_BATCH = 2
_BATCHES = (16, 8, 4, 2, 1)
_MEMORY_SHARE = 0.6
_TIMED = 3


@dataclass(frozen=True)
class StepCost:
    """seconds: of one mean step of the space at `batch_size` images. batch_size, accumulate: images that fit
    into the memory there is, and passes that make the recipe's batch of them. peak_mb: estimated for the
    largest architecture.
    """

    seconds: float
    batch_size: int
    accumulate: int
    peak_mb: int


def step_cost(
    model: RFDETR,
    dataset: DetectionDataset,
    space: SearchSpace | Arch,
    config: TrainConfig,
    folder: Path,
    batch: int | None = None,
) -> StepCost:
    """Run a few steps of a copy of the training and scale them to the mean operations of what it draws.

    batch: images per step that the recipe wants; a smaller number per pass is accumulated where memory is
    short.
    """
    import copy

    wanted = batch or config.batch_size
    largest = space if isinstance(space, Arch) else space.largest
    few = config.replace(
        steps=_WARM, batch_size=_PROBE_BATCH, accumulate=1, ema_decay=None, warmup_steps=0, anchor=None
    )
    with _peak_memory() as peak:
        train(copy.deepcopy(model), dataset, largest, few, folder / "memory", progress=False, resume=False)
    size, memory = fitting_batch(peak.grown_mb, wanted)
    several = few.replace(steps=_STEPS, batch_size=size)
    rows: list[dict[str, float | str]] = []
    train(copy.deepcopy(model), dataset, space, several, folder / "time", progress=rows.append, resume=False)
    operations = _gflops(model.config, space)
    timed = rows[_WARM:]
    drawn = sum(operations[str(row["arch"])] for row in timed)
    rate = sum(float(row["seconds"]) for row in timed) / drawn
    accumulate = max(1, -(-wanted // size))
    return StepCost(rate * _mean_drawn(operations, config) * accumulate, size, accumulate, memory)


def fitting_batch(grown_mb: float, wanted: int) -> tuple[int, int]:
    """(images per pass, estimated peak in MB): the largest of 16, 8, ... 1 that 60 % of the free memory hold.

    grown_mb: what `_PROBE_BATCH` images of the largest architecture added to the process.
    """
    import psutil

    free = psutil.virtual_memory().available / 2**20 * _MEMORY_SHARE
    each = max(grown_mb, 1.0) / _PROBE_BATCH
    size = next((b for b in _BATCHES if b <= wanted and each * b <= free), 1)
    return size, round(each * size + psutil.Process().memory_info().rss / 2**20)


def _gflops(config: ModelConfig, space: SearchSpace | Arch) -> dict[str, float]:
    archs = [space] if isinstance(space, Arch) else space.distinct()
    values = analytic_table(config, archs)["gflops"]
    return {arch.id: float(value) for arch, value in zip(archs, values, strict=True)}


def _mean_drawn(operations: dict[str, float], config: TrainConfig) -> float:
    """Mean operations of a training step; every second one is the anchor's, if there is one."""
    mean = float(np.mean(list(operations.values())))
    own = [value for name, value in operations.items() if Arch.parse(name).encoder == config.anchor]
    return (mean + own[0]) / 2 if own else mean


def relative_cost(config: ModelConfig, arch: Arch, space: SearchSpace) -> float:
    """Operations of a step on one architecture, as a multiple of a mean step on the space."""
    return next(iter(_gflops(config, arch).values())) / float(np.mean(list(_gflops(config, space).values())))


def search_cost(
    model: RFDETR,
    val: DetectionDataset,
    space: SearchSpace,
    folder: Path,
    options: NasOptions,
    images: DetectionDataset | None = None,
) -> dict[str, float]:
    """search_s: seconds of all accuracies of the space on `val`. timing_s: of exporting, converting and
    timing one sub-network. fastest_ms: latency of the smallest one of the space. images: for conversions that
    look at them.
    """
    estimate = dry_run(model, val, space).iloc[0]
    archs = list(dict.fromkeys([space.smallest, *measurement_plan(space, _TIMED, options.seed)]))[:_TIMED]
    started = time.monotonic()
    timed = measure_latency(
        model,
        archs,
        options.runtime,
        options.threads,
        cache_dir=folder / "onnx",
        precision=options.precision,
        images=images,
        log=lambda text: None,
    )
    return {
        "search_s": float(estimate["hours"]) * 3600,
        "timing_s": (time.monotonic() - started) / len(archs),
        "fastest_ms": float(timed["latency_ms"].min()),
    }


@dataclass
class _Peak:
    grown_mb: float = 0.0


@contextmanager
def _peak_memory() -> Iterator[_Peak]:
    """How far this process grows, looked at fifty times a second."""
    import psutil

    process, peak, stop = psutil.Process(), _Peak(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.is_set():
            peak.grown_mb = max(peak.grown_mb, (process.memory_info().rss - before) / 2**20)
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
