"""A budgeted search that fits accuracy and cost on the knobs and takes what promises most per cost."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.search.pareto import front_mask, hypervolume

if TYPE_CHECKING:
    from rfdetr.search.budget import Problem


def proposals(
    problem: "Problem", seed: int, budget: float
) -> Iterator[tuple[int, Callable[[list[int]], None]]]:
    """Fit accuracy on the knobs, then take the unit with the largest expected hypervolume gain per cost.

    Accuracy has a mean and a spread (a Gaussian process on unit and decoder coordinates); the gain of a unit is averaged
    over the mean and a somewhat optimistic reading. Cost is known for all points. Starts with three units of different cost
    that together take at most a fifth of `budget`, so that a small budget is not eaten at once.
    """
    rng = np.random.default_rng(seed)
    triples = sorted(problem.members, key=lambda t: problem.unit_cost[t])
    affordable = [t for t in triples if problem.unit_cost[t] <= budget / 15] or triples[:1]
    part = max(1, len(affordable) // 3)
    start = [
        affordable[min(len(affordable) - 1, int(rng.integers(i * part, (i + 1) * part)))] for i in range(3)
    ]
    inputs = _coordinates(problem.knobs)
    done: set[tuple[int, int, int]] = set()

    def tell(rows: list[int]) -> None:
        done.add(problem.triple(rows[0]))

    for triple in dict.fromkeys(start):
        yield problem.members[triple][-1], tell
    low, high = problem.reference
    while True:
        spent = sum(problem.unit_cost[t] for t in done)
        left = [t for t in triples if t not in done and spent + problem.unit_cost[t] <= budget]
        if not left:
            rest = [t for t in triples if t not in done] or triples
            yield problem.members[rest[0]][-1], tell
            continue
        accuracy, spread = _predict(inputs, problem.accuracy, problem.known, rng)
        known = np.flatnonzero(problem.known)
        best_known = known[front_mask(problem.accuracy[known], problem.cost[known])]
        have_accuracy, have_cost = problem.accuracy[best_known], problem.cost[best_known]
        base = hypervolume(have_accuracy, have_cost, (low, high))
        gains = []
        for triple in left:
            rows = problem.members[triple]
            gain = 0.0
            for optimism in (0.0, 0.5):
                hoped = np.r_[have_accuracy, np.clip(accuracy[rows] + optimism * spread[rows], 0, 1)]
                gain += hypervolume(hoped, np.r_[have_cost, problem.cost[rows]], (low, high)) - base
            gains.append(gain / problem.unit_cost[triple])
        best = left[int(np.argmax(np.array(gains) * (1 + 1e-9 * rng.random(len(gains)))))]
        yield problem.members[best][-1], tell


def _coordinates(knobs: np.ndarray) -> np.ndarray:
    """Standardised knobs and the side of the token grid, on which accuracy depends more than on either of its factors."""
    resolution, patch, windows, depth, queries = knobs.T.astype(float)
    side = np.log2(resolution / patch)
    columns = [np.log2(resolution), side, np.log2(windows), np.sqrt(depth), np.log2(queries)]
    inputs = np.stack(columns, axis=1)
    return (inputs - inputs.mean(axis=0)) / np.maximum(inputs.std(axis=0), 1e-9)


def _predict(
    inputs: np.ndarray, values: np.ndarray, known: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation for all points from the known ones; at most 150 of these, drawn at random."""
    from scipy.linalg import cho_factor, cho_solve

    rows = np.flatnonzero(known)
    rows = rows if len(rows) <= 150 else rng.choice(rows, 150, replace=False)
    target = values[rows]
    centre, scale = target.mean(), max(float(target.std()), 1e-9)
    # Quadratic trend plus a smooth Gaussian process for what it leaves.
    basis = _quadratic(inputs)
    weights = np.linalg.solve(
        basis[rows].T @ basis[rows] + 0.1 * np.eye(basis.shape[1]),
        basis[rows].T @ ((target - centre) / scale),
    )
    trend = basis @ weights
    rest = (target - centre) / scale - trend[rows]
    deviation = max(float(rest.std()), 0.02)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1) / 1.5**2)

    factor = cho_factor(kernel(inputs[rows], inputs[rows]) + 0.05 * np.eye(len(rows)))
    across = kernel(inputs, inputs[rows])
    mean = trend + across @ cho_solve(factor, rest)
    variance = 1 - np.einsum("ij,ji->i", across, cho_solve(factor, across.T))
    return centre + scale * mean, scale * deviation * np.sqrt(np.clip(variance, 0, None))


def _quadratic(inputs: np.ndarray) -> np.ndarray:
    count = inputs.shape[1]
    pairs = [inputs[:, i] * inputs[:, j] for i in range(count) for j in range(i, count)]
    return np.column_stack([np.ones(len(inputs)), inputs, *pairs])
