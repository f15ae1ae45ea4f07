"""How long each stage takes, and how a limit in hours is shared between them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.nas.look import Proposal
from rfdetr.nas.measure import search_cost, step_cost
from rfdetr.nas.network import search_space, start
from rfdetr.nas.options import NasOptions

# Of the time that is left when looking, searching and reporting have theirs.
_FINE_TUNING = 0.25
_RESERVE_S, _MARGIN = (
    60.0,
    0.85,
)  # imports, exports and the report; steps that take longer than those measured
_FEWEST_STEPS, _FEWEST_EPOCHS, _EPOCHS_FINE_TUNING = 200, 100, 20
_MEASURED, _FEWEST_MEASURED = 40, 12
_TIMING_ERROR = 0.3  # of a latency that was measured in a moment, beside other work
CHOSEN = 3
EVALUATIONS, PATIENCE = 10, 3
"""Evaluations during a training, and how many without a better AP end that of a pre-trained network, which
follows no schedule (Section 3).
"""


@dataclass(frozen=True)
class Plan:
    """steps, tune_steps: of the supernet, and of each chosen network. measured: sub-networks that are timed.
    budget: part of the exact search's cost, timing included, that may be spent; 1 for the exact search.
    seconds: expected, by stage. fastest_ms: latency of the smallest sub-network here. limit_s: what was
    allowed, where the steps that were asked for may not fit.
    """

    steps: int
    tune_steps: int
    batch_size: int
    accumulate: int
    measured: int
    budget: float
    seconds: Mapping[str, float]
    peak_mb: int
    fastest_ms: float = 0.0
    limit_s: float | None = None

    @property
    def total_s(self) -> float:
        """Expected seconds of all stages."""
        return sum(self.seconds.values())

    def lines(self, images: int) -> list[str]:
        """The plan in words, for the terminal and the run's folder. images: of the training split."""
        shown = self.batch_size * self.accumulate
        epochs = self.steps * shown / max(images, 1)
        search = "exact" if self.budget >= 1 else f"{self.budget:.1%} of the exact search's cost"
        rows = [
            (
                f"train      {self.steps:,} steps of {shown} images = {epochs:.0f} epochs"
                f" (about {self.peak_mb / 1024:.1f} GB)"
            ),
            f"search     {search}; {self.measured} sub-networks timed",
            *([f"fine-tune  {self.tune_steps:,} steps for each chosen network"] if self.tune_steps else []),
        ]
        times = ", ".join(f"{name} {_duration(s)}" for name, s in self.seconds.items())
        rows.append(f"time       {times}: {_duration(self.total_s)} in all")
        if self.limit_s is not None and self.total_s > self.limit_s:
            rows.append(f"           more than the {_duration(self.limit_s)} of --hours, because of --steps")
        return rows


