"""Searching with a fraction of the exact grid's cost, and how close that comes.

Optuna's samplers choose points of the five knobs with accuracy and cost as objectives. Evaluating one point computes the
encoder of its triple, after which the siblings (all depths and query counts) are nearly free: so a step pays for a whole
unit and the sampler is told about all siblings. `budgeted_curves` replays a finished table and needs no network.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.search import guided
from rfdetr.search.cost import TRIPLE
from rfdetr.search.grid import KNOBS
from rfdetr.search.pareto import front_mask, hypervolume, reference_point

if TYPE_CHECKING:
    import pandas as pd

SAMPLERS = ("random", "tpe", "nsga2", "guided")
"""random, tpe and nsga2 are Optuna's; "guided" is a regression on the knobs that picks the best expected gain per cost."""
_STALLED = 25  # repeated proposals in a row after which a sampler's step is drawn at random instead
_TOLD = 4  # siblings reported to a sampler per unit

Triple = tuple[int, int, int]


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

    exact      one row per point: the five effective knobs, `accuracy`, `cost` (known to the search for every point it
               has evaluated; latencies may come from a latency model)
    unit_cost  (resolution, patch_size, windows) -> cost of evaluating the unit with shared prefixes (seconds or GFLOPs)
    budget     stop after this part of the cost of the exact search (the sum of `unit_cost`)
    log_cost   hypervolume over log(cost), which gives small networks as much room as large ones
    siblings   False: the sampler pays the same but learns only the one point that it asked for

    Columns: sampler, seed, step, spent (part of the exact cost), hypervolume (part of the exact front's, reference:
    accuracy 0 and the dearest point's cost), evaluated (points seen), units. One row per new unit.
    """
    import pandas as pd

    missing = [name for name in (*KNOBS, accuracy, cost) if name not in exact]
    if missing:
        raise UserError(f"the exact table has no column {', '.join(missing)}")
    points = exact.drop_duplicates(list(KNOBS)).dropna(subset=[accuracy, cost]).reset_index(drop=True)
    items: Any = unit_cost.items()
    costs: dict[Triple, float] = {(int(r), int(p), int(w)): float(c) for (r, p, w), c in items}
    problem = _Problem(points, costs, accuracy, cost, log_cost)
    rows = [
        {"sampler": sampler, "seed": seed, **row}
        for sampler in samplers
        for seed in seeds
        for row in _replay(problem, sampler, seed, budget, siblings)
    ]
    return pd.DataFrame(rows)


def reached(curves: "pd.DataFrame", target: float = 0.99, budget: float = 0.05) -> "pd.DataFrame":
    """Per sampler, over seeds: hypervolume at `budget` (median, lowest, highest) and median cost of reaching `target`.

    cost_to_target is infinite where at least half of the seeds do not reach it.
    """
    import pandas as pd

    rows = []
    for sampler, runs in curves.groupby("sampler", sort=False):
        at_budget, needed = [], []
        for _, run in runs.groupby("seed"):
            inside = run.loc[run["spent"] <= budget, "hypervolume"]
            at_budget.append(float(inside.iloc[-1]) if len(inside) else 0.0)
            good = run.loc[run["hypervolume"] >= target, "spent"]
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


class _Problem:
    """A finished table, arranged for replaying."""

    def __init__(
        self, points: "pd.DataFrame", costs: dict[Triple, float], accuracy: str, cost: str, log_cost: bool
    ) -> None:
        self.knobs = points[list(KNOBS)].to_numpy(dtype=int)
        self.accuracy = points[accuracy].to_numpy(dtype=float)
        self.cost = points[cost].to_numpy(dtype=float)
        if log_cost:
            self.cost = np.log(self.cost)
        self.row = {tuple(k): i for i, k in enumerate(self.knobs.tolist())}
        self.members: dict[Triple, list[int]] = {}
        for i, key in enumerate(map(tuple, points[TRIPLE].to_numpy(dtype=int).tolist())):
            self.members.setdefault(key, []).append(i)
        unknown = [triple for triple in self.members if triple not in costs]
        if unknown:
            raise UserError(f"unit_cost has no entry for the encoder {unknown[0]}; give one for every unit")
        self.unit_cost = {triple: costs[triple] for triple in self.members}
        self.total = sum(self.unit_cost.values())
        self.reference = reference_point(self.accuracy, self.cost)
        self.volume = hypervolume(self.accuracy, self.cost, self.reference)
        # Choices of the knobs. A resolution is an index, because the effective ones depend on patch size and windows.
        self.heads: dict[tuple[int, int], list[int]] = {}
        for resolution, patch, windows in sorted(self.members):
            self.heads.setdefault((patch, windows), []).append(resolution)
        self.steps = max(map(len, self.heads.values()))

    def triple(self, row: int) -> Triple:
        resolution, patch, windows = self.knobs[row, :3].tolist()
        return resolution, patch, windows


def _replay(
    problem: _Problem, sampler: str, seed: int, budget: float, siblings: bool
) -> Iterator[dict[str, Any]]:
    proposals = _proposals(problem, sampler, seed, siblings)
    rng = np.random.default_rng(seed)
    seen = np.zeros(len(problem.accuracy), dtype=bool)
    units: set[Triple] = set()
    spent, repeats = 0.0, 0
    tell: Callable[[list[int]], None] | None = None
    while len(units) < len(problem.members):
        row, tell = next(proposals)
        if repeats > _STALLED:
            row = int(rng.choice([members[0] for t, members in problem.members.items() if t not in units]))
        triple = problem.triple(row)
        new = triple not in units
        known = problem.members[triple] if siblings else [row]
        tell(known if new else [row])
        if not new:
            repeats += 1
            seen[known] = True
            continue
        repeats = 0
        spent += problem.unit_cost[triple] / problem.total
        if spent > budget + 1e-12:
            return
        units.add(triple)
        seen[known] = True
        volume = hypervolume(problem.accuracy[seen], problem.cost[seen], problem.reference)
        yield {
            "step": len(units),
            "spent": spent,
            "hypervolume": volume / problem.volume,
            "evaluated": int(seen.sum()),
            "units": len(units),
        }


def _proposals(
    problem: _Problem, sampler: str, seed: int, siblings: bool
) -> Iterator[tuple[int, Callable[[list[int]], None]]]:
    """Endless (row to evaluate, function that takes the rows that were evaluated)."""
    if sampler == "guided":
        return guided.proposals(problem, seed)
    return _optuna(problem, sampler, seed)


def _optuna(problem: _Problem, name: str, seed: int) -> Iterator[tuple[int, Callable[[list[int]], None]]]:
    import optuna
    from optuna.distributions import CategoricalDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    makers: dict[str, Callable[[], Any]] = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=3),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=8),
    }
    if name not in makers:
        raise UserError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multivariate is experimental"
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=makers[name]())
    patches, windows = (sorted({key[i] for key in problem.heads}) for i in (0, 1))
    depths, queries = (sorted(set(problem.knobs[:, i].tolist())) for i in (3, 4))
    space: dict[str, Any] = {
        "step": IntDistribution(0, problem.steps - 1),
        "patch": IntDistribution(0, len(patches) - 1),
        "windows": CategoricalDistribution(windows),
        "depth": IntDistribution(0, len(depths) - 1),
        "queries": IntDistribution(0, len(queries) - 1),
    }

    def parameters(row: int) -> dict[str, Any]:
        resolution, patch, window, depth, query = problem.knobs[row].tolist()
        available = problem.heads[patch, window]
        at = available.index(resolution) / max(1, len(available) - 1)
        return {
            "step": round(at * (problem.steps - 1)),
            "patch": patches.index(patch),
            "windows": window,
            "depth": depths.index(depth),
            "queries": queries.index(query),
        }

    while True:
        trial = study.ask(space)
        asked = trial.params
        patch, window = patches[asked["patch"]], asked["windows"]
        available = problem.heads.get((patch, window))
        if available is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        at = asked["step"] / max(1, problem.steps - 1)
        triple = (available[round(at * (len(available) - 1))], patch, window)
        members = problem.members[triple]
        # Query counts are limited by the tokens and points may be missing: the nearest sibling stands for the point.
        wanted = np.array([depths[asked["depth"]], queries[asked["queries"]]])
        distance = np.abs(problem.knobs[members][:, 3:] - wanted) / (1 + wanted)
        row = members[int(distance.sum(axis=1).argmin())]

        def tell(rows: list[int], trial: Any = trial, row: int = row) -> None:
            study.tell(trial, [problem.accuracy[row], problem.cost[row]])
            for other in _representatives(problem, rows, row):
                study.add_trial(
                    optuna.trial.create_trial(
                        params=parameters(other),
                        distributions=space,
                        values=[problem.accuracy[other], problem.cost[other]],
                    )
                )

        yield row, tell


def _representatives(problem: _Problem, rows: list[int], asked: int) -> list[int]:
    """The siblings worth telling a sampler: those on the unit's own front."""
    rows = [row for row in rows if row != asked]
    if not rows:
        return []
    mask = front_mask(problem.accuracy[rows], problem.cost[rows])
    best = sorted((row for row, kept in zip(rows, mask, strict=True) if kept), key=lambda r: problem.cost[r])
    # A few, spread over the costs: samplers slow down with the square of what they were told.
    return [best[i] for i in np.unique(np.linspace(0, len(best) - 1, _TOLD).round().astype(int))]
