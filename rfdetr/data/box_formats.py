"""Recognises files whose boxes are no x, y, width, height in pixels, but in another format throughout."""

from pathlib import Path

import numpy as np

from rfdetr.errors import UserError

_OVER = 0.05  # a box reaches over the edge by more than this part of the picture's side: no rounding


def check_box_format(path: Path, boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray) -> None:
    """Raise UserError if boxes [N, 4] are relative (0..1), or are corners x1, y1, x2, y2.

    sizes [N, 2]: (height, width) of their pictures. areas [N]: as annotated, NaN where there is none.
    Relative: at least half of the boxes lie in 0..1. Corners: all boxes make sense as corners, while as x, y,
    width, height a quarter of them (half of fewer than eight) reach over the edge, or one where the areas are
    those of corners.
    """
    sound = np.isfinite(boxes).all(axis=1)
    boxes, sizes, areas = boxes[sound], sizes[sound], areas[sound]
    if not len(boxes):
        return
    unit = (np.abs(boxes) <= 1).all(axis=1) & (sizes > 2).all(axis=1)
    if unit.mean() >= 0.5 and (boxes[unit] % 1 != 0).any():
        raise UserError(
            f"{path}: {int(unit.sum())} of {len(boxes)} boxes lie in 0..1, as {_shown(boxes[unit][0])}:"
            " coordinates must be in pixels; multiply x and width by the picture's width, y and height by its"
            " height"
        )
    limit = sizes[:, ::-1].astype(float)
    low, high = boxes[:, :2], boxes[:, 2:]
    corners = (high > low).all(axis=1) & (low >= -1).all(axis=1) & (high <= limit + 1).all(axis=1)
    if corners.mean() < 0.98:
        return
    over = (low + high > limit * (1 + _OVER) + 1).any(axis=1)
    as_size = np.isclose(areas, high.prod(axis=1), rtol=0.01, atol=0.5)
    as_corners = np.isclose(areas, (high - low).prod(axis=1), rtol=0.01, atol=0.5) & ~as_size
    count = int(over.sum())
    if count >= max(2, len(boxes) / (4 if len(boxes) >= 8 else 2)) or (count and as_corners.mean() >= 0.5):
        example = boxes[over][0]
        raise UserError(
            f"{path}: boxes look like corners x1, y1, x2, y2: {count} of {len(boxes)}, as {_shown(example)},"
            " reach over the edge of their picture as x, y, width, height, and all fit as corners; write"
            " bbox as x, y, width, height (width = x2 - x1, height = y2 - y1)"
        )


def _shown(box: np.ndarray) -> str:
    return f"[{', '.join(f'{value:g}' for value in box)}]"
