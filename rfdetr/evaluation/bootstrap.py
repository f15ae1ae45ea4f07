"""Bootstrap intervals of AP over images, from one matching pass.

Method: detections are matched once per image by the COCO evaluator. A resample draws as many images as there
are, with replacement; an image drawn w times counts w times. Precision and recall are recomputed from the
stored matches with these weights, at the evaluator's 10 IoU thresholds and 101 recall points, then averaged
over the categories that occur in the resample. That equals running the evaluator on the resampled dataset (up
to the order of equal scores). Intervals are percentiles of the resamples: they say how far AP would move with
another sample of images of the same kind. They say nothing about another training seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.engines import Detection, run_evaluator

_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Interval:
    """AP on the whole dataset and the ends of its interval, all in 0..1; samples [B] are the resampled
    APs.
    """

    ap: float
    low: float
    high: float
    level: float
    samples: np.ndarray

    def __str__(self) -> str:
        return f"{self.ap:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference:
    """AP of the first model minus AP of the second, over the same images, and its interval.

    resolved: the interval leaves out 0; a difference that is not resolved must not be read as one.
    """

    diff: float
    low: float
    high: float
    level: float
    resolved: bool
    samples: np.ndarray

    def __str__(self) -> str:
        verdict = "resolved" if self.resolved else "not resolved"
        return f"{self.diff:+.3f} [{self.low:+.3f}, {self.high:+.3f}] ({verdict})"


@dataclass(frozen=True)
class Found:
    """Matches of one category. Detections are sorted by score, best first.

    objects [I]: ground-truth objects per image (without crowds). image [D]: image of each detection. hit,
    counted [T, D]: matched to an object; not ignored (a detection on a crowd is).
    """

    objects: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    counted: np.ndarray


class Matches:
    """Detections of one model matched to the objects of one dataset, ready to be resampled."""

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Sequence[Detection],
        iou_type: str = "bbox",
        *,
        max_dets: int = 100,
    ) -> None:
        evaluator = run_evaluator(dataset, detections, iou_type, max_dets, area_ranges=1)
        if evaluator is None:
            raise UserError(f"{dataset!r} has no objects: AP and its interval are not defined")
        thresholds = len(evaluator.params.iouThrs)
        count = len(evaluator.params.imgIds)
        found = [
            _category(evaluator.evalImgs[k * count : (k + 1) * count], thresholds)
            for k in range(len(evaluator.params.catIds))
        ]
        self._set(tuple(evaluator.params.imgIds), dataset.fingerprint, found)

    @classmethod
    def of(cls, image_ids: Sequence[int], fingerprint: str, found: "Sequence[Found]") -> "Matches":
        """Matches that were made elsewhere, one `Found` per category, on the images of a dataset."""
        matches = cls.__new__(cls)
        matches._set(tuple(image_ids), fingerprint, list(found))
        return matches

    def _set(self, image_ids: tuple[int, ...], fingerprint: str, found: "list[Found]") -> None:
        self.image_ids, self.fingerprint, self.categories = image_ids, fingerprint, found

    def ap(self, weights: np.ndarray) -> np.ndarray:
        """AP [B] of images weighted by `weights` [B, I] (how often each image counts); NaN without any
        object.
        """
        total, defined = np.zeros(len(weights)), np.zeros(len(weights))
        for category in self.categories:
            objects = weights @ category.objects
            present = objects > 0
            defined += present
            # A few resamples at a time: each needs several numbers per detection.
            size = max(1, _NUMBERS // max(1, len(category.image)))
            rows = np.flatnonzero(present)
            for part in np.split(rows, range(size, len(rows), size)):
                if len(part):
                    total[part] += _category_ap(category, weights[part], objects[part])
        with np.errstate(invalid="ignore"):
            return total / np.where(defined > 0, defined, np.nan)


_NUMBERS = 2**22
"""Detections times resamples that are worked on at once: 32 MB for each array."""


def _category(per_image: Sequence[dict[str, Any] | None], thresholds: int) -> Found:
    objects = np.zeros(len(per_image))
    images, scores, hits, ignores = [], [], [], []
    for index, record in enumerate(per_image):
        if record is None:
            continue
        objects[index] = np.count_nonzero(np.asarray(record["gtIgnore"]) == 0)
        scores.append(np.asarray(record["dtScores"], dtype=np.float64))
        hits.append(np.asarray(record["dtMatches"]).reshape(thresholds, -1) > 0)
        ignores.append(np.asarray(record["dtIgnore"]).reshape(thresholds, -1) > 0)
        images.append(np.full(len(scores[-1]), index))
    if not scores:
        empty = np.zeros((thresholds, 0), dtype=bool)
        return Found(objects, np.zeros(0, dtype=np.int64), empty, empty)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit, counted = np.concatenate(hits, 1)[:, order], ~np.concatenate(ignores, 1)[:, order]
    return Found(objects, np.concatenate(images)[order], hit & counted, counted)


def _category_ap(category: Found, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """AP [B] of one category, averaged over thresholds and recall points."""
    ap = np.zeros(len(weights))
    seen: np.ndarray | None = None
    for threshold, (hit, counted) in enumerate(zip(category.hit, category.counted, strict=True)):
        if seen is None or not np.array_equal(counted, category.counted[threshold - 1]):
            by_detection = weights[:, category.image] * counted
            seen = by_detection.cumsum(1)
        # Precision has its local maxima at true positives, so these positions alone decide the envelope.
        where = np.flatnonzero(hit)
        if not len(where):
            continue
        true = weights[:, category.image[where]].cumsum(1)
        precision = true / np.maximum(seen[:, where], np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        envelope = np.pad(envelope, ((0, 0), (0, 1)))  # recall points that are never reached count as 0
        for b, recall in enumerate(true / objects[:, None]):
            ap[b] += envelope[b, np.searchsorted(recall, _RECALLS, side="left")].mean()
    return ap / len(category.hit)


def bootstrap_ap(
    dataset: DetectionDataset,
    detections: Sequence[Detection],
    iou_type: str = "bbox",
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    max_dets: int = 100,
) -> Interval:
    """AP and its bootstrap interval over images. detections: as `evaluate_detections` takes them."""
    matches = Matches(dataset, detections, iou_type, max_dets=max_dets)
    samples = matches.ap(image_weights(len(matches.image_ids), resamples, seed))
    low, high = _interval(samples, level)
    return Interval(_whole(matches), low, high, level, samples)


def paired_difference(
    first: Matches, second: Matches, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Difference:
    """Difference in AP of two models on the same images, every resample drawing the same images for both.

    Pairing takes out what is hard or easy about the images themselves. Raises UserError when the two were not
    evaluated on the same dataset.
    """
    if first.image_ids != second.image_ids or first.fingerprint != second.fingerprint:
        raise UserError(
            "a paired difference needs both models evaluated on the same images: use one dataset and split"
        )
    weights = image_weights(len(first.image_ids), resamples, seed)
    samples = first.ap(weights) - second.ap(weights)
    low, high = _interval(samples, level)
    return Difference(_whole(first) - _whole(second), low, high, level, bool(low > 0 or high < 0), samples)


def _whole(matches: Matches) -> float:
    return float(matches.ap(np.ones((1, len(matches.image_ids))))[0])


def image_weights(images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn, [B, I]; every row sums to I."""
    if resamples < 1:
        raise UserError(f"bootstrap needs at least one resample, got {resamples}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def _interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise UserError(f"the level of an interval must lie between 0 and 1, got {level}")
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
