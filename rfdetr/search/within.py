"""A search of a real network within a budget, by one process or by many workers."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import digest
from rfdetr.errors import UserError
from rfdetr.interrupts import check, interruptible
from rfdetr.search.blocks import levels
from rfdetr.search.budget import FEW_IMAGES, Run, Step, check_options
from rfdetr.search.cost import unit_cost
from rfdetr.search.grid import GridEvaluator, units
from rfdetr.search.looks import Folder, Looks, Memory, Shared
from rfdetr.search.multifidelity import Look
from rfdetr.search.problem import Problem
from rfdetr.search.queue import Progress, WorkQueue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR


def budgeted_search(
    model: "RFDETR",
    dataset: "DetectionDataset",
    space: SearchSpace,
    latency: "Callable[[pd.DataFrame], np.ndarray] | None",
    *,
    sampler: str = "multifidelity",
    budget: float = 0.02,
    seed: int = 0,
    metric: str = "AP",
    folder: str | Path | None = None,
    storage: str = "",
    progress: Callable[[float, int], None] | None = None,
    on_unit: Callable[[Progress], None] | None = None,
    queue: dict[str, Any] | None = None,
    **options: Any,
) -> "pd.DataFrame":
    """Search a supernet for `budget` times the cost of `grid.evaluate_grid` on the same space and data.

    latency    table with the five knobs -> ms, for example `LatencyModel.fit(measured).predict`. With a
               storage, those of the first worker that has them are all workers'; None: wait for them
    sampler    see `budget.SAMPLERS`
    budget     part of the exact search's floating-point operations with shared prefixes (0.02: a fiftieth)
    folder     finished units are kept here and found again; a stopped search goes on
    storage    instead: URL of a `WorkQueue`. Every process that calls this with the same arguments is a
               worker of one search; any may join, leave or be killed, and the result stays the same
    progress   called after every step with (part of the exact cost spent, encoder settings looked at)
    on_unit    called by a worker after each of its units;   queue: further options of `WorkQueue`
    options    of `GridEvaluator` (batch_size, dtype, masks)

    Returns a table with the five knobs, latency_ms and `images`, the number that the sub-network was looked
    at. A sampler that looks at all images of a setting gives the evaluated sub-networks and their COCO
    numbers. One that looks at few gives ALL sub-networks, with the metric as it is EXPECTED on all images and
    its standard deviation, e.g. AP and AP_sd (0 where all images were looked at: then all COCO numbers are
    there, and equal those of the exact search). `attrs` has "spent", "units" (settings looked at) and
    "points" (of the whole space).
    """
    import pandas as pd

    check_options(budget, sampler)
    model.config.check(space.largest)
    evaluator = GridEvaluator(model, dataset, **options)
    work = units(space)
    points = pd.DataFrame([arch.to_dict() for arch in space.distinct()])
    steps_of = _levels(evaluator) if sampler in FEW_IMAGES else (len(dataset),)
    name = f"rfdetr-{digest(evaluator.key, space, sampler, budget, seed, metric)}"
    own = None if folder is None else Path(folder) / evaluator.key
    keeper, agreed = _keeper(storage, name, own, on_unit, queue or {})
    points["latency_ms"] = _latencies(points, latency, agreed)
    problem = Problem(points, unit_cost(model, space), levels=steps_of)
    looks = Looks(evaluator, work, problem.levels, keeper, metric)

    def evaluate(asked: Sequence[Look]) -> list[np.ndarray]:
        rows = (problem.knobs[problem.members[triple], 3:].tolist() for triple, _ in asked)
        return [
            np.array([found[depth, queries] for depth, queries in pairs])
            for found, pairs in zip(looks(asked), rows, strict=True)
        ]

    run = Run(problem, sampler, seed, budget, agreed)
    steps = []
    with interruptible():
        for step in run.steps(evaluate):
            steps.append(step)
            if progress is not None:
                progress(problem.spent, sum(level >= 0 for level in problem.reached.values()))
    if not steps:
        cheapest = min(problem.price(triple, 0) for triple in problem.members)
        raise UserError(f"a budget of {budget:.2%} pays for nothing; the cheapest look needs {cheapest:.2%}")
    return _table(points, run, looks, steps, metric)


def _keeper(
    storage: str,
    name: str,
    folder: Path | None,
    on_unit: Callable[[Progress], None] | None,
    queue: dict[str, Any],
) -> "tuple[Memory | Folder | Shared, Agreed | None]":
    """Where looks are kept, and what many workers agree on: None for a process by itself."""
    if not storage:
        return Memory() if folder is None else Folder(folder), None
    agreed = Agreed(WorkQueue(storage, f"{name}-plan", [], **queue))
    return Shared(WorkQueue(storage, name, [], **queue), on_unit), agreed


def _latencies(
    points: "pd.DataFrame",
    latency: "Callable[[pd.DataFrame], np.ndarray] | None",
    agreed: "Agreed | None",
) -> Any:
    """Latencies of all points in ms."""
    if agreed is not None:
        return agreed.latencies(None if latency is None else latency(points))
    if latency is None:
        raise UserError(
            "a search within a budget needs latencies: measure some sub-networks, or join a storage"
        )
    return latency(points)


def _levels(evaluator: GridEvaluator) -> tuple[int, ...]:
    """Numbers of images, without those on which no accuracy is defined."""
    objects = evaluator.images.truth.objects.counts[..., 0].sum(axis=1).cumsum()
    total = len(evaluator.images)
    if not objects[-1]:
        raise UserError("the images have no objects: there is no accuracy to search by")
    return tuple(n for n in levels(total) if objects[n - 1])


def _table(points: "pd.DataFrame", run: Run, looks: Looks, steps: list[Step], metric: str) -> "pd.DataFrame":
    import pandas as pd

    problem = run.problem
    images = np.array([0, *problem.levels])[
        [problem.reached[problem.triple(r)] + 1 for r in range(len(points))]
    ]
    known = {
        row: numbers[depth, queries]
        for triple, level in problem.reached.items()
        if level == len(problem.levels) - 1
        for numbers in [looks.whole(triple)]
        for row in problem.members[triple]
        for depth, queries in [tuple(problem.knobs[row, 3:].tolist())]
    }
    numbers = pd.DataFrame.from_dict(known, orient="index")
    table = points.assign(images=images).join(numbers)
    if looks.few:
        believed, deviation = run.believed(), run.deviation()
        exact = images == problem.levels[-1]
        table[metric] = np.where(exact, table[metric], believed) if metric in table else believed
        table.insert(len(Arch.KNOBS), f"{metric}_sd", np.where(exact, 0.0, deviation))
    else:
        order = {triple: number for number, step in enumerate(steps, start=1) for triple, _ in step.looks}
        table = table.assign(step=[order.get(problem.triple(r), 0) for r in range(len(points))])
        table = table[table["step"] > 0].sort_values("step", kind="stable", ignore_index=True)
    looked = sum(level >= 0 for level in problem.reached.values())
    table.attrs = {"spent": problem.spent, "units": looked, "points": len(points)}
    return table


class Agreed:
    """What all workers of a search look at next: the first one to decide decides for all.

    Deciding is the same for all of them up to the last bits of floating-point numbers, in which machines
    differ.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self.results, self.pause = queue.results, queue.heartbeat

    def latencies(self, own: np.ndarray | None) -> list[float]:
        """Those of all sub-networks in ms; waits until a worker has some."""
        if own is not None:
            self.results.insert("latency", json.dumps(np.asarray(own, dtype=float).tolist()))
        while "latency" not in self.results.names():
            check()
            time.sleep(min(self.pause, 1.0))
        found: list[float] = self.results.get("latency")
        return found

    def __call__(self, number: int, decide: Callable[[], list[Look]]) -> list[Look]:
        """The looks of step `number`; `decide` is asked if nobody has decided yet."""
        unit = f"step-{number}"
        if unit not in self.results.names():
            self.results.insert(unit, json.dumps(decide()))
        return [((r, p, w), level) for (r, p, w), level in self.results.get(unit)]
