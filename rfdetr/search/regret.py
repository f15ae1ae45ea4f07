"""What choosing by a search loses: regret, the measure of every search within a budget.

Hypervolume flatters: a search that misses the fast networks altogether loses little of it. Whoever has a
latency to keep asks another question: how much more accurate would the best network within that latency have
been? So: latency budgets, evenly spaced in the logarithm; for each the network that the search would choose;
its AP on ALL validation images, whatever the search has seen of it; and the difference to the best there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rfdetr.errors import UserError

BUDGETS = 25


def latency_budgets(latency: np.ndarray, count: int = BUDGETS) -> np.ndarray:
    """[count] latencies, evenly spaced in the logarithm from the 1st percentile to the largest of `latency`
    [N] (all sub-networks, ms).
    """
    latency = np.asarray(latency, dtype=float)
    if not len(latency) or not (latency > 0).all() or not np.isfinite(latency).all():
        raise UserError(
            "latencies must be positive and finite for every sub-network, to space budgets in them"
        )
    budgets = np.geomspace(np.percentile(latency, 1), latency.max(), count)
    budgets[-1] = latency.max()  # not a rounding below it
    return budgets


def best_within(value: np.ndarray, latency: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """[budgets] row of the largest `value` [N] among those that take at most the budget, the faster one of
    equals; -1 where there is none. NaN: not to be chosen.
    """
    value = np.asarray(value, dtype=float)
    usable = np.flatnonzero(~np.isnan(value))
    order = usable[np.lexsort((-value[usable], latency[usable]))]
    count = np.searchsorted(latency[order], budgets, side="right")
    if not len(order):
        return np.full(len(budgets), -1)
    leads = np.r_[True, value[order][1:] > np.maximum.accumulate(value[order])[:-1]]
    leader = np.maximum.accumulate(np.where(leads, np.arange(len(order)), 0))
    return np.where(count > 0, order[leader[np.maximum(count, 1) - 1]], -1)


@dataclass(frozen=True)
class Regret:
    """What a search loses at each latency budget.

    budgets [B] ms; best, chosen [B] rows: most accurate, and what the search chooses (-1: nothing); loss [B]:
    AP of the one minus AP of the other, both on all images (of nothing: 0)
    """

    budgets: np.ndarray
    best: np.ndarray
    chosen: np.ndarray
    loss: np.ndarray

    @property
    def mean(self) -> float:
        """Over the budgets."""
        return float(self.loss.mean())

    @property
    def p90(self) -> float:
        """The 90th percentile over the budgets."""
        return float(np.percentile(self.loss, 90))

    @property
    def worst(self) -> float:
        """The largest."""
        return float(self.loss.max())

    def row(self) -> dict[str, float]:
        """For a table: regret_mean, regret_p90, regret_worst."""
        return {"regret_mean": self.mean, "regret_p90": self.p90, "regret_worst": self.worst}


def regret(
    truth: np.ndarray, latency: np.ndarray, believed: np.ndarray, budgets: np.ndarray | None = None
) -> Regret:
    """Regret of a search that takes, within each latency budget, what it believes to be most accurate.

    truth     [N] AP on all images          latency [N] ms
    believed  [N] what the search knows or predicts; NaN for sub-networks that it would not choose. Only its
              order matters: a choice counts with its `truth`
    budgets   default: `latency_budgets(latency)`
    """
    truth, latency = np.asarray(truth, dtype=float), np.asarray(latency, dtype=float)
    if np.isnan(truth).any():
        raise UserError("regret needs the AP of every sub-network on all images: the exact table has a gap")
    budgets = latency_budgets(latency) if budgets is None else budgets
    best, chosen = (best_within(value, latency, budgets) for value in (truth, believed))
    found = np.where(chosen >= 0, truth[chosen], 0.0)
    return Regret(budgets, best, chosen, np.where(best >= 0, truth[best], 0.0) - found)


def medians(rows: "list[Mapping[str, float]]") -> dict[str, float]:
    """The median over seeds of each number of `Regret.row`."""
    return {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
