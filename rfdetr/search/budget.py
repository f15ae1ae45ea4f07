"""Searching with a fraction of the exact grid's cost.

A sampler decides which encoder settings are looked at, and on how many images. A look at a setting computes
its encoder once per image, after which all its depths and query counts are nearly free: so a look pays for
the setting and tells all of them. Latency needs no evaluation: a `LatencyModel` fitted to few measured
sub-networks gives it for all points beforehand.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rfdetr.errors import UserError
from rfdetr.search import guided, halving, rules, samplers
from rfdetr.search.multifidelity import Look, MultiFidelity
from rfdetr.search.problem import Problem

_STALLED = 25  # repeated proposals in a row after which a sampler's step is drawn at random instead


class Sampler(Protocol):
    """Decides where to look next, from what its problem has seen."""

    def ask(self) -> list[Look]:
        """The next looks; none when there is nothing left to look at."""
        ...

    def believed(self) -> np.ndarray:
        """[N] the accuracy that each network is chosen by; NaN for those that it would not choose."""
        ...


class Whole:
    """A sampler that looks at one setting after another on all images: that of the row that comes next.

    proposals   endless rows, which may repeat; they read the answers from the problem
    """

    def __init__(self, problem: Problem, proposals: Iterator[int], seed: int) -> None:
        self.problem, self.proposals, self.rng = problem, proposals, np.random.default_rng(seed)

    def ask(self) -> list[Look]:
        """One look at a setting that is new."""
        last = len(self.problem.levels) - 1
        left = [triple for triple, level in self.problem.reached.items() if level < last]
        if not left:
            return []
        for _ in range(_STALLED):
            triple = self.problem.triple(next(self.proposals))
            if self.problem.reached[triple] < last:
                return [(triple, last)]
        return [(left[int(self.rng.choice(len(left)))], last)]

    def believed(self) -> np.ndarray:
        """What was evaluated."""
        return self.problem.accuracy


def _whole(
    proposals: Callable[[Problem, int, float], Iterator[int]],
) -> Callable[[Problem, int, float], Sampler]:
    return lambda problem, seed, budget: Whole(problem, proposals(problem, seed, budget), seed)


_MAKERS: dict[str, Callable[[Problem, int, float], Sampler]] = {
    "random": _whole(lambda problem, seed, budget: samplers.proposals(problem, "random", seed)),
    "tpe": _whole(lambda problem, seed, budget: samplers.proposals(problem, "tpe", seed)),
    "nsga2": _whole(lambda problem, seed, budget: samplers.proposals(problem, "nsga2", seed)),
    "guided": _whole(guided.proposals),
    "cheap-random": _whole(rules.cheap_random),
    "token-rule": rules.TokenRule,
    "token-rule-tenth": lambda problem, seed, budget: rules.TokenRule(problem, seed, budget, 0.1),
    "halving": lambda problem, seed, budget: halving.Racing(problem, "halving", seed, budget),
    "hyperband": lambda problem, seed, budget: halving.Racing(problem, "hyperband", seed, budget),
    "tpe-hyperband": lambda problem, seed, budget: halving.Racing(problem, "tpe-hyperband", seed, budget),
    "multifidelity": MultiFidelity,
}
SAMPLERS = tuple(_MAKERS)
"""On all images: random, tpe and nsga2 (Optuna's), cheap-random (cheap settings more often), guided (a
regression on the knobs; the best expected gain per cost), token-rule (the cheapest setting of each token
grid, interpolated). On few images first: token-rule-tenth, halving, hyperband and tpe-hyperband (Optuna's
pruners), multifidelity (the largest expected reduction of regret per operation).
"""
WHOLE = ("random", "tpe", "nsga2", "guided")
"""Samplers that evaluate the settings they look at on all images, as an exact search does."""
FEW_IMAGES = ("token-rule-tenth", "halving", "hyperband", "tpe-hyperband", "multifidelity")
"""Samplers that look at settings on few images first."""


@dataclass(frozen=True)
class Step:
    """Looks that were paid for, the rows that they told of, and the part of the exact search's cost spent so
    far.
    """

    looks: list[Look]
    rows: list[int]
    spent: float


class Run:
    """A search of a problem by one sampler, until `budget` (part of the exact search's cost) is spent.

    agreed: (number of a step, function that decides) -> looks; for workers, see `within.Agreed`

    Raises UserError for an unknown sampler or a budget that cannot be.
    """

    def __init__(
        self,
        problem: Problem,
        sampler: str = "multifidelity",
        seed: int = 0,
        budget: float = 0.02,
        agreed: Callable[[int, Callable[[], list[Look]]], list[Look]] | None = None,
    ) -> None:
        check_options(budget, sampler)
        self.problem, self.budget = problem, budget
        self.agreed = agreed or (lambda number, decide: decide())
        self.sampler = _MAKERS[sampler](problem, seed, budget)

    def steps(self, evaluate: Callable[[Sequence[Look]], Sequence[np.ndarray]]) -> Iterator[Step]:
        """Look by look, as the sampler asks. Ends when the next look would exceed the budget or nothing is
        left.

        evaluate   looks (encoder triple, level) -> for each the accuracy of all rows of the triple
                   (`problem.members`) on the images of the level
        """
        problem = self.problem
        for number in itertools.count(1):
            looks = self.agreed(number, lambda: self._affordable(self.sampler.ask()))
            if not looks:
                return
            rows: list[int] = []
            for (triple, level), accuracy in zip(looks, evaluate(looks), strict=True):
                problem.take(triple, level, problem.members[triple], accuracy)
                rows += problem.members[triple]
            yield Step(looks, rows, problem.spent)

    def _affordable(self, looks: list[Look]) -> list[Look]:
        """The looks before the first one that is too dear."""
        spent, reached = self.problem.spent, dict(self.problem.reached)
        for count, (triple, level) in enumerate(looks):
            spent += self.problem.price(triple, level, reached[triple])
            if spent > self.budget + 1e-12:
                return looks[:count]
            reached[triple] = level
        return looks

    def believed(self) -> np.ndarray:
        """[N] the accuracy that each network is chosen by (NaN: not chosen)."""
        return self.sampler.believed()

    def deviation(self) -> np.ndarray:
        """[N] standard deviation of `believed`; NaN for samplers that know none."""
        if isinstance(self.sampler, MultiFidelity):
            return self.sampler.deviation()
        return np.full(len(self.problem.cost), np.nan)


def check_options(budget: float, sampler: str) -> None:
    """Raise UserError for a sampler or a budget that cannot be."""
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: use one of {', '.join(SAMPLERS)}")
    if not 0 < budget <= 1:
        raise UserError(f"budget is a part of the exact search's cost, above 0 and at most 1, not {budget}")
