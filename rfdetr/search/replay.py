"""How good a budgeted search's choices are: replays of a finished table, which need no network.

The measure is regret (`rfdetr.search.regret`); hypervolume stands beside it. What counts is the accuracy on
ALL images of the networks that a search chooses, whatever it has seen of them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.search.budget import SAMPLERS, WHOLE, Run
from rfdetr.search.grid import Triple
from rfdetr.search.multifidelity import Look
from rfdetr.search.pareto import front_mask, hypervolume
from rfdetr.search.problem import Problem
from rfdetr.search.regret import regret

if TYPE_CHECKING:
    import pandas as pd

COSTS = (0.005, 0.01, 0.02, 0.05)
"""Parts of the exact search's cost at which searches are compared."""


class Table:
    """An exact table as searches see it: accuracy on the images of each level, known once it is paid for.

    exact      one row per point: the five knobs, `accuracy` (on all images), `cost`, and, where few images
               can be looked at, `accuracy`_20, `accuracy`_50, ...: on the first 20, 50, ... images
    unit_cost  (resolution, patch_size, windows) -> cost of evaluating the unit with shared prefixes (seconds
               or GFLOPs)
    images     number of all images; needed with columns for fewer
    log_cost   hypervolume over log(cost), which gives small networks as much room as large ones

    Raises UserError for missing columns.
    """

    def __init__(
        self,
        exact: "pd.DataFrame",
        unit_cost: "Mapping[Triple, float] | pd.Series",
        *,
        images: int | None = None,
        accuracy: str = "AP",
        cost: str = "latency_ms",
        log_cost: bool = False,
    ) -> None:
        missing = [name for name in (*Arch.KNOBS, accuracy, cost) if name not in exact]
        if missing:
            raise UserError(f"the exact table has no column {', '.join(missing)}")
        few = subsets(exact, accuracy)
        if few and images is None:
            raise UserError(f"the table has {accuracy} on {max(few)} images: give the number of all images")
        few = tuple(n for n in few if n < (images or 1))
        self.levels = (*few, images or 1)
        points = (
            exact.drop_duplicates(list(Arch.KNOBS)).dropna(subset=[accuracy, cost]).reset_index(drop=True)
        )
        columns = [*(f"{accuracy}_{n}" for n in few), accuracy]
        self.seen = points[columns].to_numpy(dtype=float).T
        self.truth, self.points, self.unit_cost, self.cost = self.seen[-1], points, unit_cost, cost
        self.latency = points[cost].to_numpy(dtype=float)
        self.axis = np.log(self.latency) if log_cost else self.latency
        self.reference = 0.0, float(self.axis.max())
        self.whole = hypervolume(self.truth, self.axis, self.reference)

    def problem(self) -> Problem:
        """A search of the table that has seen nothing."""
        return Problem(self.points, self.unit_cost, self.cost, self.levels)

    def evaluate(self, problem: Problem, looks: Sequence[Look]) -> list[np.ndarray]:
        """What looks show."""
        return [self.seen[level, problem.members[triple]] for triple, level in looks]

    def measures(self, believed: np.ndarray) -> dict[str, float]:
        """regret_mean, regret_p90, regret_worst, and hypervolume (part of the exact front's; reference:
        accuracy 0 and the dearest point's cost) of the networks on the front of what is believed.
        """
        chosen = front_mask(believed, self.latency)
        volume = hypervolume(self.truth[chosen], self.axis[chosen], self.reference)
        losses = regret(self.truth, self.latency, believed).row()
        return {**losses, "hypervolume": volume / self.whole if self.whole else 1.0}


def subsets(table: "pd.DataFrame", accuracy: str = "AP") -> tuple[int, ...]:
    """Numbers of images, ascending, for which the table has the accuracy on the first so many."""
    found = (re.fullmatch(rf"{re.escape(accuracy)}_(\d+)", str(name)) for name in table.columns)
    return tuple(sorted(int(match[1]) for match in found if match))


def budgeted_curves(
    exact: "pd.DataFrame",
    unit_cost: "Mapping[Triple, float] | pd.Series",
    *,
    samplers: Iterable[str] = WHOLE,
    seeds: Iterable[int] = range(5),
    budget: float = 0.25,
    **options: Any,
) -> "pd.DataFrame":
    """How good the choices of a budgeted search are, against what it has spent.

    budget     stop after this part of the cost of the exact search (the sum of `unit_cost`)
    exact, unit_cost, options: see `Table`

    Columns: sampler, seed, step, spent (part of the exact cost), hypervolume, regret_mean, regret_p90,
    regret_worst (`Table.measures`), evaluated (points with a known AP on all images), units (encoder settings
    looked at). One row per step.
    """
    import pandas as pd

    table = Table(exact, unit_cost, **options)
    rows = [
        {"sampler": sampler, "seed": seed, "step": number, **row}
        for sampler in samplers
        for seed in seeds
        for number, row in enumerate(_replay(table, sampler, seed, budget), start=1)
    ]
    return pd.DataFrame(rows)


def _replay(
    table: Table, sampler: str, seed: int, budget: float, last: bool = False
) -> Iterator[dict[str, Any]]:
    """A row after every step, or after the last one alone."""
    problem = table.problem()
    run = Run(problem, sampler, seed, budget)

    def row() -> dict[str, Any]:
        return {
            "spent": problem.spent,
            **table.measures(run.believed()),
            "evaluated": int(problem.known.sum()),
            "units": sum(level >= 0 for level in problem.reached.values()),
        }

    for _ in run.steps(lambda looks: table.evaluate(problem, looks)):
        if not last:
            yield row()
    if last:
        yield row()


def regret_table(
    exact: "pd.DataFrame",
    unit_cost: "Mapping[Triple, float] | pd.Series",
    *,
    samplers: Iterable[str] = SAMPLERS,
    seeds: Iterable[int] = range(5),
    costs: Iterable[float] = COSTS,
    progress: bool = False,
    **options: Any,
) -> "pd.DataFrame":
    """One search per sampler, budget and seed, and what its choices are worth: the comparison of methods.

    costs      budgets, parts of the exact search's cost
    exact, unit_cost, options: see `Table`

    Columns: sampler, budget, seed, spent, hypervolume, regret_mean, regret_p90, regret_worst, evaluated,
    units; see `budgeted_curves`.
    """
    import pandas as pd

    table = Table(exact, unit_cost, **options)
    work = [(sampler, cost, seed) for sampler in samplers for cost in costs for seed in seeds]
    rows = []
    for sampler, cost, seed in work:
        rows += [
            {"sampler": sampler, "budget": cost, "seed": seed, **row}
            for row in _replay(table, sampler, seed, cost, last=True)
        ]
        if progress:
            print(f"{len(rows)} of {len(work)}: {sampler}, {cost:.1%}, seed {seed}", flush=True)
    return pd.DataFrame(rows)


def summary(results: "pd.DataFrame") -> "pd.DataFrame":
    """Medians over seeds of `regret_table`, one row per sampler and budget."""
    columns = ["spent", "regret_mean", "regret_p90", "regret_worst", "hypervolume", "units"]
    return results.groupby(["sampler", "budget"], sort=False)[columns].median().reset_index()


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
