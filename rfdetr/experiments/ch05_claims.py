"""Chapter 05: verdicts on the search. Those about knobs come from the kept search of the printed grid in
miniature (one training), that about patch sizes from the kept benchmark (one training for each domain).
"""

from typing import TYPE_CHECKING

from rfdetr.experiments import ch05_knobs as knobs
from rfdetr.experiments.ch09_intervals import FEW
from rfdetr.paper.verdicts import Verdict, by_interval, records, rounded

if TYPE_CHECKING:
    import pandas as pd

KEPT = "needs the kept search (results/full-search)"
NOT_HERE = "It is not in this copy."
THOUSANDS = 1000
SAME = 0.005
"""Largest change of AP when a kept sub-network is evaluated again."""
LAW = 0.99
"""R² from which tokens, layers and queries are taken to decide AP."""


def c007(kept: "pd.DataFrame | None", recheck: "pd.DataFrame | None") -> Verdict:
    """Thousands of sub-networks of one network, each with an AP that evaluating it again gives.

    kept: the table of the kept search. recheck: from `ch05_full_search.recomputed`.
    """
    if kept is None or recheck is None:
        return Verdict(KEPT, {}, NOT_HERE)
    known = int(kept.AP.notna().sum())
    moved = float((recheck.AP - recheck.kept_AP).abs().max())
    # A table of equal numbers would not be thousands of evaluations.
    holds = known >= THOUSANDS and moved <= SAME and kept.AP.nunique() > known / 2
    return Verdict(
        "consistent" if holds else "contradicted",
        {"different sub-networks": known, "evaluated again": len(recheck), "largest change": round(moved, 5)},
        "The printed grid in miniature: all of them are read from one set of weights, none was trained"
        " again.",
    )


def c008(chosen: "pd.DataFrame") -> Verdict:
    """A larger latency budget buys AP on images that chose nothing. chosen: from `ch05_search.tested`."""
    rows = records(chosen.sort_values("predicted_ms"))
    pairs = list(zip(rows, rows[1:], strict=False))
    better = bool(pairs) and all(b["test_low"] > a["test_high"] for a, b in pairs)
    worse = any(b["test_high"] < a["test_low"] for a, b in pairs)
    return Verdict(
        "contradicted" if worse else "consistent" if better else "not resolved",
        {
            f"{row['predicted_ms']:.1f} ms, test AP and 95 %": rounded(
                row["test_AP"], row["test_low"], row["test_high"]
            )
            for row in rows
        },
        "Networks chosen for rising latency budgets on validation scenes, tested on others. Consistent if"
        " each interval lies above that of the cheaper one. One training.",
    )


def c037(by_domain: "pd.DataFrame | None", kept_nominal: "pd.DataFrame | None") -> Verdict:
    """Steps to the next smaller patch that add tokens, on many domains; beside them those of the kept search.

    by_domain: from `ch09_within.smaller_patches`; kept_nominal: from `ch05_knobs.nominal_table`.
    """
    if by_domain is None or len(by_domain) <= FEW:  # the last row is that over all
        return Verdict(f"needs the kept benchmark on at least {FEW} domains (results/fourteen-domains)")
    row = records(by_domain)[-1]
    word = by_interval(row["low"], row["high"]) if row["dearer"] == 1 else "contradicted"
    numbers = {
        "AP of a step, mean and 95 %": rounded(row["difference"], row["low"], row["high"]),
        "domains": len(by_domain) - 1,
        "operations, median ratio": round(row["gflops_ratio"], 2),
    }
    if kept_nominal is not None:
        steps = knobs.patch_steps(kept_nominal)
        gains = steps[steps.tokens_ratio > 1].gain
        numbers |= {"on scenes of 96 px, mean": round(float(gains.mean()), 3)}
        numbers |= {"and AP rises in, % of the steps": round(100 * float((gains > 0).mean()))}
    return Verdict(
        word,
        numbers,
        "Steps to the next smaller patch at one grid resolution, all else equal, where it gives more tokens;"
        " Student's interval over the domains of chapter 09, each with its own training. Contradicted also if"
        " a step did not cost more. The tokens do it: see C168. On the scenes of 96 px the gain ends where"
        " there are many, so there fewer steps have one.",
    )


def c045(kept: "pd.DataFrame | None") -> Verdict:
    """Four windows against one at the same tokens: AP lost, operations saved."""
    if kept is None:
        return Verdict(KEPT, {}, NOT_HERE)
    change = knobs.window_change(kept)
    cheaper = change.gflops_ratio < 1
    accuracy = by_interval(-change.high, -change.low)
    return Verdict(
        accuracy if cheaper else "contradicted",
        {
            "AP, mean and 95 %": rounded(change.gain, change.low, change.high, digits=4),
            "operations, median ratio": round(change.gflops_ratio, 2),
            "encoder settings": change.settings,
        },
        "Four windows a side against one, all else equal; the interval is over encoder settings of one"
        " training. Small token grids make no use of windows.",
    )


def c168(kept: "pd.DataFrame | None") -> Verdict:
    """How much of AP the tokens a side explain with layers and queries, and what resolution and patch add."""
    if kept is None:
        return Verdict(KEPT, {}, NOT_HERE)
    law = knobs.law(kept)
    with_tokens = law.set_index("explained by").r_squared
    tokens = float(with_tokens["tokens a side, layers, queries"])
    alone = max(
        float(with_tokens[name]) for name in ("resolution, layers, queries", "patch size, layers, queries")
    )
    word = "consistent" if tokens >= LAW and alone < LAW else "not resolved"
    return Verdict(
        "contradicted" if tokens <= alone else word,
        {str(name): round(float(value), 4) for name, value in with_tokens.items()},
        "Part of the variance of AP over all sub-networks that the knobs named explain. Consistent from"
        f" {LAW} on, if neither resolution nor patch size in place of the tokens reaches it. Scenes are 96"
        " px, so larger inputs show no more detail here.",
    )
