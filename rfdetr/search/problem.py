"""What a budgeted search knows: its points, what each costs, what was looked at, and what was seen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.search.grid import Triple

if TYPE_CHECKING:
    import pandas as pd


class Problem:
    """The points of a search, what each costs, and what is known about their accuracy so far.

    knobs [N, 5] int; cost [N] (latency in ms, known for all)
    levels      numbers of images, ascending; the last is all of them
    seen [L, N] accuracy on the images of each level, NaN until looked at;   accuracy [N]: of the last level
    members     encoder triple -> its rows;   unit_cost: encoder triple -> part of the exact search's cost,
                on all images; sums to 1
    reached     encoder triple -> its level, -1 before it is looked at;   spent: part of the exact cost
    reference   (worst accuracy, worst cost) of hypervolumes
    """

    def __init__(
        self,
        points: "pd.DataFrame",
        unit_cost: "Mapping[Triple, float] | pd.Series",
        cost: str = "latency_ms",
        levels: Sequence[int] = (1,),
    ) -> None:
        missing = [name for name in (*Arch.KNOBS, cost) if name not in points]
        if missing:
            raise UserError(f"the table of points has no column {', '.join(missing)}")
        points = points.drop_duplicates(list(Arch.KNOBS)).dropna(subset=[cost])
        self.knobs = points[list(Arch.KNOBS)].to_numpy(dtype=int)
        self.cost = points[cost].to_numpy(dtype=float)
        self.levels = tuple(levels)
        self.seen = np.full((len(self.levels), len(points)), np.nan)
        self.members: dict[Triple, list[int]] = {}
        for row, (resolution, patch, windows) in enumerate(self.knobs[:, :3].tolist()):
            self.members.setdefault((resolution, patch, windows), []).append(row)
        items: Any = unit_cost.items()
        given: dict[Triple, float] = {(int(r), int(p), int(w)): float(c) for (r, p, w), c in items}
        unknown = [triple for triple in self.members if triple not in given]
        if unknown:
            raise UserError(f"unit_cost has no entry for the encoder {unknown[0]}; give one for every unit")
        total = sum(given[triple] for triple in self.members)
        self.unit_cost = {triple: given[triple] / total for triple in self.members}
        self.reached = dict.fromkeys(self.members, -1)
        self.spent = 0.0
        self.reference = (0.0, float(self.cost.max()))

    def triple(self, row: int) -> Triple:
        """The encoder triple of a row."""
        resolution, patch, windows = self.knobs[row, :3].tolist()
        return resolution, patch, windows

    @property
    def accuracy(self) -> np.ndarray:
        """[N] accuracy on all images, NaN until it is known."""
        return self.seen[-1]

    @property
    def known(self) -> np.ndarray:
        """[N] bool: which points have been evaluated on all images."""
        return ~np.isnan(self.accuracy)

    def price(self, triple: Triple, level: int, reached: int | None = None) -> float:
        """What the images cost that `level` adds to those of the level `reached` (default: the setting's), as
        a part of the exact cost.
        """
        images = (0, *self.levels)
        known = self.reached[triple] if reached is None else reached
        return self.unit_cost[triple] * max(0, images[level + 1] - images[known + 1]) / images[-1]

    def take(self, triple: Triple, level: int, rows: Sequence[int], accuracy: np.ndarray) -> None:
        """Pay for a look at a setting and keep what it showed of the rows."""
        self.spent += self.price(triple, level)
        self.reached[triple] = max(level, self.reached[triple])
        self.seen[level, list(rows)] = accuracy

    def latest(self) -> np.ndarray:
        """[N] each point's accuracy on the most images it was looked at, brought to the level of all images
        by the mean difference between levels of the points that have both; NaN until looked at.
        """
        found, shift = self.seen[-1].copy(), 0.0
        for level in range(len(self.levels) - 2, -1, -1):
            both = self.seen[level + 1] - self.seen[level]
            if not np.isnan(both).all():
                shift += float(np.nanmean(both))
            found = np.where(np.isnan(found), self.seen[level] + shift, found)
        return found
