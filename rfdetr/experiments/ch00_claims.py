"""Chapter 00: what is done by hand in the introduction is what the package does."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Check

if TYPE_CHECKING:
    import pandas as pd


def check_matching(by_hand: "pd.DataFrame", pairs: "pd.DataFrame") -> Check:
    """The assignment of the page's lines (columns query, object) and that of the training code."""
    ours = set(zip(by_hand["query"], by_hand["object"], strict=True))
    chosen = pairs[pairs.matched]
    theirs = set(zip(chosen["query"], chosen["object"], strict=True))
    return Check("The matching above is that of the training", ours == theirs, {"pairs": len(theirs)})


def check_loss(loss: "pd.DataFrame") -> Check:
    """The loss of the page's lines and of the training code. loss: columns by_hand, training."""
    largest = float(((loss.by_hand - loss.training) / loss.training).abs().max())
    return Check("The loss above is that of the training", largest < 1e-5, {"relative difference": largest})


def check_ap(ap: "pd.DataFrame") -> Check:
    """AP by hand and by pycocotools. ap: columns by_hand, pycocotools."""
    largest = float((ap.by_hand - ap.pycocotools).abs().max())
    return Check("AP by hand is that of pycocotools", largest < 1e-9, {"difference": largest})
