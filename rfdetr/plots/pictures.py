"""Pictures of data and predictions: scenes with boxes and masks, one image through several networks."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rfdetr.data.dataset import DetectionDataset, Target
    from rfdetr.model.detections import Detections

_TRUE, _FOUND, _FALSE = COLOURS[2], COLOURS[0], COLOURS[1]
_IOU = 0.5  # from which a detection has found an object


def scenes(dataset: "DetectionDataset", indexes: Iterable[int], columns: int = 4) -> "Figure":
    """Images of a data set with the boxes, class names and outlines of the masks of their objects."""
    import matplotlib.pyplot as plt

    chosen = list(indexes)
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7.2, 1.85 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, chosen, strict=False):
        pixels, target = dataset[index]
        axis.imshow(pixels, interpolation="nearest")
        _objects(axis, pixels, target, dataset.class_names)
    return figure


def side_by_side(
    pixels: np.ndarray,
    target: "Target",
    names: tuple[str, ...],
    found: "Mapping[str, Detections]",
    columns: int = 4,
    misses: bool = False,
) -> "Figure":
    """One image [H, W, 3] with its objects, and beside it what several networks detect in it.

    found   label -> detections, already filtered by score. A detection whose class and place (IoU 0.5) are
            those of an object not yet found is drawn blue, any other one orange; with masks, where both have
            them, the place is that of the mask, which is drawn as well
    misses  draw the objects that were not found as dashed boxes, too
    """
    import matplotlib.pyplot as plt

    panels = len(found) + 1
    rows = -(-panels // columns)
    figure, axes = plt.subplots(rows, min(columns, panels), figsize=(7.2, 2.15 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    first, *rest = axes.flat
    first.imshow(pixels, interpolation="nearest")
    first.set_title("objects", fontsize=8)
    _objects(first, pixels, target, names)
    for axis, (label, detections) in zip(rest, found.items(), strict=False):
        axis.set_title(label, fontsize=8)
        draw_found(axis, pixels, target, detections, misses)
    return figure


def draw_found(
    axis: Any, pixels: np.ndarray, target: "Target", detections: "Detections", misses: bool = False
) -> None:
    """One image with its detections on an axis, right ones blue, others orange (see `side_by_side`)."""
    axis.imshow(pixels, interpolation="nearest")
    axis.axis("off")
    corners = _corners(target, pixels)
    truth = None if target.masks is None else target.masks.numpy()
    pairs = _pairs(detections, corners, target.labels.numpy(), _IOU, truth)
    for mask, pair in zip(() if detections.masks is None else detections.masks, pairs, strict=False):
        _area(axis, mask, _FALSE if pair is None else _FOUND)
    for box, name, score, pair in zip(
        detections.boxes, detections.names, detections.scores, pairs, strict=True
    ):
        _box(axis, box, f"{name} {score:.2f}", _FALSE if pair is None else _FOUND)
    for index in sorted(set(range(len(corners))) - set(pairs)) if misses else ():
        _frame(axis, corners[index], _TRUE, dashed=True)


def matched(detections: "Detections", boxes: np.ndarray, labels: np.ndarray, iou: float = 0.5) -> list[bool]:
    """Whether each detection finds an object of its class that no better one has found, as AP counts it.

    boxes [M, 4] xyxy px and labels [M] of the objects. In the order of the detections, best first.
    """
    return [pair is not None for pair in _pairs(detections, boxes, labels, iou)]


def _pairs(
    detections: "Detections",
    boxes: np.ndarray,
    labels: np.ndarray,
    iou: float,
    masks: np.ndarray | None = None,
) -> "list[int | None]":
    """Index of the object that each detection finds, or None: by masks [M, H, W] where both have them."""
    import torch

    from rfdetr.training.boxes import overlaps

    def centred(corners: np.ndarray) -> torch.Tensor:
        low, high = torch.from_numpy(np.asarray(corners, dtype=np.float64)).split(2, dim=-1)
        return torch.cat([(low + high) / 2, high - low], dim=-1)

    if masks is not None and detections.masks is not None:
        shared = _mask_overlaps(detections.masks, masks)
    else:
        shared = overlaps(centred(detections.boxes)[:, None], centred(boxes)[None])[0].numpy()
    taken: set[int] = set()
    pairs: list[int | None] = [None] * len(detections)
    for index in np.argsort(-detections.scores, kind="stable"):
        free = [k for k in range(len(boxes)) if labels[k] == detections.labels[index] and k not in taken]
        if not free:
            continue
        best = max(free, key=lambda k: shared[index, k])
        if shared[index, best] >= iou:
            taken.add(best)
            pairs[index] = best
    return pairs


def _mask_overlaps(found: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """IoU of bool masks [N, H, W] and [M, H, W]: [N, M]."""
    # No mask has no pixels either, so their number cannot be left to NumPy.
    size = int(np.prod(masks.shape[1:]))
    one, other = (each.reshape(len(each), size).astype(np.float64) for each in (found, masks))
    shared = one @ other.T
    return shared / np.maximum(one.sum(1)[:, None] + other.sum(1)[None] - shared, 1)


def _corners(target: "Target", pixels: np.ndarray) -> np.ndarray:
    """Boxes of a target as [M, 4] xyxy px."""
    height, width = pixels.shape[:2]
    centre = target.boxes.numpy() * np.array([width, height, width, height])
    return np.concatenate([centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2], axis=1)


def _objects(axis: Any, pixels: np.ndarray, target: "Target", names: tuple[str, ...]) -> None:
    if target.masks is not None:
        for mask in target.masks.numpy():
            axis.contour(mask, levels=[0.5], colors=[_FALSE], linewidths=0.7)
    for box, label in zip(_corners(target, pixels), target.labels.tolist(), strict=True):
        _box(axis, box, names[label], _TRUE)


def _area(axis: Any, mask: np.ndarray, colour: str) -> None:
    """A mask [H, W] as a translucent area with its outline."""
    from matplotlib.colors import to_rgb

    if mask.any():
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = (*to_rgb(colour), 0.35)
        axis.imshow(layer, interpolation="nearest")
        axis.contour(mask, levels=[0.5], colors=[colour], linewidths=1.0)


def _frame(axis: Any, box: np.ndarray, colour: str, dashed: bool = False) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = (float(v) for v in box)
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2)
    frame.set_linestyle("--" if dashed else "-")
    axis.add_patch(frame)


def _box(axis: Any, box: np.ndarray, text: str, colour: str) -> None:
    _frame(axis, box, colour)
    left, top = float(box[0]), float(box[1])
    place = {"boxstyle": "square,pad=0.1", "facecolor": colour, "edgecolor": "none"}
    axis.text(left, top, text, fontsize=5.5, color="white", va="bottom", bbox=place, clip_on=True)
