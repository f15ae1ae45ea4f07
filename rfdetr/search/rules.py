"""Simple ways to spend a search's budget, which anything cleverer has to beat."""

from collections.abc import Iterator

import numpy as np

from rfdetr.search.grid import Triple
from rfdetr.search.multifidelity import Look
from rfdetr.search.problem import Problem


def cheap_random(problem: Problem, seed: int, budget: float) -> Iterator[int]:
    """Endless rows: a setting's chance is the inverse of its cost."""
    rng = np.random.default_rng(seed)
    triples = sorted(problem.members)
    chance = np.array([1 / problem.unit_cost[triple] for triple in triples])
    while True:
        yield problem.members[triples[int(rng.choice(len(triples), p=chance / chance.sum()))]][0]


class TokenRule:
    """The cheapest setting of every token grid, smallest grids first, as far as the budget goes; accuracy is
    interpolated over the logarithm of the tokens for each (layers, queries).

    It assumes that accuracy depends on the tokens alone. part: of the images that are looked at
    """

    def __init__(self, problem: Problem, seed: int = 0, budget: float = 0.02, part: float = 1.0) -> None:
        self.problem = problem
        images = np.array(problem.levels)
        self.level = int(np.argmin(np.abs(np.log(images / (part * images[-1])))))
        cheapest: dict[int, Triple] = {}
        for triple in sorted(problem.members, key=lambda t: problem.unit_cost[t]):
            cheapest.setdefault(_side(triple), triple)
        self.left = [cheapest[side] for side in sorted(cheapest)]

    def ask(self) -> list[Look]:
        """The next larger token grid."""
        return [(self.left.pop(0), self.level)] if self.left else []

    def believed(self) -> np.ndarray:
        """The interpolated accuracy of every network; beyond the largest grid seen, that of the largest."""
        seen = self.problem.seen[self.level]
        side = self.problem.knobs[:, 0] / self.problem.knobs[:, 1]
        believed = np.full(len(seen), np.nan)
        known = ~np.isnan(seen)
        for pair in np.unique(self.problem.knobs[:, 3:], axis=0):
            mine = (self.problem.knobs[:, 3:] == pair).all(axis=1)
            have = np.flatnonzero(mine & known)
            if len(have):
                have = have[np.argsort(side[have])]
                believed[mine] = np.interp(np.log(side[mine]), np.log(side[have]), seen[have])
        return believed


def _side(triple: Triple) -> int:
    return triple[0] // triple[1]
