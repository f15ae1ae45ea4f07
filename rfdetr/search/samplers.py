"""Optuna's samplers as proposals of a budgeted search (`rfdetr.search.budget`)."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rfdetr.search.pareto import front_mask
from rfdetr.search.problem import Problem

_TOLD = 4  # siblings reported to a sampler per unit


def proposals(problem: Problem, name: str, seed: int) -> Iterator[int]:
    """Endless rows to evaluate, on all images, of "random", "tpe" or "nsga2"; what came of them is read from
    the problem.
    """
    optuna, study = _study(name, seed)
    from optuna.distributions import CategoricalDistribution, IntDistribution

    # Choices of the knobs. A resolution is an index, because the effective ones depend on patch size and
    # windows.
    heads: dict[tuple[int, int], list[int]] = {}
    for resolution, patch, windows in sorted(problem.members):
        heads.setdefault((patch, windows), []).append(resolution)
    last = max(map(len, heads.values())) - 1
    patches, counts = (sorted({key[i] for key in heads}) for i in (0, 1))
    depths, queries = (sorted(set(problem.knobs[:, i].tolist())) for i in (3, 4))
    space: dict[str, Any] = {
        "step": IntDistribution(0, last),
        "patch": IntDistribution(0, len(patches) - 1),
        "windows": CategoricalDistribution(counts),
        "depth": IntDistribution(0, len(depths) - 1),
        "queries": IntDistribution(0, len(queries) - 1),
    }

    def parameters(row: int) -> dict[str, Any]:
        resolution, patch, window, depth, query = problem.knobs[row].tolist()
        available = heads[patch, window]
        at = available.index(resolution) / max(1, len(available) - 1)
        return {
            "step": round(at * last),
            "patch": patches.index(patch),
            "windows": window,
            "depth": depths.index(depth),
            "queries": queries.index(query),
        }

    while True:
        trial = study.ask(space)
        asked = trial.params
        patch, window = patches[asked["patch"]], asked["windows"]
        available = heads.get((patch, window))
        if available is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        at = asked["step"] / max(1, last)
        triple = (available[round(at * (len(available) - 1))], patch, window)
        members = problem.members[triple]
        # Query counts are limited by the tokens and points may be missing: the nearest sibling stands for the
        # point.
        wanted = np.array([depths[asked["depth"]], queries[asked["queries"]]])
        distance = np.abs(problem.knobs[members][:, 3:] - wanted) / (1 + wanted)
        row = members[int(distance.sum(axis=1).argmin())]

        new = not problem.known[row]
        yield row
        if problem.known[row]:
            study.tell(trial, [problem.accuracy[row], problem.cost[row]])
        else:  # the search went elsewhere, because proposals kept repeating
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        for other in _representatives(problem, members, row) if new and problem.known[row] else []:
            study.add_trial(
                optuna.trial.create_trial(
                    params=parameters(other),
                    distributions=space,
                    values=[problem.accuracy[other], problem.cost[other]],
                )
            )


def _study(name: str, seed: int) -> tuple[Any, Any]:
    """Optuna, silenced, and a study with the sampler of that name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its progress bar misses widgets, which nothing here shows
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    makers: dict[str, Callable[[], Any]] = {
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=3),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=8),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multivariate is experimental"
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=makers[name]())
    return optuna, study


def _representatives(problem: Problem, rows: list[int], asked: int) -> list[int]:
    """The siblings worth telling a sampler: those on the unit's own front."""
    rows = [row for row in rows if row != asked]
    if not rows:
        return []
    mask = front_mask(problem.accuracy[rows], problem.cost[rows])
    best = sorted((row for row, kept in zip(rows, mask, strict=True) if kept), key=lambda r: problem.cost[r])
    # A few, spread over the costs: samplers slow down with the square of what they were told.
    return [best[i] for i in np.unique(np.linspace(0, len(best) - 1, _TOLD).round().astype(int))]