def make_plan(
    options: NasOptions,
    images: int,
    recipe_steps: int | None,
    step: Mapping[str, Any],
    search_s: float,
    timing_s: float,
    fastest_ms: float = 0.0,
) -> Plan:
    """Steps and numbers that fit `options.hours`, or the recipe's own where there is no limit.

    images        of the training split
    recipe_steps  of the recipe; None: a hundred epochs
    step          `StepCost` as a dict: of one supernet step
    search_s, timing_s   expected for all accuracies, and for the timing of one sub-network

    Raises UserError for hours in which nothing can be trained.
    """
    seconds, shown = float(step["seconds"]), int(step["batch_size"]) * int(step["accumulate"])
    by_epochs = max(_FEWEST_STEPS, round(_FEWEST_EPOCHS * images / shown))
    steps = options.steps or max(recipe_steps or 0, by_epochs)
    tune = max(_FEWEST_STEPS // 4, round(_EPOCHS_FINE_TUNING * images / shown)) if options.fine_tune else 0
    measured, budget = options.measured or _MEASURED, 1.0
    rounds = 2 if options.baseline else 1
    if options.hours is not None:
        limit = without_reserve(options.hours)
        if options.measured is None:
            measured = max(_FEWEST_MEASURED, min(_MEASURED, int(0.1 * limit / timing_s)))
        whole = search_s + measured * timing_s
        budget = min(1.0, (0.12 * limit + measured * timing_s) / max(whole, 1e-9))
        left = max(0.0, limit - budget * whole) / rounds
        tuning = left * _FINE_TUNING if options.fine_tune else 0.0
        if options.steps is None:
            steps = int((left - tuning) / seconds)
            if steps < _FEWEST_STEPS // 4:
                raise UserError(
                    f"--hours {options.hours:g} leaves {steps} training steps of {seconds:.1f} s: give more"
                    " time, a smaller grid (--resolutions) or --steps"
                )
        tune = min(tune, int(tuning / CHOSEN / seconds))
    tune = min(tune, steps // 3)
    spent = {"train": steps * seconds, "search": budget * (search_s + measured * timing_s)}
    if tune:
        spent["fine-tune"] = CHOSEN * tune * seconds
    if options.baseline:
        spent["baseline"] = spent["train"] + spent.get("fine-tune", 0.0)
    spent["rest"] = _RESERVE_S
    return Plan(
        steps,
        tune,
        int(step["batch_size"]),
        int(step["accumulate"]),
        measured,
        budget,
        spent,
        int(step["peak_mb"]),
        fastest_ms,
        None if options.hours is None else 3600 * options.hours,
    )


def without_reserve(hours: float) -> float:
    """Seconds that are left for training and search."""
    limit = 3600 * hours * _MARGIN - _RESERVE_S
    if limit <= 0:
        fewest = _RESERVE_S / _MARGIN
        raise UserError(
            f"--hours {hours:g} is {_duration(3600 * hours)}: looking, exports and the report alone take"
            f" {_duration(fewest)}; give more than {fewest / 3600:.2g}"
        )
    return limit


def unreachable(options: NasOptions, fastest_ms: float) -> str:
    """A line about latencies below that of the smallest sub-network, "" if there are none. UserError where
    all are far below it.
    """
    low = [ms for ms in options.targets_ms if ms < fastest_ms]
    if not low:
        return ""
    text = (
        f"--target-ms {', '.join(f'{ms:g}' for ms in low)}: the smallest sub-network takes"
        f" {fastest_ms:.3g} ms here ({options.runtime}, {options.threads} thread(s))"
    )
    if max(options.targets_ms) < fastest_ms * (1 - _TIMING_ERROR):
        raise UserError(f"{text}: ask for more, or for a smaller grid (--resolutions)")
    return f"{text}, so there may be no network for this"


def settle(
    options: NasOptions,
    train_set: DetectionDataset,
    val: DetectionDataset,
    proposal: Proposal,
    folder: Path,
) -> dict[str, Any]:
    """The stage: network, spaces, recipe and the time of everything, from measurements in `folder` (JSON
    values).
    """
    begin = start(options, train_set, proposal)
    space = search_space(begin)
    step = step_cost(begin.model, train_set, begin.space, begin.config, folder, options.batch_size)
    cost = search_cost(begin.model, val, space, folder, options, train_set)
    recipe_steps = None if begin.pretrained else begin.config.steps
    found = make_plan(options, len(train_set), recipe_steps, asdict(step), **cost)
    config = begin.config.replace(
        steps=found.steps,
        batch_size=found.batch_size,
        accumulate=found.accumulate,
        warmup_steps=min(begin.config.warmup_steps, found.steps // 10),
        checkpoint_every=max(10, min(100, found.steps // 20)),
        evaluate_every=max(1, found.steps // EVALUATIONS),
        patience=PATIENCE if begin.pretrained else 0,
    )
    return {
        **asdict(found),
        "lines": found.lines(len(train_set)),
        "origin": begin.origin,
        "details": list(begin.details),
        "space": asdict(begin.space),
        "search_space": asdict(space),
        "config": config.to_dict(),
    }


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes >= 1.5 else f"{seconds:.0f} s"
