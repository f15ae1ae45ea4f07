"""Figure of the search-space chapter: cost per knob (the explorer is `rfdetr.plots.explorer`)."""

from typing import Any

import pandas as pd

from rfdetr.plots.style import COLOURS

_KNOBS = (
    ("nominal", "resolution, px"),
    ("patch_size", "patch size, px"),
    ("windows", "windows a side"),
    ("decoder_layers", "decoder layers"),
    ("queries_nominal", "queries"),
)


def cost_by_knob(df: pd.DataFrame) -> Any:
    """Distribution of GFLOPs (logarithmic) at each value of each knob; whiskers are the 5th and 95th
    percentile.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(7.2, 7.4), sharey=True)
    for box, (column, label), colour in zip(axes.flat, _KNOBS, COLOURS, strict=False):
        values = sorted(df[column].unique())
        drawn = box.boxplot(
            [df.gflops[df[column] == value] for value in values],
            tick_labels=[str(v) for v in values],
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for patch in drawn["boxes"]:
            patch.set(facecolor=colour, alpha=0.55)
        box.set(xlabel=label, yscale="log")
        if len(values) > 8:
            box.tick_params(axis="x", labelrotation=60)
    for row in axes:
        row[0].set_ylabel("GFLOPs")
    axes.flat[-1].axis("off")
    return figure
