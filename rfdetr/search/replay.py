"""How close a budgeted search comes to the exact front: replays of a finished table, which need no
network.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.search.budget import SAMPLERS, run
from rfdetr.search.grid import Triple
from rfdetr.search.pareto import hypervolume
from rfdetr.search.problem import Problem

if TYPE_CHECKING:
    import pandas as pd


def budgeted_curves(
    exact: "pd.DataFrame",
    unit_cost: "Mapping[Triple, float] | pd.Series",
    *,
    samplers: Iterable[str] = SAMPLERS,
    seeds: Iterable[int] = range(5),
    budget: float = 0.25,
    accuracy: str = "AP",
    cost: str = "latency_ms",
    log_cost: bool = False,
    siblings: bool = True,
) -> "pd.DataFrame":
    """Hypervolume of what a budgeted search has seen, against spent cost, replaying an exact table.

    exact      one row per point: the five effective knobs, `accuracy`, `cost`
    unit_cost  (resolution, patch_size, windows) -> cost of evaluating the unit with shared prefixes (seconds
               or GFLOPs)
    budget     stop after this part of the cost of the exact search (the sum of `unit_cost`)
    log_cost   hypervolume over log(cost), which gives small networks as much room as large ones
    siblings   see `rfdetr.search.budget.run`

    Columns: sampler, seed, step, spent (part of the exact cost), hypervolume (part of the exact front's,
    reference: accuracy 0 and the dearest point's cost; 1 where that is empty), evaluated (points seen),
    units. One row per new unit.
    """
    import pandas as pd

    if accuracy not in exact:
        raise UserError(f"the exact table has no column {accuracy}")
    missing = [name for name in (*Arch.KNOBS, cost) if name not in exact]
    if missing:
        raise UserError(f"the exact table has no column {', '.join(missing)}")
    points = exact.drop_duplicates(list(Arch.KNOBS)).dropna(subset=[accuracy, cost]).reset_index(drop=True)
    if log_cost:
        points = points.assign(**{cost: np.log(points[cost])})
    rows = [
        {"sampler": sampler, "seed": seed, **row}
        for sampler in samplers
        for seed in seeds
        for row in _replay(
            points, Problem(points, unit_cost, cost), accuracy, sampler, seed, budget, siblings
        )
    ]
    return pd.DataFrame(rows)


def _replay(
    points: "pd.DataFrame",
    problem: Problem,
    accuracy: str,
    sampler: str,
    seed: int,
    budget: float,
    siblings: bool,
) -> Iterator[dict[str, Any]]:
    truth = points[accuracy].to_numpy(dtype=float)
    whole = hypervolume(truth, problem.cost, problem.reference)
    steps = run(problem, lambda _, rows: truth[rows], sampler, seed, budget, siblings)
    for number, step in enumerate(steps, start=1):
        volume = hypervolume(problem.accuracy, problem.cost, problem.reference)
        yield {
            "step": number,
            "spent": step.spent,
            "hypervolume": volume / whole if whole else 1.0,
            "evaluated": int(problem.known.sum()),
            "units": number,
        }


def reached(curves: "pd.DataFrame", target: float = 0.99, budget: float = 0.05) -> "pd.DataFrame":
    """Per sampler, over seeds: hypervolume at `budget` (median, lowest, highest) and median cost of reaching
    `target`.

    cost_to_target is infinite where at least half of the seeds do not reach it.
    """
    import pandas as pd

    rows = []
    for sampler, runs in curves.groupby("sampler", sort=False):
        at_budget, needed = [], []
        for _, one in runs.groupby("seed"):
            inside = one.loc[one["spent"] <= budget, "hypervolume"]
            at_budget.append(float(inside.iloc[-1]) if len(inside) else 0.0)
            good = one.loc[one["hypervolume"] >= target, "spent"]
            needed.append(float(good.iloc[0]) if len(good) else float("inf"))
        rows.append(
            {
                "sampler": sampler,
                "seeds": len(needed),
                "hypervolume": float(np.median(at_budget)),
                "lowest": min(at_budget),
                "highest": max(at_budget),
                "cost_to_target": float(np.median(needed)),
            }
        )
    return pd.DataFrame(rows)
