"""A budgeted search that models accuracy and takes the encoder setting that promises most per cost.

Accuracy is modelled in two parts, because all points of an encoder triple are learned at once: how good the
triple's best point is (a Gaussian process on resolution, token grid and windows, in logits), and which share
of that a decoder depth and query count reach (the mean over the triples seen).
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np

from rfdetr.search.grid import Triple
from rfdetr.search.pareto import front_mask, hypervolume
from rfdetr.search.problem import Problem

_STARTS = 3  # triples evaluated before the first fit, ...
_START_COST = 0.01  # ... together at most this part of the exact cost, and at most a fifth of the budget
_OPTIMISM = (0.0, 1.0)  # standard deviations above the mean at which a gain is computed


def proposals(problem: Problem, seed: int, budget: float) -> Iterator[int]:
    """Endless rows to evaluate, on all images; what came of them is read from the problem.

    A triple's value is its expected gain of hypervolume, the mean over a plain and an optimistic reading, per
    cost.
    """
    rng = np.random.default_rng(seed)
    triples = sorted(problem.members, key=lambda t: problem.unit_cost[t])
    most = min(_START_COST, budget / 5) / _STARTS
    cheap = [t for t in triples if problem.unit_cost[t] <= most] or triples[:1]
    for part in np.array_split(np.arange(len(cheap)), _STARTS):
        if len(part):
            yield problem.members[cheap[int(rng.choice(part))]][-1]
    while True:
        done = [t for t in triples if problem.known[problem.members[t][0]]]
        spent = sum(problem.unit_cost[t] for t in done)
        left = [t for t in triples if t not in done and spent + problem.unit_cost[t] <= budget + 1e-12]
        if left:
            gains = _gains(problem, left, _predict(problem, done, left, seed))
            chosen = left[int(np.argmax([gains[t] / problem.unit_cost[t] for t in left]))]
        else:
            chosen = next((t for t in triples if t not in done), triples[0])
        yield problem.members[chosen][-1]


def _gains(
    problem: Problem, left: list[Triple], predicted: dict[Triple, tuple[np.ndarray, np.ndarray]]
) -> dict[Triple, float]:
    """Expected gain of hypervolume of each triple, from (mean, deviation) of the accuracies of its rows."""
    known = np.flatnonzero(problem.known)
    best = known[front_mask(problem.accuracy[known], problem.cost[known])]
    accuracy, cost = problem.accuracy[best], problem.cost[best]
    base = hypervolume(accuracy, cost, problem.reference)
    gains = {}
    for triple in left:
        mean, deviation = predicted[triple]
        costs = np.r_[cost, problem.cost[problem.members[triple]]]
        gains[triple] = sum(
            hypervolume(np.r_[accuracy, np.clip(mean + z * deviation, 0, 1)], costs, problem.reference) - base
            for z in _OPTIMISM
        ) / len(_OPTIMISM)
    return gains


def _predict(
    problem: Problem, done: list[Triple], left: list[Triple], seed: int
) -> dict[Triple, tuple[np.ndarray, np.ndarray]]:
    """(mean, deviation) of the accuracy of each row of the triples in `left`."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    best = np.array([np.nanmax(problem.accuracy[problem.members[t]]) for t in done])
    logits = np.log(np.clip(best, 1e-3, 0.999) / (1 - np.clip(best, 1e-3, 0.999)))
    every = _coordinates(list(problem.members))
    centre, spread = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-9)
    seen, asked = ((_coordinates(ts) - centre) / spread for ts in (done, left))
    # A linear trend, held small where there are few triples, carries the fit to settings far from those seen.
    design = np.c_[np.ones(len(seen)), seen]
    weights = np.linalg.solve(design.T @ design + np.diag([1e-6, 0.1, 0.1, 1.0]), design.T @ logits)
    kernel = ConstantKernel(0.5, (0.05, 5)) * RBF([1.0, 1.0, 2.0], (0.5, 8)) + WhiteKernel(
        0.003, (1e-3, 0.03)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound: the knob does not matter yet
        process = GaussianProcessRegressor(kernel, random_state=seed).fit(seen, logits - design @ weights)
    rest, deviation = process.predict(asked, return_std=True)
    mean = np.c_[np.ones(len(asked)), asked] @ weights + rest
    middle, high = (1 / (1 + np.exp(-value)) for value in (mean, mean + deviation))
    share = _shares(problem, done, best)
    found = {}
    for index, triple in enumerate(left):
        pattern = np.array([share(*problem.knobs[row, 3:].tolist()) for row in problem.members[triple]])
        found[triple] = middle[index] * pattern, (high[index] - middle[index]) * pattern
    return found


def _coordinates(triples: list[Triple]) -> np.ndarray:
    """[N, 3]: logarithms of the side of the token grid, of the resolution, of the windows."""
    resolution, patch, windows = np.array(triples, dtype=float).reshape(-1, 3).T
    return np.log2(np.stack([resolution / patch, resolution, windows], axis=1))


def _shares(problem: Problem, done: list[Triple], best: np.ndarray) -> Callable[[int, int], float]:
    """Function (decoder layers, queries) -> mean share of its triple's best accuracy; the nearest pair stands
    for others.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for triple, top in zip(done, best, strict=True):
        for row in problem.members[triple]:
            if not np.isnan(problem.accuracy[row]):
                depth, queries = problem.knobs[row, 3:].tolist()
                found.setdefault((depth, queries), []).append(problem.accuracy[row] / max(top, 1e-9))
    means = {pair: float(np.mean(values)) for pair, values in found.items()}

    def share(depth: int, queries: int) -> float:
        if (depth, queries) in means:
            return means[depth, queries]
        near = min(means, key=lambda pair: abs(pair[0] - depth) + 2 * abs(np.log2(pair[1] / queries)))
        return means[near]

    return share
