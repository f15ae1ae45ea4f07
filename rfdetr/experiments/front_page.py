"""The picture with which the book opens: the front of the kept search, and one scene through three of its
networks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch
from rfdetr.data.dataset import Target
from rfdetr.data.scenes import scenes
from rfdetr.experiments.base.kept import Kept
from rfdetr.experiments.ch00_introduction import busiest
from rfdetr.search.pareto import front

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detections import Detections

SHARES = (0.6, 0.85, 1.0)
"""The three networks are the cheapest of the front that reach these shares of its best AP."""
_SCENES = 40  # among which the one with the most objects is shown
_SCORE = 0.35  # from which a detection is drawn


@dataclass(frozen=True)
class FrontPage:
    """table: of the search (five knobs, AP, gflops). best: its front. chosen: three rows of it. found: what
    each sees in the scene (pixels [H, W, 3], target).
    """

    table: "pd.DataFrame"
    best: "pd.DataFrame"
    chosen: "pd.DataFrame"
    pixels: np.ndarray
    target: Target
    names: tuple[str, ...]
    found: "list[Detections]"


def along(best: "pd.DataFrame", shares: tuple[float, ...] = SHARES) -> "pd.DataFrame":
    """The cheapest rows of a front (columns AP, gflops) that reach these shares of its best AP."""
    import pandas as pd

    ordered = best.sort_values("gflops")
    least = [share * ordered["AP"].max() for share in shares]
    rows = [ordered[ordered["AP"] >= limit].iloc[0] for limit in least]
    return pd.DataFrame(rows).reset_index(drop=True)


def front_page(kept: Kept) -> FrontPage:
    """Read the kept search and show one test scene to three networks of its front."""
    table = kept.tables["table"]
    best = front(table, cost="gflops")
    chosen = along(best)
    dataset = scenes("digits", "test", size=_SCENES)
    pixels, target = dataset[busiest(dataset)]
    model = kept.network()
    archs = [Arch(**{knob: int(row[knob]) for knob in Arch.KNOBS}) for _, row in chosen.iterrows()]
    found = [model.predict([pixels], arch, threshold=_SCORE)[0] for arch in archs]
    return FrontPage(table, best, chosen, pixels, target, dataset.class_names, found)
