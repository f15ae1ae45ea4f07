"""Exercises whose answers are checked: the book knows the answer because it computes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.arch import PRESETS, TRAINING_GRID, round_resolution
from rfdetr.errors import UserError

COSTS = np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
"""Costs of three queries (rows) for three objects."""
HITS, OBJECTS = (True, False, True, True, False), 4
"""Detections of one class, best first, and how many objects there are."""
POINTS = ((1.0, 0.30), (2.0, 0.45), (2.5, 0.40), (3.0, 0.45), (4.0, 0.60), (6.0, 0.58))
"""(latency in ms, AP) of six networks."""
INHERITED, ALONE = (0.31, 0.45, 0.52, 0.50, 0.61), (0.40, 0.49, 0.53, 0.57, 0.66)
"""AP of five networks as sub-networks, and trained alone."""


@dataclass(frozen=True)
class Exercise:
    """answer: computes it. hint: for who is not there yet. tolerance: of numbers."""

    answer: Callable[[], Any]
    hint: str
    tolerance: float = 1e-3


def _matching() -> float:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(COSTS)
    return float(COSTS[rows, columns].sum())


def _ap() -> float:
    import pandas as pd

    from rfdetr.experiments.ch00_introduction import average_precision

    hits = pd.Series(HITS).cumsum()
    ranked = pd.DataFrame({"precision": hits / np.arange(1, len(HITS) + 1), "recall": hits / OBJECTS})
    return average_precision(ranked)


def _front() -> list[int]:
    from rfdetr.search.pareto import front_mask

    cost, accuracy = np.array(POINTS).T
    return np.flatnonzero(front_mask(accuracy, cost)).tolist()


def _tau() -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(INHERITED, ALONE).statistic)


EXERCISES: Mapping[str, Exercise] = {
    "rounding": Exercise(
        lambda: round_resolution(832, 20, 2), "the side must be a multiple of patch size times windows"
    ),
    "tokens": Exercise(
        lambda: PRESETS["nano"].arch.tokens, "resolution divided by patch size, and then both sides"
    ),
    "matching": Exercise(
        _matching, "six assignments are possible; the cheapest pair need not be in the best"
    ),
    "ap": Exercise(
        _ap, "101 values of recall; the recalls reached are quarters, and the last is never reached", 0.02
    ),
    "front": Exercise(_front, "on the front is what no other network beats in both numbers"),
    "tau": Exercise(_tau, "ten pairs; count those in the same order, less the others, divided by ten"),
    "epochs": Exercise(
        lambda: 50 / len(TRAINING_GRID), "the epochs are shared by all points of the training grid", 0.01
    ),
}


def check(name: str, answer: Any = None) -> str:
    """Whether an answer is right, in a sentence. UserError for an exercise that there is not."""
    if name not in EXERCISES:
        raise UserError(f"there is no exercise {name!r}; choose one of {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    if answer is None:
        return f"{name}: no answer yet."
    try:
        given, wanted = np.asarray(answer, dtype=float), np.asarray(exercise.answer(), dtype=float)
    except (TypeError, ValueError):
        return f"{name}: {answer!r} is not a number or a list of numbers."
    right = given.shape == wanted.shape and bool(np.allclose(given, wanted, rtol=0, atol=exercise.tolerance))
    return f"{name}: right." if right else f"{name}: not yet. Hint: {exercise.hint}."
