"""Single annotations in COCO format: reading the file, cleaning a box, decoding a mask."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

_TOLERANCE = 1.0  # px; a box over the edge by less is rounding, not a flaw


def clean_box(
    entry: dict[str, Any], label: str, height: int, width: int, report: DataReport
) -> list[float] | None:
    """Box xywh in pixels of an annotation, clipped to its image; None, and a line in the report, if there is
    none.

    height, width: of the image, 0 if not known (the picture is damaged): then nothing is clipped.
    """
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        report.add("annotation without a box of four numbers (left out)", label)
        return None
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        report.add("box without area (left out)", f"{label}: {entry['bbox']}")
        return None
    if not height or not width:
        return [x, y, w, h]
    left, top, right, bottom = (
        max(x, 0.0),
        max(y, 0.0),
        min(x + w, float(width)),
        min(y + h, float(height)),
    )
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    if right <= left or bottom <= top:
        report.add("box wholly outside its image (left out)", f"{label}: {entry['bbox']} of {width}x{height}")
        return None
    if over <= _TOLERANCE:
        return [x, y, w, h]
    report.add("box partly outside its image (clipped)", f"{label}: {entry['bbox']} of {width}x{height}")
    return [left, top, right - left, bottom - top]


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Bool mask [height, width] of COCO polygons or a run-length code (compressed or not)."""
    from pycocotools import mask as rle

    if isinstance(segmentation, list):
        code = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = rle.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    return rle.decode(code).astype(bool)


def usable_mask(segmentation: Any, height: int, width: int) -> bool:
    """True for polygons of at least three points, or a run-length code of the image's size."""
    if isinstance(segmentation, list):
        return bool(segmentation) and all(
            isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation
        )
    return (
        isinstance(segmentation, dict)
        and "counts" in segmentation
        and list(segmentation.get("size", ())) == [height, width]
    )


def read_annotations(path: Path) -> dict[str, Any]:
    """Content of a COCO-format JSON file. Raises UserError naming the file when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"annotation file {path} does not exist: check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"annotation file {path} is not readable JSON ({error}): export the dataset again"
        ) from error
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(content, dict) or key not in content
    ]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)}: it is not a COCO-format detection file; export it as COCO"
            " JSON"
        )
    return content
