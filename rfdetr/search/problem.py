"""What a budgeted search knows: its points, what each costs, and the accuracies found so far."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.search.grid import Triple

if TYPE_CHECKING:
    import pandas as pd


class Problem:
    """The points of a search, what each costs, and what is known about their accuracy so far.

    knobs [N, 5] int; cost [N] (latency in ms, known for all); accuracy [N], NaN until evaluated
    members     encoder triple -> its rows;   unit_cost: encoder triple -> part of the exact search's cost,
                sums to 1
    reference   (worst accuracy, worst cost) of hypervolumes
    """

    def __init__(
        self,
        points: "pd.DataFrame",
        unit_cost: "Mapping[Triple, float] | pd.Series",
        cost: str = "latency_ms",
    ) -> None:
        missing = [name for name in (*Arch.KNOBS, cost) if name not in points]
        if missing:
            raise UserError(f"the table of points has no column {', '.join(missing)}")
        points = points.drop_duplicates(list(Arch.KNOBS)).dropna(subset=[cost])
        self.knobs = points[list(Arch.KNOBS)].to_numpy(dtype=int)
        self.cost = points[cost].to_numpy(dtype=float)
        self.accuracy = np.full(len(points), np.nan)
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
        self.reference = (0.0, float(self.cost.max()))

    def triple(self, row: int) -> Triple:
        """The encoder triple of a row."""
        resolution, patch, windows = self.knobs[row, :3].tolist()
        return resolution, patch, windows

    @property
    def known(self) -> np.ndarray:
        """[N] bool: which points have been evaluated."""
        return ~np.isnan(self.accuracy)
