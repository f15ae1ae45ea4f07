"""Figures of the chapter on flexible patch sizes and positions."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rfdetr.plots.style import COLOURS

_FLOOR = 1e-3
"""Smallest error that is drawn; what is exact is smaller by many powers of ten."""


def error_by_size(df: pd.DataFrame, base: int) -> Any:
    """Relative error of the embedding against the patch size, one line per method, on photographs and on
    noise. Errors at the level of rounding lie on the lower edge.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.8), sharey=True)
    part = df[df.kernels == "photographs"]
    methods = list(dict.fromkeys(part.method))
    for box, content in zip(axes, ("photographs", "noise"), strict=True):
        for colour, method in zip(COLOURS, methods, strict=False):
            line = part[(part.content == content) & (part.method == method)].set_index("size", drop=False)
            if line.empty:
                continue
            # At the stored size nothing is resized; the gap keeps the line from dropping to zero there.
            line = line.assign(error=line.error.where(line["size"] != base))
            box.plot(
                line["size"],
                line.error.clip(lower=_FLOOR),
                marker="o",
                markersize=4,
                color=colour,
                label=method,
            )
        box.axvline(base, color="#999999", linewidth=1, linestyle=":")
        box.set(yscale="log", xlabel="patch size, px", title=f"patches of {content}", ylim=(_FLOOR, 20))
    axes[0].set_ylabel("relative error of the embedding")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def kernels(examples: Mapping[str, Mapping[int, Any]]) -> Any:
    """One kernel at several sizes (columns) by several methods (rows); one colour scale per image."""
    import matplotlib.pyplot as plt

    sizes = list(next(iter(examples.values())))
    figure, axes = plt.subplots(len(examples), len(sizes), figsize=(7.2, 1.75 * len(examples)), squeeze=False)
    for row, (method, by_size) in zip(axes, examples.items(), strict=True):
        for box, (size, kernel) in zip(row, by_size.items(), strict=True):
            limit = float(abs(kernel).max())
            box.imshow(kernel.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
            box.set(xticks=[], yticks=[])
            box.set_title(f"{size} px, sum of |w| {float(abs(kernel).sum()):.1f}", fontsize=8)
            box.grid(visible=False)
        row[0].set_ylabel(method)
    return figure


def positions(examples: Mapping[int, Any]) -> Any:
    """One channel of the position grid: as stored, and interpolated to smaller grids."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(examples), figsize=(7.2, 2.2))
    for box, (side, values) in zip(axes, examples.items(), strict=True):
        box.imshow(values.numpy(), cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        box.set(xticks=[], yticks=[])
        box.set_title(f"{side} × {side}", fontsize=10)
        box.grid(visible=False)
    return figure
