"""COCO's twelve numbers for many sub-networks at once, equal to pycocotools' on every number.

pycocotools walks images, classes, area ranges, IoU thresholds and detections in Python. Here all (area,
threshold) pairs are the bits of one 64-bit word, so one pass of greedy matching serves all 40 of them, and
all detections with the same rank inside their (image, class) group, of all sub-networks, are matched
together. Only pairs with IoU >= 0.5 take part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.search.matches import AREAS, THRESHOLDS, Matches, Objects, numbers

_MAX_DETECTIONS = 100
_T, _A = len(THRESHOLDS), len(AREAS)
_ALL = np.uint64((1 << _T) - 1)  # all thresholds of the first area range
_SHIFTS = np.arange(_A, dtype=np.uint64) * np.uint64(_T)
_EVERY = np.uint64(sum((1 << _T) - 1 << a * _T for a in range(_A)))
# Bits of the first n thresholds, in every area range.
_UP_TO = np.array([sum(((1 << n) - 1) << a * _T for a in range(_A)) for n in range(_T + 1)], dtype=np.uint64)
_PIECE = 400_000  # detections matched at once, to bound memory


class GroundTruth:
    """Objects of a dataset in the order that pycocotools gives them.

    coco       COCO-format dict; every annotation needs image_id, category_id and bbox in px (area: default
               that of the bbox; iscrowd: default 0). Its id is not used, so that id 0 is nothing special,
               unlike in pycocotools
    images     image ids, ascending; classes: category ids, ascending
    Objects are stored group after group, a group being one (image, class): index = image position * K + class
    position. `source[i]` is the position in coco["annotations"] of object i.
    """

    def __init__(self, coco: Mapping[str, Any]) -> None:
        self.images = np.unique([image["id"] for image in coco["images"]]).astype(np.int64)
        self.classes = np.unique([category["id"] for category in coco["categories"]]).astype(np.int64)
        if not len(self.images) or not len(self.classes):
            raise UserError("the ground truth has no images or no categories: nothing can be evaluated on it")
        known = set(self.images.tolist())
        listed = [
            (i, a)
            for i, a in enumerate(coco["annotations"])
            if a["image_id"] in known and a["category_id"] in set(self.classes.tolist())
        ]
        image = np.searchsorted(self.images, [a["image_id"] for _, a in listed]).astype(np.int64)
        label = np.searchsorted(self.classes, [a["category_id"] for _, a in listed]).astype(np.int64)
        group = image * len(self.classes) + label
        order = np.argsort(group, kind="stable")
        kept = [listed[i] for i in order]
        self.source = np.array([i for i, _ in kept], dtype=np.int64)
        self.image, self.label = image[order], label[order]
        self.first = np.searchsorted(group[order], np.arange(len(self.images) * len(self.classes) + 1))
        self.boxes = np.array([a["bbox"] for _, a in kept], dtype=np.float64).reshape(-1, 4)
        area = np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for _, a in kept], dtype=np.float64)
        crowd = np.array([bool(a.get("iscrowd", 0)) for _, a in kept], dtype=bool)
        self.crowd = crowd
        ignored = np.stack([crowd | (area < low) | (area > high) for low, high in AREAS], axis=1)
        self.ignored = _area_bits(ignored)
        counts = np.zeros((len(self.images), len(self.classes), _A), dtype=np.int32)
        for a in range(_A):
            np.add.at(counts[..., a], (self.image[~ignored[:, a]], self.label[~ignored[:, a]]), 1)
        self.objects = Objects(counts)

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class DetectionTable:
    """Detections of one or more sub-networks as flat arrays of one length N.

    network   [N] 0..count-1      image, label  [N] positions in GroundTruth.images / .classes
    score     [N]                 area          [N] px^2 (of the box, or of the mask)
    boxes     [N, 4] left, top, width, height in px; only needed for box evaluation
    rows      [N] row of `overlaps` holding the IoU with objects; only needed for masks
    overlaps  [rows, objects of one image, padded] IoU of a mask with the image's objects, in the order of
              GroundTruth (all groups of the image one after another)
    Ties in score keep the given order, as in pycocotools.
    """

    count: int
    network: np.ndarray
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    area: np.ndarray
    boxes: np.ndarray | None = None
    rows: np.ndarray | None = None
    overlaps: np.ndarray | None = None

    def take(self, which: np.ndarray) -> "DetectionTable":
        """The detections at the given positions (or where a mask is true), in that order."""
        names = ("network", "image", "label", "score", "area", "boxes", "rows")
        parts = {n: getattr(self, n)[which] for n in names if getattr(self, n) is not None}
        return DetectionTable(self.count, **parts, overlaps=self.overlaps)


def evaluate(truth: GroundTruth, detections: DetectionTable) -> np.ndarray:
    """The twelve numbers of every sub-network: [count, 12] in 0..1, in the order of `METRICS`; NaN where
    undefined.
    """
    return numbers(truth.objects, match(truth, detections))


def match(truth: GroundTruth, detections: DetectionTable, images: np.ndarray | None = None) -> Matches:
    """Match every detection to an object or to none; images [n]: positions of those that were looked at
    (default: all).
    """
    looked_at = np.arange(len(truth.images)) if images is None else np.unique(images)
    sizes = np.bincount(detections.network, minlength=detections.count)
    parts, first = [], 0
    while first < detections.count:
        last = max(first + 1, first + int(np.searchsorted(np.cumsum(sizes[first:]), _PIECE, side="right")))
        whole = last - first == detections.count
        part = detections if whole else detections.take(_between(detections.network, first, last))
        parts.append(_matched(truth, part))
        first = last
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Matches.of(detections.count, looked_at, **arrays)


def _between(values: np.ndarray, first: int, last: int) -> np.ndarray:
    return (values >= first) & (values < last)


def _matched(truth: GroundTruth, detections: DetectionTable) -> dict[str, np.ndarray]:
    """The arrays of `Matches.of` for `_PIECE` detections."""
    groups = len(truth.images) * len(truth.classes)
    group = (detections.network * len(truth.images) + detections.image) * len(
        truth.classes
    ) + detections.label
    order = np.lexsort((-detections.score, group))
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group, side="left")
    kept = rank < _MAX_DETECTIONS
    detections, group, rank = detections.take(order[kept]), group[kept], rank[kept]
    matched, ignored = _match(truth, detections, group, groups)
    low, high = np.array(AREAS).T
    outside = _area_bits((detections.area[:, None] < low) | (detections.area[:, None] > high))
    ignored |= ~matched & outside
    found = {name: getattr(detections, name) for name in ("network", "image", "label", "score")}
    return {**found, "rank": rank, "words": np.stack([matched & ~ignored, ignored], axis=1)}


def _area_bits(flags: np.ndarray) -> np.ndarray:
    """[N, areas] bool -> [N] words with all thresholds of the true areas set."""
    return (flags.astype(np.uint64) * _ALL << _SHIFTS).sum(axis=1, dtype=np.uint64)


def _pairs(truth: GroundTruth, detections: DetectionTable, group: np.ndarray) -> tuple[np.ndarray, ...]:
    """All (detection, object) pairs of one image and class with IoU >= 0.5: detection, object, IoU."""
    sizes = truth.first[group + 1] - truth.first[group]
    detection = np.repeat(np.arange(len(group)), sizes)
    offset = np.arange(len(detection)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    item = truth.first[group][detection] + offset
    if detections.overlaps is not None and detections.rows is not None:
        first_of_image = truth.first[detections.image * len(truth.classes)]
        iou = detections.overlaps[detections.rows[detection], item - first_of_image[detection]]
    else:
        iou = box_iou(detections.boxes, truth.boxes, truth.crowd, detection, item)
    close = iou >= THRESHOLDS[0]
    return detection[close], item[close], iou[close]


def box_iou(
    boxes: np.ndarray | None, others: np.ndarray, crowd: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """IoU of boxes[first[i]] with others[second[i]], xywh px float64, in the order of operations of
    pycocotools' C code.

    crowd[j]: divide by the area of the first box alone.
    """
    if boxes is None:
        raise ValueError("a table for box evaluation needs boxes, one for masks needs rows and overlaps")
    x, y, w, h = boxes[first].T
    gx, gy, gw, gh = others[second].T
    width = np.minimum(w + x, gw + gx) - np.maximum(x, gx)
    height = np.minimum(h + y, gh + gy) - np.maximum(y, gy)
    inside = (width > 0) & (height > 0)
    common = np.where(inside, width * height, 0.0)
    area = w * h
    union = np.where(crowd[second], area, area + gw * gh - common)
    return np.divide(common, union, out=np.zeros_like(common), where=inside)


def _match(
    truth: GroundTruth, detections: DetectionTable, group: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matching in order of score. Words [N]: matched to an object; matched to an ignored object."""
    matched, ignored = np.zeros((2, len(group)), dtype=np.uint64)
    detection, item, iou = _pairs(truth, detections, group % groups)
    if not len(detection):
        return matched, ignored
    # Pairs of a detection: best IoU first, among equals the later object (pycocotools replaces on >=).
    order = np.lexsort((-item, -iou, detection))
    detection, item = detection[order], item[order]
    reach = _UP_TO[np.searchsorted(np.minimum(THRESHOLDS, 1 - 1e-10), iou[order], side="right")]
    candidates, start, width = np.unique(detection, return_index=True, return_counts=True)
    owner = np.repeat(np.arange(len(candidates)), width)
    column = np.arange(len(detection)) - start[owner]
    shape = (int(width.max()), len(candidates))
    free_slot = detections.count * len(truth)  # the object of absent pairs; never matched
    objects = np.zeros(shape, dtype=np.int64)
    bits = np.zeros(shape, dtype=np.uint64)
    slots = np.full(shape, free_slot)
    objects[column, owner] = item
    bits[column, owner] = reach
    slots[column, owner] = detections.network[detection] * len(truth) + item

    taken = np.zeros(free_slot + 1, dtype=np.uint64)
    crowd = np.where(truth.crowd, _EVERY, np.uint64(0)).astype(np.uint64)
    turn = np.arange(len(candidates)) - np.searchsorted(group[candidates], group[candidates], side="left")
    by_turn = np.argsort(turn, kind="stable")
    # All candidates that are n-th in their group belong to different groups, so they cannot take the same
    # object.
    for now in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        columns = int(width[now].max())
        done, on_ignored = np.zeros((2, len(now)), dtype=np.uint64)
        for last_choice in (False, True):
            for c in range(columns):
                thing, slot = objects[c, now], slots[c, now]
                kind = truth.ignored[thing] if last_choice else ~truth.ignored[thing]
                chosen = bits[c, now] & kind & ~done & (~taken[slot] | crowd[thing])
                done |= chosen
                taken[slot] |= chosen
                if last_choice:
                    on_ignored |= chosen
        matched[candidates[now]] = done
        ignored[candidates[now]] = on_ignored
    return matched, ignored
