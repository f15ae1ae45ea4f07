"""Chapter B: verdicts on dropping queries and decoder layers, in miniature; intervals over test images, one
training.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.experiments.base.words import layers_in_words
from rfdetr.paper.verdicts import Verdict, by_interval, records, rounded

if TYPE_CHECKING:
    import pandas as pd

HARDLY = 0.01
"""One point of AP: what counts as hardly a change (the claim gives none)."""
HALF = 0.5
T4 = "needs an NVIDIA T4 with TensorRT"
MUCH = 0.1
"""Part of the operations from which a saving counts as much."""


def c038(depths: "pd.DataFrame") -> Verdict:
    """Every depth keeps at least half of the full AP, beyond its interval.

    depths: from `ch_b_query_drop.depth_table`.
    """
    full = float(depths.sort_values("decoder_layers").AP.iloc[-1])
    low, high = float(depths.low.min()), float(depths.high.min())
    return Verdict(
        by_interval(low, high, HALF * full) if full > 0 else "not resolved",
        {f"{layers_in_words(int(r['decoder_layers']))}, AP and 95 %": rounded(r["AP"], r["low"], r["high"])
         for r in records(depths)},
        "All decoder layers dropped one after the other, without training. Consistent if every depth keeps"
        " half of the full AP.",
    )  # fmt: skip


def c126(queries: "pd.DataFrame") -> Verdict:
    """A third fewer queries, at every depth. queries: from `ch_b_query_drop.fewer_queries`."""
    saved = 1 - queries.gflops_ratio
    word = by_interval(float(queries.low.min()), float(queries.high.min()), -HARDLY)
    return Verdict(
        word if (saved > 0).all() else "contradicted",
        {f"{layers_in_words(int(r['decoder_layers']))}, change and 95 %":
         rounded(r["change"], r["low"], r["high"]) for r in records(queries)}
        | {"operations saved, %": [round(100 * float(s), 1) for s in saved]},
        "Two thirds of the queries, as 200 of 300. Consistent if every interval lies above one point of AP"
        " lost. Operations in place of latency.",
    )  # fmt: skip


def c127(last_layer: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The last layer's AP against the printed loss. last_layer: from `ch_b_query_drop.fewer_layers`."""
    row = last_layer[last_layer.dropped == 1].iloc[0]
    printed = values["map_drop"] / 100
    low, high = -float(row.high), -float(row.low)
    within = low >= printed / 2 and high <= 2 * printed
    outside = high < printed / 2 or low > 2 * printed
    return Verdict(
        "consistent" if within else "contradicted" if outside else "not resolved",
        {
            "AP lost, and 95 %": rounded(-row.change, low, high),
            "operations saved, %": round(100 * (1 - float(row.gflops_ratio)), 1),
            "printed: mAP lost, latency saved %": [values["map_drop"], values["latency_percent"]],
        },
        "Consistent if the whole interval lies between half and twice the printed loss. The latency saved"
        " needs a T4.",
    )


def c128(last_layer: "pd.DataFrame") -> Verdict:
    """Without any layer: proposals that still detect, for clearly fewer operations."""
    row = last_layer.sort_values("dropped").iloc[-1]
    saved = 1 - float(row.gflops_ratio)
    detects = float(row.AP) > 0
    return Verdict(
        "consistent" if saved >= MUCH and detects else T4 if detects else "contradicted",
        {"operations saved, %": round(100 * saved, 1), "AP": round(float(row.AP), 3)},
        "“Much” is taken as a tenth. In this miniature, as in nano, the decoder is a smaller part of the"
        " operations; its part of the time has to be measured.",
    )
