"""Figures of the architecture chapter."""

from typing import Any

import numpy as np
import pandas as pd

from rfdetr.arch import Arch
from rfdetr.plots.style import COLOURS

WINDOWED, GLOBAL = COLOURS[0], COLOURS[1]


def windows_on_image(pixels: np.ndarray, arch: Arch) -> Any:
    """The network's input [R, R, 3] in 0..1 with the patch grid (thin) and the window borders (thick)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.6, 4.6))
    axes.imshow(np.clip(pixels, 0, 1), extent=(0, arch.resolution, arch.resolution, 0))
    for position in range(0, arch.resolution + 1, arch.patch_size):
        border = position % (arch.resolution // arch.windows) == 0
        style: dict[str, Any] = {"color": GLOBAL if border else "white", "linewidth": 2.2 if border else 0.35}
        axes.axhline(position, **style)
        axes.axvline(position, **style)
    axes.set(xlabel="pixels", ylabel="pixels", xlim=(-2, arch.resolution + 2), ylim=(arch.resolution + 2, -2))
    axes.grid(visible=False)
    return figure


def masks(windowed: np.ndarray, wide: np.ndarray, blocks: pd.DataFrame, windows: int) -> Any:
    """Both attention masks side by side, above them the kind of every block."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    figure, axes = plt.subplot_mosaic(
        [["strip", "strip"], ["windowed", "global"]], figsize=(7.2, 4.9), height_ratios=[1, 6]
    )
    strip = axes["strip"]
    for position, kind in enumerate(blocks.kind):
        strip.bar(position, 1, width=0.92, color=GLOBAL if kind == "global" else WINDOWED)
        strip.text(position, 0.5, str(position), ha="center", va="center", color="white")
    strip.set(
        xlim=(-0.6, len(blocks) - 0.4), ylim=(0, 1), title="blocks: windowed (blue) and global (orange)"
    )
    strip.axis("off")
    for name, mask, colour in (("windowed", windowed, WINDOWED), ("global", wide, GLOBAL)):
        box = axes[name]
        box.imshow(mask, cmap=ListedColormap(["white", colour]), vmin=0, vmax=1, interpolation="nearest")
        inside = len(mask) // windows**2
        for first in range(0, len(mask), inside):
            # The class token opens its window; one pixel of it would not be seen.
            box.axhline(first, color="black", linewidth=0.7)
            box.axvline(first, color="black", linewidth=0.7)
        box.set(title=f"{name} block", xlabel="token attended to")
        box.grid(visible=False)
    axes["windowed"].set_ylabel("token that attends")
    return figure


def class_tokens(df: pd.DataFrame) -> Any:
    """Distance between the class-token copies of one image, after every block."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.0))
    axes.plot(df.after, df.distance, color="#777777")
    for kind, colour in (("embedding", "black"), ("windowed", WINDOWED), ("global", GLOBAL)):
        part = df[df.kind == kind]
        axes.scatter(part.after, part.distance, color=colour, zorder=3, label=kind)
    axes.set(
        xlabel="blocks passed", ylabel="mean distance / mean length", xticks=df.after, ylim=(-0.05, None)
    )
    axes.legend(ncols=3, loc="lower right")
    return figure
