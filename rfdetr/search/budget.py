"""Searching with a fraction of the exact grid's cost: AP and latency as objectives, the encoder triple as the
unit paid for.

A sampler proposes points of the five knobs. Evaluating one computes the encoder of its triple, after which
the siblings (all depths and query counts) are nearly free: so a step pays for a whole unit, and the sampler
is told about the siblings. Latency needs no evaluation: a `LatencyModel` fitted to few measured sub-networks
gives it for all points beforehand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import SearchSpace
from rfdetr.errors import UserError
from rfdetr.search import guided, samplers
from rfdetr.search.cost import unit_cost
from rfdetr.search.grid import GridEvaluator, Triple, keep_unit, kept_unit, units
from rfdetr.search.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

SAMPLERS = ("random", "tpe", "nsga2", "guided")
"""random, tpe and nsga2 are Optuna's; "guided" is a regression on the knobs that picks the best expected gain
per cost.
"""
_STALLED = 25  # repeated proposals in a row after which a sampler's step is drawn at random instead


@dataclass(frozen=True)
class Step:
    """One unit paid for: its encoder triple, the rows learned, and the part of the exact search's cost spent
    so far.
    """

    triple: Triple
    rows: list[int]
    spent: float


def run(
    problem: Problem,
    evaluate: Callable[[Triple, list[int]], np.ndarray],
    sampler: str = "guided",
    seed: int = 0,
    budget: float = 0.05,
    siblings: bool = True,
) -> Iterator[Step]:
    """Spend `budget` (part of the exact search's cost) on units that `sampler` proposes; fills
    `problem.accuracy`.

    evaluate   (triple, rows of the problem) -> accuracy of each row
    siblings   False: the unit costs the same, but only the one proposed point is learned

    Ends when the next unit would exceed the budget or none is left. Raises UserError for an unknown sampler.
    """
    check_options(budget, sampler)
    proposals = (
        guided.proposals(problem, seed, budget)
        if sampler == "guided"
        else samplers.proposals(problem, sampler, seed)
    )
    rng = np.random.default_rng(seed)
    done: set[Triple] = set()
    spent, repeats = 0.0, 0
    while len(done) < len(problem.members):
        row, tell = next(proposals)
        if repeats > _STALLED:
            row = int(rng.choice([members[0] for t, members in problem.members.items() if t not in done]))
        triple = problem.triple(row)
        if triple in done:
            repeats += 1
            if np.isnan(problem.accuracy[row]):
                problem.accuracy[row] = evaluate(triple, [row])[0]
            tell([row])
            continue
        repeats = 0
        if spent + problem.unit_cost[triple] > budget + 1e-12:
            return
        spent += problem.unit_cost[triple]
        done.add(triple)
        rows = problem.members[triple] if siblings else [row]
        problem.accuracy[rows] = evaluate(triple, rows)
        tell(rows)
        yield Step(triple, rows, spent)


def check_options(budget: float, sampler: str) -> None:
    """Raise UserError for a sampler or a budget that cannot be."""
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")
    if not 0 < budget <= 1:
        raise UserError(f"budget is a part of the exact search's cost, above 0 and at most 1, not {budget}")


def budgeted_search(
    model: "RFDETR",
    dataset: "DetectionDataset",
    space: SearchSpace,
    latency: Callable[["pd.DataFrame"], np.ndarray],
    *,
    sampler: str = "guided",
    budget: float = 0.05,
    seed: int = 0,
    accuracy: str = "AP",
    folder: str | Path | None = None,
    progress: Callable[[float, int], None] | None = None,
    **options: Any,
) -> "pd.DataFrame":
    """Search a supernet for `budget` times the cost of `grid.evaluate_grid` on the same space and data.

    latency    table with the five knobs -> ms, for example `LatencyModel.fit(measured).predict`
    budget     part of the exact search's floating-point operations with shared prefixes (0.05: a twentieth)
    folder     finished units are kept here and found again, as by `evaluate_grid`; a stopped search goes on
    progress   called after every unit with (part of the exact cost spent, units done)
    options    of `GridEvaluator` (batch_size, dtype, masks)

    Returns the evaluated points: the five knobs, the COCO numbers, latency_ms, and `step`, the unit that paid
    for them. `attrs` has "spent", "units" and "points" (of the whole space).
    """
    import pandas as pd

    check_options(budget, sampler)
    model.config.check(space.largest)
    evaluator = GridEvaluator(model, dataset, **options)
    keep = None if folder is None else Path(folder) / evaluator.key
    work = units(space)
    points = pd.DataFrame([arch.to_dict() for arch in space.distinct()])
    points["latency_ms"] = latency(points)
    problem = Problem(points, unit_cost(model, space))
    found: dict[int, dict[str, float]] = {}
    rows_of = {tuple(knobs): row for row, knobs in enumerate(problem.knobs.tolist())}

    def evaluate(triple: Triple, rows: list[int]) -> np.ndarray:
        pairs = work[triple]
        result = kept_unit(keep, triple, pairs) or keep_unit(keep, triple, evaluator.unit(triple, pairs))
        for pair, numbers in zip(result["pairs"], result["rows"], strict=True):
            found[rows_of[(*triple, *pair)]] = numbers
        return np.array([found[row][accuracy] for row in rows])

    frames, spent = [], 0.0
    for number, step in enumerate(run(problem, evaluate, sampler, seed, budget), start=1):
        spent = step.spent
        frames.append(
            points.iloc[step.rows]
            .join(pd.DataFrame([found[row] for row in step.rows], index=step.rows))
            .assign(step=number)
        )
        if progress is not None:
            progress(spent, number)
    if not frames:
        cheapest = min(problem.unit_cost.values())
        raise UserError(f"a budget of {budget:.2%} pays for no unit; the cheapest needs {cheapest:.2%}")
    table = pd.concat(frames, ignore_index=True)
    table.attrs = {"spent": spent, "units": len(frames), "points": len(points)}
    return table
