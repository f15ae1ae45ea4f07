"""A search that looks at few images of many settings, and at more only where that may change the choice.

Every step asks: at which setting, on how many images more, does a look reduce the expected regret most per
operation? Expected regret is that of `rfdetr.search.regret`: the mean over latency budgets of what the best
network within the budget has more than the chosen one. A model of accuracy over knobs and images
(`rfdetr.search.surface`) says what a look may show, and what follows from it for all other settings. All
settings see the same images first, so that what is compared is paired. Settings that cannot hold a part of
the front any more, by the model's intervals, drop out of the race by themselves: no look at them helps.
"""

import numpy as np

from rfdetr.search.grid import Triple
from rfdetr.search.problem import Problem
from rfdetr.search.regret import latency_budgets
from rfdetr.search.surface import Surface, unlink

Look = tuple[Triple, int]
"""(encoder triple, level): evaluate the setting on the images of the level that it has not seen yet."""
BATCH = 8  # looks decided at once, for as many workers, or, ...
_MORE = 8  # ... where that is more, one for so many looks that were made: each changes the model less then
_STARTS = 8  # groups of settings, by tokens, of which one each is looked at first, ...
_START_COST = 0.2  # ... together for at most this part of the budget
_AHEAD = 3  # levels above the present one that are considered
_SAMPLES = 16  # possible outcomes of a look
_SURE = 3.0  # deviations of a network below the best within its latency at which it is out of the race
_CHUNK = 32  # looks valued at once, to bound memory


