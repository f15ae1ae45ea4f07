"""The architecture as a drawing: from the image to boxes and masks, with the five knobs where they act."""

from typing import Any

from rfdetr.arch import Arch
from rfdetr.plots.style import COLOURS

_FLOW, _KNOB, _TEXT = COLOURS[0], COLOURS[1], "#222222"


def architecture(arch: Arch, depth: int = 12, feature_layers: tuple[int, ...] = (3, 6, 9, 12)) -> Any:
    """Figure 2 of the paper redrawn for one architecture; knobs in orange.

    depth, feature_layers   of the backbone: global blocks are drawn dark
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 5.2))
    axis.set(xlim=(0, 100), ylim=(0, 72))
    axis.axis("off")
    _image(axis, arch)
    _backbone(axis, arch, depth, feature_layers)
    _box(axis, (70, 49), (26, 15), f"projector\none map, {arch.grid} × {arch.grid} × 256")
    _box(
        axis,
        (70, 26),
        (26, 15),
        f"selection\nscore all {arch.tokens:,} tokens,\nkeep the best {arch.queries}",
    )
    _knob(axis, (83, 23.3), f"queries = {arch.queries}")
    _decoder(axis, arch)
    _box(axis, (4, 5), (24, 13), "heads\nclass scores and boxes\n(masks: query · pixel)")
    for start, end in (
        ((27, 52), (32, 52)),
        ((83, 49), (83, 41)),
        ((69.5, 29), (61, 20.5)),
        ((34, 12), (28, 12)),
    ):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": _TEXT})
    axis.annotate(
        "",
        (55, 21.2),
        (69.5, 51),
        arrowprops={"arrowstyle": "->", "color": "#888888", "linestyle": "--"},
    )
    axis.text(
        62.6, 32.5, "the map is sampled", fontsize=7, color="#777777", rotation=63, ha="center", va="center"
    )
    return figure


def _image(axis: Any, arch: Arch) -> None:
    """The input square with patches and windows."""
    left, bottom, side = 4.0, 40.0, 23.0
    shown = arch.windows * max(1, 8 // arch.windows)
    for i in range(shown + 1):
        border = i % (shown // arch.windows) == 0
        style = {"color": _FLOW, "linewidth": 1.8 if border else 0.5}
        at = side * i / shown
        axis.plot([left, left + side], [bottom + at, bottom + at], **style)
        axis.plot([left + at, left + at], [bottom, bottom + side], **style)
    axis.text(left, 65.5, "image, resized to a square", fontsize=8, color=_TEXT)
    _knob(axis, (left + side / 2, 37.2), f"resolution = {arch.resolution} px")
    _knob(axis, (left + side / 2, 33.4), f"patch size = {arch.patch_size} px")
    _knob(axis, (left + side / 2, 29.6), f"windows = {arch.windows} × {arch.windows}")
    axis.text(
        left + side / 2, 25.8, f"{arch.grid} × {arch.grid} = {arch.tokens:,} tokens", fontsize=8, ha="center"
    )


def _backbone(axis: Any, arch: Arch, depth: int, feature_layers: tuple[int, ...]) -> None:
    """The blocks of the ViT, global ones dark, with the maps that leave it."""
    from matplotlib.patches import Rectangle

    left, bottom, width = 33.0, 43.0, 32.0 / depth
    for block in range(depth):
        wide = block in feature_layers
        axis.add_patch(
            Rectangle(
                (left + block * width, bottom), 0.82 * width, 18, facecolor=_FLOW, alpha=0.9 if wide else 0.3
            )
        )
        if block + 1 in feature_layers:
            axis.plot(
                [left + (block + 0.41) * width] * 2, [bottom + 18, bottom + 20.5], color=_TEXT, linewidth=0.9
            )
    axis.plot([left + (feature_layers[0] - 0.6) * width, 68], [63.5, 63.5], color=_TEXT, linewidth=0.9)
    axis.plot([68, 68], [63.5, 60], color=_TEXT, linewidth=0.9)
    axis.annotate("", (70, 60), (68, 60), arrowprops={"arrowstyle": "->", "color": _TEXT})
    axis.text(left, 65.5, f"vision transformer (DINOv2), {depth} blocks", fontsize=8, color=_TEXT)
    axis.text(left, 39.8, "pale: attention inside each window", fontsize=7, color=_TEXT)
    axis.text(left, 37.2, "dark: attention over the whole image", fontsize=7, color=_TEXT)


def _decoder(axis: Any, arch: Arch) -> None:
    """The decoder's layers with what each of them does."""
    from matplotlib.patches import FancyBboxPatch

    count = max(1, arch.decoder_layers)
    for layer in range(count):
        shift = 1.6 * (count - 1 - layer)
        axis.add_patch(
            FancyBboxPatch(
                (34 + shift, 6 + shift),
                24,
                13,
                boxstyle="round,pad=0.3",
                facecolor="white",
                edgecolor=_FLOW,
                linestyle="-" if arch.decoder_layers else ":",
            )
        )
    text = "decoder layer\nqueries attend to each other,\nthen to a few points of the map"
    axis.text(46, 12.5, text, fontsize=7.5, ha="center", va="center", color=_TEXT)
    _knob(axis, (46, 2.6), f"decoder layers = {arch.decoder_layers}")


def _box(axis: Any, corner: tuple[float, float], size: tuple[float, float], text: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0.3", facecolor="white", edgecolor=_FLOW)
    )
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    axis.text(*middle, text, fontsize=8, ha="center", va="center", color=_TEXT)


def _knob(axis: Any, place: tuple[float, float], text: str) -> None:
    axis.text(*place, text, fontsize=8, ha="center", va="center", color=_KNOB, weight="bold")
