"""Instance masks in COCO format: polygons and run-length codes, checked before pycocotools sees them.

pycocotools trusts what it is given: a coordinate that is not finite or far away takes all memory or ends the
process, and a run-length code that exceeds the picture raises in the middle of a training.
"""

import math
from typing import Any

import numpy as np

_LONGEST = 7  # characters of one number of a compressed code: 35 bits


def clean_mask(segmentation: Any, height: int, width: int) -> tuple[Any, str]:
    """(mask, flaw) of an annotation's segmentation for a picture of this size.

    mask: polygons or a run-length code that can be decoded, or None. flaw: why there is none, or what was
    dropped of it; "" for a sound mask, and for an annotation that has none.
    """
    if segmentation is None or segmentation in ([], {}, ""):
        return None, ""
    if isinstance(segmentation, list):
        return _clean_polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _clean_code(segmentation, height, width)
    return None, "it is neither a list of polygons nor a run-length code"


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Bool mask [height, width] of polygons or a run-length code (compressed or not), as `clean_mask` gives
    them.
    """
    from pycocotools import mask as rle

    if isinstance(segmentation, list):
        code = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = rle.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    return rle.decode(code).astype(bool)


def box_polygon(box: list[float]) -> list[list[float]]:
    """The polygon of a box xywh."""
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _clean_polygons(parts: list[Any], height: int, width: int) -> tuple[Any, str]:
    kept = []
    for part in parts:
        if not isinstance(part, list):
            return None, "it is no list of polygons [[x1, y1, x2, y2, ...], ...]"
        if len(part) < 6:
            continue
        if len(part) % 2:
            return None, f"a polygon has {len(part)} numbers, which are no pairs"
        try:
            finite = all(map(math.isfinite, part))
        except (TypeError, OverflowError):
            return None, "a polygon holds something that is no number"
        if not finite:
            return None, "a polygon has a coordinate that is not finite"
        xs, ys = part[0::2], part[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        # pycocotools walks along every edge pixel by pixel, inside the picture or not.
        if left < -width or right > 2 * width or top < -height or bottom > 2 * height:
            return None, f"a polygon reaches far outside its picture of {width}x{height}"
        if left < min(right, width) and right > 0 and top < min(bottom, height) and bottom > 0:
            kept.append(part)
    if not kept:
        return None, "no part of it has three points and an area in the picture"
    if len(kept) < len(parts):
        return kept, f"{len(parts) - len(kept)} of {len(parts)} parts"
    return kept, ""


def _clean_code(code: dict[str, Any], height: int, width: int) -> tuple[Any, str]:
    if code.get("size") != [height, width]:
        return None, f"its run-length code is of size {str(code.get('size'))[:40]}, not {[height, width]}"
    counts = code.get("counts")
    if isinstance(counts, list):
        runs = _plain_runs(counts)
        counts = None if runs is None else runs.tolist()
    else:
        runs = _decoded_runs(counts) if isinstance(counts, str) else None
    if runs is None or (runs < 0).any():
        return None, "its run-length code is garbled"
    total = int(runs.sum())
    if total != height * width:
        return None, f"its run-length code has {total} pixels, the picture {height * width}"
    if not runs[1::2].any():
        return None, "its run-length code has no pixel of an object"
    return {"size": [height, width], "counts": counts}, ""


def _plain_runs(counts: list[Any]) -> np.ndarray | None:
    if not all(isinstance(run, int | float) and 0 <= run < 2**31 and run == int(run) for run in counts):
        return None
    return np.array(counts, dtype=np.int64)


def _decoded_runs(text: str) -> np.ndarray | None:
    """Runs of a compressed code: 5 bits a character; later ones are relative to the last but one."""
    if not text or not text.isascii():
        return None
    values = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if values.min() < 0 or values.max() > 63 or values[-1] & 32:
        return None
    ends = np.flatnonzero(values & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        return None
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((values & 31) << (5 * place), starts)
    runs -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)  # the sign
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
