"""Figures of a search on one dataset: the front, curves, confusion, and pictures with hits and misses
drawn.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.evaluation.outcomes import Outcome
from rfdetr.plots.scatter import STAR, STEP, Axis, Layer, Scatter
from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

HIT, MISS, FALSE = (0, 158, 115), (213, 94, 0), (240, 200, 0)
"""Colours of detections that are right, of objects that were missed, and of false alarms."""
_NARROW = (5.2, 6.0)
"""Inches of figures whose panels stand below each other, so that a phone shows them at a readable size."""
COVER = 0.45
"""Opacity of a mask."""


def front(table: "pd.DataFrame", metric: str, chosen: Sequence[dict[str, Any]]) -> Scatter:
    """Scatter of all sub-networks over latency, the front as a line of steps, the chosen ones as stars.

    table: of `Findings.table`.
    """

    def layer(label: str, rows: "pd.DataFrame", **options: Any) -> Layer:
        about = {"": rows["arch"].astype(str).tolist()} | options.pop("about", {})
        return Layer(label, rows["ms"].tolist(), rows[metric].tolist(), about=about, **options)

    targets = {entry["arch"]: "; ".join(entry["targets"]) for entry in chosen}
    marked = table[table["arch"].isin(list(targets))]
    side = {"values": table["side"].tolist(), "values_label": "tokens a side"}
    for_what = {"chosen for": [targets[arch] for arch in marked["arch"]]}
    layers = [
        layer("sub-networks", table, **side),
        layer("front", table[table["front"]], colour=COLOURS[1], shape=STEP),
        layer("chosen", marked, colour=COLOURS[1], shape=STAR, about=for_what),
    ]
    label = metric.replace("_", " ")
    return Scatter(layers, Axis("latency, ms", "ms", log=True), Axis(f"{label} on validation"))


def curves(losses: "pd.DataFrame", evaluations: "pd.DataFrame", metric: str) -> Any:
    """Losses of the supernet (above) and, where there are some, AP on validation, over the steps."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(2, 1, figsize=_NARROW)
    for name in [c for c in losses.columns if c not in ("step", "total")]:
        left.plot(losses["step"], losses[name], label=name.removeprefix("loss_"))
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend(fontsize=8)
    if len(evaluations) and metric in evaluations:
        for arch, part in evaluations.groupby("arch", sort=False):
            right.plot(part["step"], part[metric], marker="o", markersize=3, label=str(arch))
        right.legend(fontsize=7)
    right.set(xlabel="step", ylabel=f"{metric.replace('_', ' ')} on validation", ylim=(0, None))
    return figure


def knobs(means: "pd.DataFrame", names: Mapping[str, str], metric: str) -> Any:
    """Mean accuracy (left, dots) and latency (right, crosses) by the values of each knob, one panel a knob.

    means: of `Findings.knob_means`; names: knob -> its axis' label.
    """
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(3, 2, figsize=_NARROW)
    highest = 1.08 * means["metric"].max() or 1.0
    for axes, (knob, label) in zip(panels.flat, names.items(), strict=True):
        rows = means[means["knob"] == knob]
        axes.plot(rows["value"], rows["metric"], marker="o", markersize=4, color=COLOURS[0])
        axes.set(xlabel=label, ylim=(0, highest))
        other = axes.twinx()
        other.plot(rows["value"], rows["ms"], marker="x", markersize=4, color=COLOURS[1], linestyle=":")
        other.set(ylim=(0, 1.08 * means["ms"].max()))
        other.grid(False)
        other.spines["right"].set_visible(True)
        if len(rows) <= 6:
            axes.set_xticks(rows["value"])
        axes.tick_params(labelsize=8)
        other.tick_params(labelsize=8)
        if axes in panels[:, 0]:
            axes.set_ylabel(f"mean {metric.replace('_', ' ')} (dots)", color=COLOURS[0], fontsize=9)
        if axes in panels[:, -1]:
            other.set_ylabel("mean ms (crosses)", color=COLOURS[1], fontsize=9)
    return figure


def precision_recall(table: "pd.DataFrame") -> Any:
    """Precision over recall at an overlap of 0.5, one line per class (the twelve with most area)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 3.6))
    area = table.groupby("class")["precision"].mean().sort_values(ascending=False).index[:12]
    for name in area:
        part = table[table["class"] == name]
        axes.plot(part["recall"], part["precision"], label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if len(area):
        axes.legend(fontsize=8)
    return figure


def confusion(table: "pd.DataFrame") -> Any:
    """Confusion matrix, rows as shares of the true class, counts written in."""
    import matplotlib.pyplot as plt

    counts = table.to_numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(7.2, 2.0 + 0.45 * len(table))
    figure, axes = plt.subplots(figsize=(side, side * 0.85))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    axes.set_xticks(range(len(table)), table.columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(table)), table.index, fontsize=8)
    axes.set(xlabel="detected", ylabel="true")
    if len(table) <= 16:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    j,
                    i,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if shares[i, j] > 0.5 else "black",
                )
    return figure


def drawn(
    image: np.ndarray,
    one: Outcome,
    names: Sequence[str],
    title: str = "",
    side: int = 460,
    masks: Sequence[np.ndarray] = (),
) -> "Image.Image":
    """One picture with its outcome: hits, missed objects (dashed), false alarms; at most `side` px wide.

    image: uint8 [H, W, 3]; one: of that picture. masks: bool [H, W] of its detections, in their colours.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = side / image.shape[1]
    if len(masks):
        image = image.copy()
        for mask, hit in zip(masks, one.hits, strict=True):
            colour = np.array(HIT if hit else FALSE)
            image[mask] = (COVER * colour + (1 - COVER) * image[mask]).astype(np.uint8)
    picture = Image.fromarray(image).resize((side, max(1, round(image.shape[0] * scale))))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=11)
    for box in one.truth[one.missed] * scale:
        _dashed(draw, box, MISS)
    for box, score, label, hit in zip(one.boxes * scale, one.scores, one.labels, one.hits, strict=True):
        draw.rectangle(tuple(box), outline=HIT if hit else FALSE, width=2)
        if len(one.boxes) <= 25:
            draw.text(
                (box[0] + 2, box[1] + 1), f"{names[label]} {score:.2f}", fill=HIT if hit else FALSE, font=font
            )
    if title:
        room = draw.textbbox((4, 3), title, font=font)
        draw.rectangle((0, 0, room[2] + 4, room[3] + 3), fill=(0, 0, 0))
        draw.text((4, 3), title, fill=(255, 255, 255), font=font)
    return picture


def _dashed(draw: Any, box: np.ndarray, colour: tuple[int, int, int], dash: int = 5) -> None:
    left, top, right, bottom = map(float, box)
    for start in np.arange(left, right, 2 * dash):
        end = min(start + dash, right)
        draw.line((start, top, end, top), fill=colour, width=2)
        draw.line((start, bottom, end, bottom), fill=colour, width=2)
    for start in np.arange(top, bottom, 2 * dash):
        end = min(start + dash, bottom)
        draw.line((left, start, left, end), fill=colour, width=2)
        draw.line((right, start, right, end), fill=colour, width=2)
