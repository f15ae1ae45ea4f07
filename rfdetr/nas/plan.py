"""How long each stage takes, and how a limit in hours is shared between them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.nas.look import Proposal
from rfdetr.nas.measure import StepCost, search_cost, spread_costs, step_cost
from rfdetr.nas.network import search_space, start
from rfdetr.nas.options import NasOptions
from rfdetr.nas.processes import Trainer, sharing_processor

# Of the time that is left when looking, searching and reporting have theirs.
_FINE_TUNING = 0.25
RESERVE_S = 60.0
"""For imports, exports and the report."""
_MARGIN = 0.85  # steps that take longer than those measured
_FEWEST_STEPS, _FEWEST_EPOCHS, _EPOCHS_FINE_TUNING = 200, 100, 20
_MEASURED, _FEWEST_MEASURED, _ROUGHLY_MEASURED = 40, 12, 8
_FRONT = 15  # of the front that are timed besides, where the whole of it is; it has no fixed size
_TIMING_SHARE, _LEAST_TIMING_S = 0.25, 30.0  # of the trainings' time, where no hours are given
_TIMING_HOURS, _SEARCH_HOURS = 0.1, 0.12  # of what is left of the hours, for latencies and for accuracies
_GRAPH_ALONE = 2  # times the time of one whose exported graph serves others, too
_TIMING_ERROR = 0.3  # of a latency that was measured in a moment, beside other work
CHOSEN = 3
EVALUATIONS, PATIENCE = 10, 3
"""Evaluations during a training, and how many without a better AP end that of a pre-trained network, which
follows no schedule (Section 3).
"""
_EVALUATING = 0.1  # of a training's pictures, at most, are those of its evaluations
_LONG_S = 300.0  # of trainings, from which it is measured whether several processes are faster
_FASTER = 0.9  # of a step's time, from which they are taken


@dataclass(frozen=True)
class Costs:
    """What planning has measured.

    step      of the supernet's training
    tune_s    seconds of a step of each of `CHOSEN` networks that are spread over what is searched
    search_s, timing_s, fastest_ms   see `measure.search_cost`
    """

    step: StepCost
    tune_s: tuple[float, ...]
    search_s: float
    timing_s: float
    fastest_ms: float = 0.0


@dataclass(frozen=True)
class Plan:
    """steps, tune_steps: of the supernet, and of each chosen network at most. evaluations: on val during the
    supernet's training. devices: processes of a training; batch_size: of each. measured: sub-networks that
    are timed; complete: and all others that come onto the front. timing_s: seconds of one of them. budget:
    part of the exact search's cost, timing included, that may be spent; 1 for the exact search. seconds:
    expected, by stage. fastest_ms: latency of the smallest sub-network here. limit_s: what was allowed.
    alone: steps that the supernet would get without --baseline, where hours are shared with it.
    """

    steps: int
    tune_steps: int
    evaluations: int
    devices: int
    batch_size: int
    accumulate: int
    measured: int
    complete: bool
    timing_s: float
    budget: float
    seconds: Mapping[str, float]
    peak_mb: int
    fastest_ms: float = 0.0
    limit_s: float | None = None
    alone: int | None = None

    @property
    def total_s(self) -> float:
        """Expected seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def training_s(self) -> float:
        """Expected seconds of all trainings."""
        return sum(self.seconds.get(name, 0.0) for name in ("train", "fine-tune", "baseline"))

    def lines(self, images: int, sub_networks: int) -> list[str]:
        """The plan in words, for the terminal and the run's folder. images: of the training split.
        sub_networks: of the search space.
        """
        shown = self.batch_size * self.accumulate * self.devices
        epochs = self.steps * shown / max(images, 1)
        each = f" in each of {self.devices} processes" if self.devices > 1 else ""
        memory = f"about {self.peak_mb / 1024:.1f} GB{each}"
        rows = [
            f"train      {self.steps:,} steps of {shown} images = {epochs:.0f} epochs ({memory})",
            f"search     {self._search(sub_networks)}",
        ]
        if self.tune_steps:
            fewer = ", fewer where they are slow" if self.limit_s is not None else ""
            rows.append(f"fine-tune  {self.tune_steps:,} steps for each chosen network{fewer}")
        if "baseline" in self.seconds:
            rows.append(f"baseline   {self._baseline()}")
        times = ", ".join(f"{name} {_duration(s)}" for name, s in self.seconds.items())
        rows.append(f"time       {times}: {_duration(self.total_s)} in all")
        if self.limit_s is not None and self.total_s > self.limit_s:
            rows.append(f"           more than the {_duration(self.limit_s)} of --hours, because of --steps")
        return rows

    def _search(self, sub_networks: int) -> str:
        search = "exact" if self.budget >= 1 else f"{self.budget:.1%} of the exact search's cost"
        count = min(self.measured, sub_networks)
        text = f"{search}; {count} of {sub_networks:,} sub-networks timed, {self.timing_s:.1f} s each"
        if self.complete or count == sub_networks:
            return text + (", and the whole front" if count < sub_networks else "")
        return f"{text}, the others predicted from these (more: --measured)"

    def _baseline(self) -> str:
        text = "one fixed architecture, trained alone for as long as supernet and chosen ones"
        if self.alone is None:
            return f"{text}: doubles the time of training"
        return f"{text}: takes half of the time, without it the supernet would get {self.alone:,} steps"


