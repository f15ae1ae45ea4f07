"""Figures of the configurations chapter."""

from typing import Any

import pandas as pd

from rfdetr.plots.style import COLOURS

_GROUPS = {
    "embedding": "embedding",
    "windowed attention": "windowed attention",
    "global attention": "global attention",
    "backbone MLP": "backbone MLP",
    "projector": "projector",
    "masks": "masks",
}


def stage_bars(df: pd.DataFrame) -> Any:
    """Where the GFLOPs of each configuration go: stacked bars of shares. df: configuration, stage, share."""
    import matplotlib.pyplot as plt

    # Every stage behind the projector but the masks is small: one colour.
    grouped = df.assign(part=df.stage.map(_GROUPS).fillna("selection, decoder, heads"))
    wide = grouped.pivot_table(
        index="configuration", columns="part", values="share", aggfunc="sum", sort=False
    )
    order = [*(p for p in _GROUPS.values() if p != "masks"), "selection, decoder, heads", "masks"]
    figure, axes = plt.subplots(figsize=(7.2, 0.32 * len(wide) + 1.2))
    left = pd.Series(0.0, index=wide.index)
    for part, colour in zip(order, COLOURS, strict=True):
        axes.barh(wide.index, wide[part], left=left, color=colour, label=part)
        left += wide[part]
    axes.invert_yaxis()
    axes.set(xlabel="share of GFLOPs, %", xlim=(0, 100))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


def differences(df: pd.DataFrame) -> Any:
    """Counted minus printed GFLOPs in % under three conventions, one row per configuration. df: from
    `count_table`.
    """
    import matplotlib.pyplot as plt

    conventions = {
        "gflops": "as published, attention counted",
        "gflops_no_attention": "as published, attention left out",
        "deployed": "deployed graph, attention counted",
    }
    figure, axes = plt.subplots(figsize=(7.2, 0.3 * len(df) + 1.3))
    for (column, label), marker, colour in zip(conventions.items(), "osD", COLOURS, strict=False):
        axes.scatter(
            100 * (df[column] / df.gflops_printed - 1),
            df.configuration,
            marker=marker,
            color=colour,
            s=28,
            label=label,
        )
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xscale="symlog", xlabel="difference from the printed GFLOPs, %", xlim=(-100, 40))
    axes.set_xticks([-50, -10, -1, 0, 1, 10], ["−50", "−10", "−1", "0", "1", "10"])
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=1, fontsize=9)
    return figure
