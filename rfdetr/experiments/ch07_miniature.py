"""Figure 1 in miniature: the front of the kept search over latency, and one architecture that is only scaled.

The other families of Table 2 are a few sizes by hand. The like of that here is one sub-network of the front
whose resolution alone is changed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch
from rfdetr.experiments.base import kept
from rfdetr.experiments.ch05_full_search import undisturbed, with_latency
from rfdetr.search.pareto import front

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "full-search"
_FIXED = list(Arch.KNOBS[1:])


@dataclass(frozen=True)
class Miniature:
    """front, family: arch, AP, predicted_ms, latency_ms (empty where not timed); family has `front_AP`, the
    front's accuracy at that latency. points: sub-networks in all. origin: of the kept search.
    """

    front: "pd.DataFrame"
    family: "pd.DataFrame"
    points: int
    origin: str


def miniature() -> Miniature | None:
    """From the kept search, by predicted latency (one thread); None where it is not in this copy."""
    found = kept.find(SOURCE)
    if found is None:
        return None
    table, _ = with_latency(found.tables["table"], undisturbed(found.tables["latency"]))
    table = table.drop_duplicates(list(Arch.KNOBS)).dropna(subset=["AP"])
    table["arch"] = [Arch(*map(int, row)).id for row in table[list(Arch.KNOBS)].to_numpy()]
    best = front(table, "AP", "predicted_ms")
    return Miniature(best, scaled(table, best), len(table), found.origin)


def scaled(table: "pd.DataFrame", best: "pd.DataFrame") -> "pd.DataFrame":
    """The middle network of the front (by the logarithm of latency), at every resolution; with the front's
    accuracy at no more latency.
    """
    time = np.log(best["predicted_ms"].to_numpy())
    middle = best.iloc[int(np.abs(time - (time[0] + time[-1]) / 2).argmin())]
    family = table[(table[_FIXED] == middle[_FIXED]).all(axis=1)].sort_values("resolution")
    place = np.searchsorted(best["predicted_ms"], family["predicted_ms"], side="right") - 1
    return family.assign(front_AP=best["AP"].to_numpy()[np.maximum(place, 0)])