def make_plan(
    options: NasOptions,
    images: int,
    val_images: int,
    recipe_steps: int | None,
    costs: Costs,
    devices: int = 1,
) -> Plan:
    """Steps and numbers that fit `options.hours`, or the recipe's own where there is no limit.

    images, val_images  of the training and the validation split
    recipe_steps        of the recipe; None: a hundred epochs
    devices             processes of a training, with which the costs were measured

    Raises UserError for hours in which nothing can be trained.
    """
    step = costs.step
    shown = step.batch_size * step.accumulate * devices
    by_epochs = max(_FEWEST_STEPS, round(_FEWEST_EPOCHS * images / shown))
    steps = options.steps or max(recipe_steps or 0, by_epochs)
    tune = max(_FEWEST_STEPS // 4, round(_EPOCHS_FINE_TUNING * images / shown)) if options.fine_tune else 0
    measured, budget, search_s, alone = options.measured, 1.0, costs.search_s, None
    complete = False  # with a limit in hours only what was planned is timed
    if options.hours is not None:
        measured, budget, search_s = _searching(options, costs)
        left = max(0.0, without_reserve(options.hours) - search_s)
        steps, tune, alone = _training(options, costs, left, tune, val_images, shown)
    tune = min(tune, steps // 3)
    evaluations = _evaluations(steps, shown, val_images)
    spent = {"train": (steps + evaluations * val_images / shown) * step.seconds, "search": search_s}
    if tune:
        spent["fine-tune"] = tune * sum(costs.tune_s)
    if options.baseline:
        spent["baseline"] = spent["train"] + spent.get("fine-tune", 0.0)
    if options.hours is None:
        trainings = sum(seconds for name, seconds in spent.items() if name != "search")
        allowed = max(_LEAST_TIMING_S, _TIMING_SHARE * trainings)
        measured = measured or _affordable(allowed, costs.timing_s, _ROUGHLY_MEASURED)
        complete = measured >= _MEASURED
        spent["search"] += (measured + _FRONT * complete) * costs.timing_s
    spent["rest"] = RESERVE_S
    return Plan(
        steps=steps,
        tune_steps=tune,
        evaluations=evaluations,
        devices=devices,
        batch_size=step.batch_size,
        accumulate=step.accumulate,
        measured=measured or _MEASURED,
        complete=complete,
        timing_s=costs.timing_s,
        budget=budget,
        seconds=spent,
        peak_mb=step.peak_mb,
        fastest_ms=costs.fastest_ms,
        limit_s=None if options.hours is None else 3600 * options.hours,
        alone=alone,
    )


def _searching(options: NasOptions, costs: Costs) -> tuple[int, float, float]:
    """(sub-networks that are timed, part of the exact search's cost that may be spent, seconds) of a search
    within the hours.
    """
    assert options.hours is not None
    limit = without_reserve(options.hours)
    measured = options.measured or _affordable(_TIMING_HOURS * limit, costs.timing_s, _FEWEST_MEASURED)
    # A search for a part of the cost times sub-networks that share no graph.
    timing_s = _GRAPH_ALONE * costs.timing_s * measured
    whole = costs.search_s + timing_s
    budget = min(1.0, (_SEARCH_HOURS * limit + timing_s) / max(whole, 1e-9))
    return measured, budget, budget * whole if budget < 1 else whole - timing_s / _GRAPH_ALONE


def _training(
    options: NasOptions, costs: Costs, left: float, tune: int, val_images: int, shown: int
) -> tuple[int, int, int | None]:
    """(steps of the supernet, of each chosen network, of the supernet without a baseline) in the seconds that
    are left of the hours. tune: steps that a chosen network should have.
    """
    tune_s, step_s = max(sum(costs.tune_s), 1e-9), costs.step.seconds

    def shared(seconds: float) -> tuple[int, int]:
        few = min(tune, int(_FINE_TUNING * seconds / tune_s))
        return _fitting(seconds - few * tune_s, step_s, val_images, shown), few

    steps, few = shared(left / 2 if options.baseline else left)
    if options.steps is not None:
        return options.steps, few, None
    if steps < _FEWEST_STEPS // 4:
        raise UserError(
            f"--hours {options.hours:g} leaves {steps} training steps of {step_s:.1f} s: give more time, a"
            " smaller grid (--resolutions) or --steps"
        )
    return steps, few, shared(left)[0] if options.baseline else None


def _affordable(seconds: float, each_s: float, fewest: int) -> int:
    """Sub-networks that can be timed in so many seconds, within limits."""
    return max(fewest, min(_MEASURED, int(seconds / max(each_s, 1e-9))))


def _evaluations(steps: int, shown: int, val_images: int) -> int:
    """How often a training is evaluated: by three sub-networks, each of which takes about a third of a
    training step for a picture.
    """
    return max(1, min(EVALUATIONS, int(_EVALUATING * steps * shown / max(val_images, 1))))


def _fitting(seconds: float, step_s: float, val_images: int, shown: int) -> int:
    """Steps that fit into so many seconds, evaluations included."""
    steps = int(seconds / step_s)
    return max(0, int(steps - _evaluations(steps, shown, val_images) * val_images / shown))


def without_reserve(hours: float) -> float:
    """Seconds that are left for training and search."""
    limit = 3600 * hours * _MARGIN - RESERVE_S
    if limit <= 0:
        fewest = RESERVE_S / _MARGIN
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


def settle(options: NasOptions, trainer: Trainer, proposal: Proposal, folder: Path) -> dict[str, Any]:
    """The stage: network, spaces, recipe and the time of everything, from measurements in `folder` (JSON
    values).
    """
    train_set, val = trainer.split("train"), trainer.split("val")
    begin = start(options, train_set, proposal)
    space = search_space(begin)
    searching = search_cost(begin.model, val, space, folder, options, train_set)
    recipe_steps = None if begin.pretrained else begin.config.steps

    def planned(devices: int, slower: float = math.inf) -> tuple[Costs, Plan] | None:
        """With so many processes; None where a step takes longer than `slower`."""
        trainer.devices = devices
        step = step_cost(trainer, begin.model, begin.space, begin.config, folder, options.batch_size)
        if step.seconds > slower:
            return None
        costs = Costs(step, spread_costs(begin.model.config, space, step), **searching)
        return costs, make_plan(options, len(train_set), len(val), recipe_steps, costs, devices)

    first = planned(options.devices or 1)
    assert first is not None
    costs, found = first
    several = sharing_processor(found.batch_size * found.accumulate)
    if options.devices is None and several > 1 and found.training_s > _LONG_S:
        costs, found = planned(several, _FASTER * costs.step.seconds) or first
    config = begin.config.replace(
        steps=found.steps,
        batch_size=found.batch_size,
        accumulate=found.accumulate,
        warmup_steps=min(begin.config.warmup_steps, found.steps // 10),
        checkpoint_every=max(10, min(100, found.steps // 20)),
        evaluate_every=max(1, found.steps // found.evaluations),
        patience=PATIENCE if begin.pretrained else 0,
    )
    return {
        **asdict(found),
        "costs": asdict(costs),
        "lines": found.lines(len(train_set), len(space.distinct())),
        "origin": begin.origin,
        "details": list(begin.details),
        "space": asdict(begin.space),
        "search_space": asdict(space),
        "config": config.to_dict(),
    }


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes >= 1.5 else f"{seconds:.0f} s"
