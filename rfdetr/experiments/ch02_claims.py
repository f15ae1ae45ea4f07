"""Chapter 02: verdicts on the search space that need counting; printed lists are in `paper.arithmetic`."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd


def c053(drawn: "pd.DataFrame") -> Verdict:
    """Uniform draws of the printed grid: how often each side of the token grid comes up.

    drawn: from `ch02_search_space.drawn_token_grids`.
    """
    often, seldom = int(drawn.points.max()), int(drawn.points.min())
    return Verdict(
        agree(often == seldom),
        {"token grids": len(drawn), "points of the most frequent": often, "of the least frequent": seldom},
        "Every resolution in pixels is equally likely by the draw. The positions depend on resolution over"
        " patch size, and over the printed grid those are not.",
    )


def c123(training: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Operations of a training step of the grid over those of the network that Table 5 starts from.

    training: from `ch04_share.step_costs`.
    """
    ratios = dict(zip(training.baseline, training.step_ratio.round(1).tolist(), strict=True))
    low, high = values["ratio"]
    base = ratios["base"]
    return Verdict(
        "consistent" if low <= base <= high else "contradicted",
        ratios,
        "Operations of the forward pass with all groups of queries, averaged over the printed training grid,"
        " over those of one architecture. The paper does not name its baseline; base, where Table 5 starts,"
        " decides here. Time was not measured.",
    )


def c173(windows: "pd.DataFrame") -> Verdict:
    """Do the class-token copies change which number of windows is cheapest? windows: from `window_costs`."""
    best = {
        column: windows.loc[windows.groupby("configuration")[column].idxmin()]
        .set_index("configuration")
        .windows
        for column in ("backbone", "without_class_tokens")
    }
    moved = int((best["backbone"] < best["without_class_tokens"]).sum())
    most = windows.groupby("windows").class_tokens.max()
    return Verdict(
        "consistent" if moved == len(best["backbone"]) else "needs latencies with and without the copies",
        {f"windows a side: {w}, %": round(float(v), 2) for w, v in most.items()}
        | {"sizes whose cheapest number of windows they lower": moved},
        "What the copies add to the operations of the backbone. In operations they are too small to make two"
        " windows cheaper than four; the claim is about what is fastest."
        if moved < len(best["backbone"])
        else "What the copies add to the operations of the backbone makes fewer windows cheaper.",
    )
