"""Successive halving and Hyperband over encoder settings, with Optuna's pruners.

A trial is a setting; it is looked at on more and more images and given up ("pruned") when others of its
rung are better. Optuna's pruners compare one number. Here it is how far the setting leads, or how little it
trails, the best of the others on the same images, at the latency budget where it does best: a setting that
holds any part of the front is positive.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from rfdetr.search.multifidelity import Look
from rfdetr.search.problem import Problem
from rfdetr.search.regret import latency_budgets

_IDLE = 200  # trials in a row that would show nothing new, after which a search ends
_FACTOR = 3  # one of so many goes on to the next rung


class Racing:
    """kind: "halving" (settings at random, successive halving), "hyperband" (at random, Hyperband) or
    "tpe-hyperband" (proposed by TPE, Hyperband).
    """

    def __init__(self, problem: Problem, kind: str, seed: int = 0, budget: float = 0.02) -> None:
        self.problem = problem
        self.budgets = latency_budgets(problem.cost)
        self._looks = self._race(kind, seed)

    def ask(self) -> list[Look]:
        """One look."""
        look = next(self._looks, None)
        return [] if look is None else [look]

    def believed(self) -> np.ndarray:
        """The accuracy on the most images that each network was looked at, brought to those of all."""
        return self.problem.latest()

    def _race(self, kind: str, seed: int) -> Iterator[Look]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        problem, last = self.problem, len(self.problem.levels) - 1
        least, most = problem.levels[0], problem.levels[-1]
        pruner: Any = optuna.pruners.SuccessiveHalvingPruner(least, _FACTOR)
        if kind != "halving":
            pruner = optuna.pruners.HyperbandPruner(least, most, _FACTOR)
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
        if kind == "tpe-hyperband":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, study_name=kind)
        ways: dict[tuple[int, int], list[int]] = {}
        for resolution, patch, windows in sorted(problem.members):
            ways.setdefault((patch, windows), []).append(resolution)
        patches = sorted({patch for patch, _ in ways})
        steps = max(map(len, ways.values())) - 1
        idle = 0
        while idle < _IDLE and min(problem.reached.values()) < last:
            idle += 1
            trial = study.ask()
            patch = patches[trial.suggest_int("patch", 0, len(patches) - 1)]
            windows = trial.suggest_categorical("windows", sorted({w for _, w in ways}))
            place = trial.suggest_int("step", 0, steps)
            available = ways.get((patch, windows))
            if available is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            triple = (available[round(place / max(1, steps) * (len(available) - 1))], patch, windows)
            value = -1.0
            for level in range(last + 1):
                if problem.reached[triple] < level:
                    idle = 0
                    yield triple, level
                value = self._lead(triple, level)
                trial.report(value, problem.levels[level])
                if level < last and trial.should_prune():
                    break
            study.tell(trial, value)

    def _lead(self, triple: tuple[int, int, int], level: int) -> float:
        """How far the setting leads the others seen at the level, at its best latency budget."""
        mine = np.zeros(len(self.problem.knobs), dtype=bool)
        mine[self.problem.members[triple]] = True
        seen = self.problem.seen[level]
        others = _best(np.where(mine, np.nan, seen), self.problem.cost, self.budgets)
        own = _best(np.where(mine, seen, np.nan), self.problem.cost, self.budgets)
        # A budget that the setting's fastest network does not fit in is none where it could be the best.
        usable = own > 0
        return float((own - others)[usable].max()) if usable.any() else -1.0


def _best(value: np.ndarray, cost: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """[B] largest value within each budget, 0 where there is none."""
    inside = (cost[None] <= budgets[:, None]) & ~np.isnan(value)
    return np.where(inside, np.nan_to_num(value), 0.0).max(axis=1)
