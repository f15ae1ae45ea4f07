"""Figures of the introduction: matching, detections in order of their score, precision over recall."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_TRUE, _GOOD, _BAD = COLOURS[2], COLOURS[0], COLOURS[1]
_COLUMNS = ("rank", "query", "hit", "recall", "precision")


def matching(answer: Any, pairs: "pd.DataFrame") -> "Figure":
    """Left the picture with objects and queries, right the cost of each pair with the assignment framed.

    answer, pairs   of `rfdetr.experiments.ch00_introduction`
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.7), width_ratios=(1, 1.05))
    matched = set(pairs.loc[pairs.matched, "query"])
    _picture(left, answer)
    for number, box in enumerate(answer.target.boxes.numpy()):
        _box(left, answer, box, _TRUE, chr(ord("A") + number), linewidth=2.2, at=(1, 1))
    for query, box in enumerate(answer.boxes.numpy()):
        good = query in matched
        _box(left, answer, box, _GOOD if good else _BAD, str(query), at=_place(good))
    costs = pairs.pivot(index="query", columns="object", values="cost")
    right.imshow(costs.to_numpy(), cmap="Greys", aspect="auto")
    right.set(xlabel="object", ylabel="query", yticks=range(len(costs)))
    right.set_xticks(range(costs.shape[1]), [chr(ord("A") + k) for k in range(costs.shape[1])])
    right.grid(visible=False)
    middle = float(costs.to_numpy().mean())
    for (query, place), cost in np.ndenumerate(costs.to_numpy()):
        colour = "white" if cost > middle else "#222222"
        right.text(place, query, f"{cost:.1f}", ha="center", va="center", fontsize=7, color=colour)
    chosen = pairs[pairs.matched]
    for query, place in zip(chosen["query"].tolist(), chosen["object"].tolist(), strict=True):
        corner = (place - 0.5, query - 0.5)
        right.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=_GOOD, linewidth=2.2))
    return figure


def detections(answer: Any, ranked: "pd.DataFrame") -> "Figure":
    """The picture with its detections numbered by rank, and precision over recall down the list.

    answer, ranked   of `rfdetr.experiments.ch00_introduction`
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5), width_ratios=(1, 1.15))
    _picture(left, answer)
    for box in answer.target.boxes.numpy():
        _box(left, answer, box, _TRUE, "", linewidth=2.2)
    rows = list(zip(*(ranked[name].tolist() for name in _COLUMNS), strict=True))
    for rank, query, hit, _, _ in rows:
        box, colour = answer.boxes[query].numpy(), _GOOD if hit else _BAD
        _box(left, answer, box, colour, str(rank), at=_place(hit))
    best = np.maximum.accumulate(ranked.precision.to_numpy()[::-1])[::-1]
    recall = ranked.recall.to_numpy()
    right.fill_between(np.r_[0, recall], np.r_[best[0], best], step="pre", color=_GOOD, alpha=0.15)
    right.step(np.r_[0, recall], np.r_[best[0], best], where="pre", color=_GOOD, label="best from here on")
    right.plot(recall, ranked.precision, color="#777777", linewidth=0.8, linestyle="--")
    for hit, colour, words in ((True, _GOOD, "hit"), (False, _BAD, "false alarm")):
        some = ranked[ranked.hit == hit]
        right.scatter(some.recall, some.precision, color=colour, label=words, zorder=3)
    for rank, _, _, x, y in rows:
        right.annotate(str(rank), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    right.set(xlabel="recall", ylabel="precision", xlim=(0, 1.04), ylim=(0, 1.08))
    right.legend(loc="lower left", fontsize=8)
    return figure


def _place(good: bool) -> tuple[int, int]:
    """Corner of a label: doubles have another one, since their boxes lie on those of hits."""
    return (-1, -1) if good else (1, -1)


def _picture(axis: Any, answer: Any) -> None:
    axis.imshow(answer.pixels, interpolation="nearest")
    axis.axis("off")


def _box(
    axis: Any,
    answer: Any,
    box: np.ndarray,
    colour: str,
    text: str,
    linewidth: float = 1.1,
    at: tuple[int, int] = (-1, -1),
) -> None:
    """A box cxcywh in 0..1 with a label inside one of its corners: (-1, -1) is the upper left one."""
    from matplotlib.patches import Rectangle

    height, width = answer.pixels.shape[:2]
    x, y, w, h = box * np.array([width, height, width, height])
    axis.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, fill=False, edgecolor=colour, linewidth=linewidth))
    if not text:
        return
    place = {"boxstyle": "square,pad=0.12", "facecolor": colour, "edgecolor": "none"}
    corner, align = (x + at[0] * w / 2, y + at[1] * h / 2), "left" if at[0] < 0 else "right"
    axis.text(*corner, text, fontsize=7, color="white", va="center", ha=align, bbox=place)