class MultiFidelity:
    """Decides where to look next, `ask`, from what `problem` has seen; `believed` is what it would choose by.

    budget: part of the exact search's cost
    """

    def __init__(self, problem: Problem, seed: int = 0, budget: float = 0.02) -> None:
        self.problem, self.budget = problem, budget
        self.seed = seed
        self.triples = sorted(problem.members)
        self.pairs = _pairs(problem)
        self.fill, self.setting, self.pair = _places(problem, self.triples, self.pairs)
        self.surface = Surface(np.array(self.triples), self.pairs, problem.levels[-1])
        self.budgets = latency_budgets(problem.cost)
        self.by_cost = np.argsort(problem.cost, kind="stable")
        self._fitted = 0.0

    def ask(self) -> list[Look]:
        """The next looks, most useful first; none when nothing is left that the budget pays for."""
        if not self.problem.spent:
            return self._first()
        self._fit()
        race = _Race(self)
        made = sum(level + 1 for level in self.problem.reached.values())
        found: list[Look] = []
        while len(found) < max(BATCH, made // _MORE) and (look := race.best()) is not None:
            found.append(look)
        return found

    def believed(self) -> np.ndarray:
        """[N] expected accuracy of every network on all images."""
        if not self.problem.spent:
            return np.full(len(self.problem.knobs), np.nan)
        self._fit()
        return unlink(self.surface.mean())[self.setting, self.pair]

    def deviation(self) -> np.ndarray:
        """[N] standard deviation of `believed`."""
        self._fit()
        mean, deviation = self.surface.mean(), self.surface.deviation()
        return ((unlink(mean + deviation) - unlink(mean - deviation)) / 2)[self.setting, self.pair]

    def _first(self) -> list[Look]:
        """Cheap settings spread over the tokens a side, in which the budget allows for."""
        side = self.surface.x[:, 0]
        edges = np.linspace(side.min(), side.max(), _STARTS + 1)[1:-1]
        group = np.searchsorted(edges, side, side="right")
        price = np.array([self.problem.price(triple, 0) for triple in self.triples])
        left, found = _START_COST * self.budget, []
        rng = np.random.default_rng(self.seed)
        for g in np.unique(group):
            members = np.flatnonzero(group == g)
            cheap = members[price[members] <= np.median(price[members])]
            chosen = int(rng.choice(cheap))
            if price[chosen] <= left:
                left -= price[chosen]
                found.append((self.triples[chosen], 0))
        if not found and price.min() <= self.budget:
            found.append((self.triples[int(price.argmin())], 0))
        return found

    def _fit(self) -> None:
        """Let the surface learn from all looks, unless nothing is new."""
        if self._fitted == self.problem.spent:
            return
        self._fitted = self.problem.spent
        looks = [
            (u, level)
            for u, triple in enumerate(self.triples)
            for level in range(self.problem.reached[triple] + 1)
            if not np.isnan(self.problem.seen[level, self.fill[u, 0]])
        ]
        at, level = np.array(looks).T
        seen = self.problem.seen[level[:, None], self.fill[at]]
        self.surface.fit(at, np.array(self.problem.levels, dtype=float)[level], seen)


class _Race:
    """Values of all looks given the present model; every look taken changes what the others would show."""

    def __init__(self, search: MultiFidelity) -> None:
        self.problem, self.surface = search.problem, search.surface
        self.triples, self.spent, self.budget = search.triples, search.problem.spent, search.budget
        reached = self.problem.reached
        looks = [
            (u, level)
            for u, triple in enumerate(self.triples)
            for level in range(
                reached[triple] + 1, min(reached[triple] + 1 + _AHEAD, len(self.problem.levels))
            )
        ]
        self.at, self.level = np.array(looks, dtype=int).reshape(-1, 2).T
        self.price = np.array([self.problem.price(self.triples[u], level) for u, level in looks])
        self.open = np.ones(len(looks), dtype=bool)
        self.value, self.fresh = np.full(len(looks), np.inf), np.zeros(len(looks), dtype=bool)
        images = np.array(self.problem.levels, dtype=float)[self.level]
        self.covariance = self.surface.covariances(self.at, images)
        # The same at every step and in every worker: what is asked next follows from what was seen alone.
        half = np.random.default_rng(search.seed).standard_normal((_SAMPLES // 2, len(self.covariance)))
        self.outcomes = np.concatenate([half, -half])
        self._contenders(search)

    def _contenders(self, search: MultiFidelity) -> None:
        """Networks that may be the best within some budget, fastest first."""
        order, budgets = search.by_cost, search.budgets
        setting, pair = search.setting[order], search.pair[order]
        mean, deviation = self.surface.mean()[setting, pair], self.surface.deviation()[setting, pair]
        within = np.searchsorted(budgets, self.problem.cost[order])
        best = np.maximum.accumulate(mean)
        # What counts is the best within the smallest budget that a network fits in, which may be slower.
        last = np.searchsorted(within, within, side="right") - 1
        kept = mean + _SURE * deviation >= best[last]
        self.mean, self.of = mean[kept], setting[kept]
        few = len(self.covariance)
        self.patterns = (self.surface.patterns * self.surface.size)[pair[kept], :few]
        self.group, self.first = np.unique(within[kept], return_index=True)
        self.count = len(budgets)

    def best(self) -> Look | None:
        """The look with the largest value per cost that can be paid for; it counts as taken then.

        A look that is taken makes the others less useful, hardly ever more: so values from before it are
        bounds, and only of the leading looks they are computed again.
        """
        usable = np.flatnonzero(self.open & (self.spent + self.price <= self.budget + 1e-12))
        if not len(usable):
            return None
        while not self.fresh[chosen := usable[int(np.argmax(self.value[usable] / self.price[usable]))]]:
            stale = usable[~self.fresh[usable]]
            leading = stale[np.argsort(-self.value[stale] / self.price[stale], kind="stable")[:_CHUNK]]
            self.value[leading], self.fresh[leading] = self._values(leading), True
        # Only the next block of it: what that shows may make the rest needless.
        mine = np.flatnonzero(self.open & (self.at == self.at[chosen]))
        taken = mine[int(np.argmin(self.level[mine]))]
        self._take(taken)
        return self.triples[self.at[taken]], int(self.level[taken])

    def _take(self, taken: int) -> None:
        paid = self.price[taken]
        self.spent += paid
        self.open[taken], self.fresh[:] = False, False
        self.price[self.open & (self.at == self.at[taken])] -= paid
        place = len(self.triples) + taken
        known = self.covariance[:, place]
        variance = np.maximum(known[:, place], 1e-12)
        self.covariance = self.covariance - known[:, :, None] * known[:, None] / variance[:, None, None]

    def _values(self, looks: np.ndarray) -> np.ndarray:
        """[M] expected reduction of the mean regret by each look."""
        settings, places = len(self.triples), len(self.triples) + looks
        variance = np.maximum(self.covariance[:, places, places], 1e-12)
        moves = self.covariance[:, :settings][:, :, places] / np.sqrt(variance)[:, None]
        steps = moves.transpose(2, 0, 1)[:, :, self.of] * self.patterns.T  # [M, patterns, contenders]
        shown = self.mean + np.matmul(self.outcomes, steps)
        gains: np.ndarray = (self._chosen(shown) - self._chosen(self.mean)).mean(axis=(1, 2))
        return gains

    def _chosen(self, values: np.ndarray) -> np.ndarray:
        """Accuracy of the best within each budget, [..., budgets], from values [..., contenders]."""
        best = np.full((*values.shape[:-1], self.count), -np.inf)
        best[..., self.group] = np.maximum.reduceat(values, self.first, axis=-1)
        return unlink(np.maximum(np.maximum.accumulate(best, axis=-1), 0.0))


def _pairs(problem: Problem) -> np.ndarray:
    """[J, 2] the (decoder layers, queries) of the grid. A query count that only ever equals a setting's
    tokens is a larger one that was cut there.
    """
    tokens = (problem.knobs[:, 0] // problem.knobs[:, 1]) ** 2
    cut = problem.knobs[:, 4] == tokens
    queries = np.unique(problem.knobs[~cut, 4] if not cut.all() else problem.knobs[:, 4])
    return np.array([(d, q) for d in np.unique(problem.knobs[:, 3]) for q in queries])


def _places(
    problem: Problem, triples: list[Triple], pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[U, J] the row that stands for each pair of each setting; [N] setting and [N] pair of each row."""
    fill = np.empty((len(triples), len(pairs)), dtype=int)
    setting, pair = np.empty((2, len(problem.knobs)), dtype=int)
    for u, triple in enumerate(triples):
        rows = np.array(problem.members[triple])
        mine = problem.knobs[rows, 3:]
        # Another depth is further away than any other query count.
        apart = 100 * np.abs(pairs[:, None, 0] - mine[None, :, 0]) + np.abs(
            np.log2(pairs[:, None, 1] / mine[None, :, 1])
        )
        fill[u], setting[rows], pair[rows] = rows[apart.argmin(axis=1)], u, apart.argmin(axis=0)
    return fill, setting, pair
