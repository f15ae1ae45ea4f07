"""What a run costs here: training steps, accuracies and latencies, from a few real ones."""

import time
from collections.abc import Sequence
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
from rfdetr.nas.processes import Trainer
from rfdetr.nas.stages import fresh
from rfdetr.search.study import dry_run
from rfdetr.training.config import TrainConfig
from rfdetr.training.log import read_log

_WARM = 1  # steps before those that are timed
_TIMED_S, _TIMED_STEPS = 4.0, (2, 10)  # as many steps of one architecture as this takes, within limits
_PROBE_BATCH = 2
_MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class StepCost:
    """A training step here.

    fixed_s, gflop_s       one of all images takes fixed_s + gflop_s * GFLOPs of its architecture
    seconds                a mean step of the space
    batch_size, accumulate images that fit into the memory of a process, and passes that make, over all
                           processes, the recipe's batch of them
    peak_mb                of a process, estimated for the largest architecture
    """

    seconds: float
    batch_size: int
    accumulate: int
    peak_mb: int
    fixed_s: float = 0.0
    gflop_s: float = 0.0

    def of(self, gflops: float) -> float:
        """Seconds of a step of an architecture with so many GFLOPs."""
        return self.fixed_s + self.gflop_s * gflops


def step_cost(
    trainer: Trainer,
    model: RFDETR,
    space: SearchSpace,
    config: TrainConfig,
    folder: Path,
    batch: int | None = None,
) -> StepCost:
    """Run a few steps of the smallest and of the largest architecture; those between lie on a line over their
    operations, for a step also has costs that no size changes.

    batch: images per step, all processes together, that the recipe wants; a smaller number per pass is
    accumulated where memory is short.
    """
    wanted = -(-(batch or config.batch_size * config.accumulate) // trainer.devices)
    small, large = _ends(model.config, space)
    few = config.replace(steps=_WARM + 1, batch_size=_PROBE_BATCH, accumulate=1)
    first = _steps(trainer, model, large, few, folder)
    size, memory = fitting_batch(first.grown_mb, wanted, trainer.devices)
    accumulate = max(1, -(-wanted // size))
    few = few.replace(batch_size=size)
    about = first.seconds * size / _PROBE_BATCH
    # A long step of the right size need not be repeated.
    known = size == _PROBE_BATCH and first.seconds > _TIMED_S / 2
    last = first.seconds if known else step_seconds(trainer, model, large, few, folder, about)
    ends = [step_seconds(trainer, model, small, few, folder, about) * accumulate, last * accumulate]
    operations = gflops(model.config, space.distinct())
    low, high = operations[small.id], operations[large.id]
    slope = max(0.0, (ends[1] - ends[0]) / (high - low)) if high > low else 0.0
    fixed = ends[1] - slope * high
    mean = fixed + slope * mean_drawn(operations, config)
    return StepCost(mean, size, accumulate, memory, fixed, slope)


@dataclass(frozen=True)
class _Few:
    seconds: float
    grown_mb: float


def step_seconds(
    trainer: Trainer, model: RFDETR, arch: Arch, config: TrainConfig, folder: Path, about: float
) -> float:
    """Seconds of one step (pass) of the recipe on `arch`, whose time is roughly known, from a few."""
    count = int(np.clip(_TIMED_S / max(about, 1e-6), *_TIMED_STEPS))
    return _steps(trainer, model, arch, config.replace(steps=_WARM + count), folder).seconds


def _steps(trainer: Trainer, model: RFDETR, arch: Arch, config: TrainConfig, folder: Path) -> _Few:
    """A training of a copy that is thrown away: median seconds of its steps without the first."""
    import copy

    # Nothing but steps, and as small a checkpoint at their end as can be.
    changes = {"warmup_steps": 0, "anchor": None, "schedule": "none", "ema_decay": None}
    few = config.replace(**changes, evaluate_every=0, patience=0, checkpoint_every=config.steps)
    place = fresh(folder / "probe")
    done = trainer(copy.deepcopy(model), arch, few, place, evaluated=False, progress=False, resume=False)
    seconds = [float(row["seconds"]) for row in read_log(place)[_WARM:]]
    fresh(folder / "probe").rmdir()
    return _Few(float(np.median(seconds)), done.grown_mb)


def fitting_batch(grown_mb: float, wanted: int, devices: int = 1) -> tuple[int, int]:
    """(images per pass, estimated peak in MB): the largest part of `wanted` that 60 % of the free
    memory hold.

    grown_mb: what `_PROBE_BATCH` images of the largest architecture added to a process. devices: processes
    that share the memory; each GPU has its own.
    """
    import psutil
    import torch

    if torch.cuda.is_available():
        free, own = torch.cuda.mem_get_info()[0] / 2**20, 0.0
    else:
        free = psutil.virtual_memory().available / 2**20 / devices
        own = psutil.Process().memory_info().rss / 2**20
    each = max(grown_mb, 1.0) / _PROBE_BATCH
    parts = (wanted // n for n in range(1, wanted + 1) if wanted % n == 0)
    size = next((part for part in parts if each * part <= free * _MEMORY_SHARE), 1)
    return size, round(each * size + own)


def _ends(config: ModelConfig, space: SearchSpace) -> tuple[Arch, Arch]:
    """The setting with fewest and that with most operations of those that a training draws from."""
    operations = gflops(config, space.distinct())
    ranked = sorted(operations, key=lambda name: operations[name])
    return Arch.parse(ranked[0]), Arch.parse(ranked[-1])


def gflops(config: ModelConfig, archs: Sequence[Arch]) -> dict[str, float]:
    """Operations of a forward pass on one picture, by architecture."""
    values = analytic_table(config, archs)["gflops"]
    return {arch.id: float(value) for arch, value in zip(archs, values, strict=True)}


def mean_drawn(operations: dict[str, float], config: TrainConfig) -> float:
    """Mean operations of a training step; every second one is the anchor's, if there is one."""
    mean = float(np.mean(list(operations.values())))
    own = [value for name, value in operations.items() if Arch.parse(name).encoder == config.anchor]
    return (mean + own[0]) / 2 if own else mean


def relative_cost(config: ModelConfig, arch: Arch, space: SearchSpace, recipe: TrainConfig) -> float:
    """Operations of a step on one architecture, as a multiple of a mean step of the recipe on the space."""
    return gflops(config, [arch])[arch.id] / mean_drawn(gflops(config, space.distinct()), recipe)


def spread_costs(config: ModelConfig, space: SearchSpace, step: StepCost) -> tuple[float, ...]:
    """Seconds of a training step of the smallest, the median and the largest sub-network of a space: about
    what the chosen ones will be, which are spread over it.
    """
    ranked = sorted(gflops(config, space.distinct()).values())
    return tuple(step.of(ranked[i]) for i in (0, len(ranked) // 2, -1))


def search_cost(
    model: RFDETR,
    val: DetectionDataset,
    space: SearchSpace,
    folder: Path,
    options: NasOptions,
    images: DetectionDataset | None = None,
) -> dict[str, float]:
    """search_s: seconds of all accuracies of the space on `val`. timing_s: of exporting, converting and
    timing one sub-network of a group that shares its graphs, as an exact search has them. fastest_ms: latency
    of the smallest one of the space. images: for conversions that look at them.
    """

    def timed(archs: Sequence[Arch]) -> tuple[float, float]:
        started = time.monotonic()
        rows = measure_latency(
            model,
            archs,
            options.runtime,
            options.threads,
            cache_dir=folder / "onnx",
            precision=options.precision,
            images=images,
            log=lambda text: None,
        )
        return (time.monotonic() - started) / len(rows), float(rows["latency_ms"].min())

    estimate = dry_run(model, val, space).iloc[0]
    _, fastest = timed([space.smallest])  # also starts the exporter, which takes a while the first time
    each, _ = timed(sharing(space))
    return {"search_s": float(estimate["hours"]) * 3600, "timing_s": each, "fastest_ms": fastest}


def sharing(space: SearchSpace) -> list[Arch]:
    """Sub-networks of the middle encoder setting with fewest and most layers and queries, at most four: all
    are read off two exported graphs.
    """
    ranked = sorted(space.distinct(), key=lambda arch: (arch.tokens, arch.resolution, -arch.windows))
    middle = ranked[len(ranked) // 2].encoder
    family = [arch for arch in ranked if arch.encoder == middle]
    depths, queries = ({getattr(a, n) for a in family} for n in ("decoder_layers", "queries"))
    ends = ((min(values), max(values)) for values in (depths, queries))
    few_and_many = [set(pair) for pair in ends]
    return [a for a in family if a.decoder_layers in few_and_many[0] and a.queries in few_and_many[1]]
