"""What became of every object and every detection: hits, misses, false alarms, confused classes, precision
and recall.

For looking at a network at one score threshold, as it will be used. AP (`rfdetr.evaluation.coco`) needs no
threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.evaluation.engines import Detection, run_evaluator

IOU = 0.5


@dataclass(frozen=True)
class Outcome:
    """One picture at one threshold.

    truth [M, 4], truth_labels [M]: its objects. boxes [N, 4], scores [N], labels [N]: detections at or above
    the threshold, best first. All boxes are left, top, right, bottom in px. object_of [N]: the object that a
    detection was matched to, whatever its class, or -1. detection_of [M]: the same seen from the object.
    """

    truth: np.ndarray
    truth_labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    object_of: np.ndarray
    detection_of: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """[N] bool: matched to an object of its own class."""
        matched = self.object_of >= 0
        right = np.zeros(len(matched), dtype=bool)
        right[matched] = self.truth_labels[self.object_of[matched]] == self.labels[matched]
        return right

    @property
    def missed(self) -> np.ndarray:
        """[M] bool: objects that no detection of their class found."""
        found = np.zeros(len(self.truth), dtype=bool)
        found[self.object_of[self.hits]] = True
        return ~found


def outcome(target: Target, found: Detection, threshold: float, iou: float = IOU) -> Outcome:
    """Match the detections of one picture to its objects, best score first, each object at most once.

    An object of the detection's own class is preferred to one of another class; `iou` is the least overlap.
    """
    height, width = target.size
    centre, size = target.boxes[:, :2].numpy(), target.boxes[:, 2:].numpy()
    truth = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * np.array([width, height] * 2)
    truth_labels = target.labels.numpy()
    scores = np.asarray(found["scores"])
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    boxes, labels = np.asarray(found["boxes"]).reshape(-1, 4)[order], np.asarray(found["labels"])[order]
    overlap = _iou(boxes, truth)
    object_of = np.full(len(order), -1)
    free = np.ones(len(truth), dtype=bool)
    # First the own class for all, then what is left: a confusion must not take an object from a hit.
    for same in (True, False):
        for i in range(len(order)):
            if object_of[i] >= 0:
                continue
            allowed = free & (overlap[i] >= iou)
            if same:
                allowed &= truth_labels == labels[i]
            if allowed.any():
                best = int(np.argmax(np.where(allowed, overlap[i], -1.0)))
                object_of[i], free[best] = best, False
    detection_of = np.full(len(truth), -1)
    detection_of[object_of[object_of >= 0]] = np.flatnonzero(object_of >= 0)
    return Outcome(truth, truth_labels, boxes, scores[order], labels, object_of, detection_of)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, M] intersection over union of corner boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def confusion(outcomes: Sequence[Outcome], num_classes: int) -> np.ndarray:
    """[K + 1, K + 1] counts: rows are the true class, columns the detected one; the last of each is
    "nothing".
    """
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=int)
    for one in outcomes:
        matched = one.object_of >= 0
        np.add.at(table, (one.truth_labels[one.object_of[matched]], one.labels[matched]), 1)
        np.add.at(table[num_classes], one.labels[~matched], 1)
        np.add.at(table[:, num_classes], one.truth_labels[one.detection_of < 0], 1)
    return table


def best_threshold(detections: Sequence[Detection], targets: Sequence[Target]) -> tuple[float, float]:
    """(score, F1): the threshold of 0.05, 0.10, ... 0.95 with the largest F1 of hits over all pictures."""
    scored = []
    for threshold in np.arange(0.05, 0.96, 0.05):
        found = [outcome(t, d, float(threshold)) for t, d in zip(targets, detections, strict=True)]
        hits = sum(int(one.hits.sum()) for one in found)
        total = sum(len(one.scores) + len(one.truth) for one in found)
        scored.append((2 * hits / total if total else 0.0, float(threshold)))
    f1, threshold = max(scored, key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))
    return round(threshold, 2), f1


def precision_recall(
    dataset: DetectionDataset, detections: Sequence[Detection]
) -> tuple[np.ndarray, np.ndarray] | None:
    """(recall [101], precision [K, 101]) at an overlap of 0.5, NaN for a class without objects; None without
    any.
    """
    evaluator = run_evaluator(dataset, detections, "bbox", 100)
    if evaluator is None:
        return None
    precision = np.asarray(evaluator.eval["precision"])[0, :, :, 0, -1].T
    return np.asarray(evaluator.params.recThrs), np.where(precision < 0, np.nan, precision)
