"""Chapter 04: verdicts on sub-networks that training never drew."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Verdict, by_interval, records, rounded

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.02
"""AP by which an unseen sub-network may stay below its trained neighbours and still count as good."""


def _unseen(frame: "pd.DataFrame", why: str) -> Verdict:
    if frame.empty:
        return Verdict("needs a training grid with gaps", {}, "Training drew every one.")
    return Verdict(
        by_interval(float(frame.low.min()), float(frame.high.min()), -TOLERANCE),
        {
            f"{row['arch']}, difference and 95 %": rounded(row["difference"], row["low"], row["high"])
            for row in records(frame)
        },
        f"{why} Consistent if every interval, over test images, lies above −{TOLERANCE}. One training.",
    )


def c013(unseen_grids: "pd.DataFrame") -> Verdict:
    """Token grids that no step drew. unseen_grids: from `ch04_unseen.against_neighbours`."""
    return _unseen(
        unseen_grids,
        "AP at a token grid that no training step had, minus the mean of the trained grids on either side.",
    )


def c145(unseen_patches: "pd.DataFrame") -> Verdict:
    """Patch sizes that no step drew. unseen_patches: from `ch04_unseen.against_neighbours`."""
    return _unseen(
        unseen_patches,
        "AP at a patch size that no training step had, minus the mean of the next smaller and larger one at"
        " the same tokens and windows; unseen resolutions are C013's.",
    )
