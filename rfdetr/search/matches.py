"""Detections matched to objects, kept per image: COCO's numbers of any subset of images without a new pass.

Matching is done inside one image. So its outcome, one entry per detection, is all that a later evaluation
needs, on whichever images: the entries of several blocks of images are put together, ranked by score and
counted, in the order in which pycocotools does it, and the numbers are equal bit for bit.

Memory: about 15 bytes per detection (image 4, network 2, class 2, rank 1, score 4 or 8, outcome 2), that is
105 bytes x queries x layers per image for a unit of a grid; half of that in a file. Time: one sort of all
detections, and one pass over them per threshold and area range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.files import atomic_path

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Ranges of px^2: all, small, medium, large."""
_T, _A = len(THRESHOLDS), len(AREAS)
_FEW = (1, 10)  # detections per image and class of AR1 and AR10
_PIECE = 400_000  # detections ranked at once, to bound memory
_FIELDS = ("network", "image", "label", "rank", "score", "code", "words", "images")


@dataclass(frozen=True)
class Objects:
    """How many objects there are to be found.

    counts [I, K, areas]: objects of image i and class k that are not ignored in the area range
    """

    counts: np.ndarray

    def among(self, images: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """positives [K, areas] in the given images (positions; None: all), and [K, areas, 101] how many must
        be found for each recall point.
        """
        positives = (self.counts if images is None else self.counts[images]).sum(axis=0)
        needed = np.ones((*positives.shape, len(RECALLS)), dtype=np.int64)
        for (k, a), count in np.ndenumerate(positives):
            if count:
                found = np.searchsorted(np.arange(count + 1) / count, RECALLS, side="left")
                needed[k, a] = np.maximum(found, 1)
        return positives, needed


@dataclass(frozen=True)
class Matches:
    """Matched detections of `count` sub-networks on some images, as flat arrays of one length N, in the order
    of network, image, class, rank.

    network [N] 0..count-1     image, label [N] positions in `GroundTruth.images` / `.classes`
    rank    [N] place among the detections of its network, image and class by score, from 0
    score   [N]                code [N] row of `words`
    words   [M, 2] uint64: the pairs that occur of (found an object, is ignored), one bit for each IoU
            threshold of each area range
    images  [n] ascending: the images that were looked at, also those without detections
    """

    count: int
    network: np.ndarray
    image: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    code: np.ndarray
    words: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in _FIELDS)

    @classmethod
    def of(cls, count: int, images: np.ndarray, words: np.ndarray, **arrays: np.ndarray) -> "Matches":
        """Pack arrays and the pair of words of every detection, [N, 2], as small as they can be without a
        loss.
        """
        unique, code = np.unique(words, axis=0, return_inverse=True)
        kinds = {"network": np.int32, "image": np.int32, "label": np.int16, "rank": np.uint8}
        packed = {name: arrays[name].astype(kind) for name, kind in kinds.items()}
        score = arrays["score"]
        small = score.astype(np.float32)
        kept = small if (small == score).all() else score
        code = code.reshape(-1).astype(np.uint16 if len(unique) < 1 << 16 else np.uint32)
        return cls(count, score=kept, code=code, words=unique, images=np.asarray(images), **packed)

    def on(self, images: np.ndarray) -> "Matches":
        """The part on the given images; UserError where one of them was not looked at."""
        images = np.unique(images)
        missing = images[~np.isin(images, self.images)]
        if len(missing):
            raise UserError(
                f"image {missing[0]} is in none of the evaluated blocks; evaluate its block first"
            )
        inside = np.zeros(int(max(self.images.max(initial=0), 0)) + 1, dtype=bool)
        inside[images] = True
        return self._take(inside[self.image], self.count, images)

    def of_networks(self, first: int, last: int) -> "Matches":
        """The sub-networks first..last-1, numbered from 0."""
        part = self._take((self.network >= first) & (self.network < last), last - first, self.images)
        part.network[:] -= first
        return part

    def _take(self, which: np.ndarray, count: int, images: np.ndarray) -> "Matches":
        parts = {name: getattr(self, name)[which] for name in _FIELDS[:6]}
        return Matches(count, **parts, words=self.words, images=images)

    def save(self, path: Path) -> None:
        """Write to a compressed file (.npz), at once or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            self.write(file)

    def write(self, file: object) -> None:
        """Write the compressed arrays to an open binary file."""
        arrays = {name: getattr(self, name) for name in _FIELDS}
        np.savez_compressed(file, count=self.count, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: object) -> "Matches":
        """Read what `save` or `write` wrote, from a path or an open file."""
        with np.load(path) as file:  # type: ignore[arg-type]
            return cls(int(file["count"]), **{name: file[name] for name in _FIELDS})


def join(blocks: Sequence[Matches]) -> Matches:
    """Matches of the same sub-networks on several blocks of images, as one. UserError when blocks overlap."""
    if len(blocks) == 1:
        return blocks[0]
    images = np.concatenate([block.images for block in blocks])
    if len(np.unique(images)) != len(images) or len({block.count for block in blocks}) != 1:
        raise UserError("blocks to be joined must be of the same sub-networks and of different images")
    parts = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in ("network", "image", "label", "rank", "score")
    }
    words = np.concatenate([block.words[block.code] for block in blocks])
    place = parts["network"].astype(np.int64) * (int(images.max(initial=0)) + 1) + parts["image"]
    order = np.argsort(place, kind="stable")
    parts, words = {name: values[order] for name, values in parts.items()}, words[order]
    return Matches.of(blocks[0].count, np.sort(images), words, **parts)


def numbers(objects: Objects, matches: Matches) -> np.ndarray:
    """COCO's twelve numbers of every sub-network on the images of `matches`: [count, 12] in 0..1, in the
    order of `METRICS`; NaN where undefined.
    """
    positives, needed = objects.among(matches.images)
    return np.concatenate([_numbers(part, positives, needed) for part in _pieces(matches)])


def average_precision(objects: Objects, matches: Matches) -> np.ndarray:
    """AP alone, [count]: the first of `numbers`, in a quarter of its time."""
    positives, needed = objects.among(matches.images)
    found = [_numbers(part, positives[:, :1], needed[:, :1])[:, 0] for part in _pieces(matches)]
    return np.concatenate(found)


def _pieces(matches: Matches) -> list[Matches]:
    if len(matches) <= _PIECE or matches.count == 1:
        return [matches]
    sizes = np.bincount(matches.network, minlength=matches.count)
    pieces, first = [], 0
    while first < matches.count:
        last = max(first + 1, first + int(np.searchsorted(np.cumsum(sizes[first:]), _PIECE, side="right")))
        pieces.append(matches.of_networks(first, last))
        first = last
    return pieces


def _numbers(matches: Matches, positives: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """The numbers of `_PIECE` detections. One ranking per (network, class); ties keep the order of images,
    and that inside the image.
    """
    segment = matches.network.astype(np.int64) * len(positives) + matches.label
    order = np.lexsort((-matches.score, segment))
    words = matches.words[matches.code[order]]
    ranked = segment[order], matches.rank[order], words[:, 0], words[:, 1]
    precision, found, few = _count(matches.count, ranked, positives, needed)
    return np.stack([_row(n, precision, found, few, positives) for n in range(matches.count)])


def _count(
    networks: int, ranked: tuple[np.ndarray, ...], positives: np.ndarray, needed: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Precision at the recall points per area [networks, T, 101, classes with objects]; objects found
    [areas, T, segments], and those among the best few of an image [2, T, segments].
    """
    segment, rank, correct, ignored = ranked
    classes, areas = positives.shape
    segments = networks * classes
    start = np.searchsorted(segment, np.arange(segments))
    found = np.zeros((areas, _T, segments), dtype=np.int64)
    few = np.zeros((len(_FEW), _T, segments), dtype=np.int64)
    precision: list[np.ndarray] = []
    ordinal = np.arange(len(segment) + 1)
    for a in range(areas):
        valid = np.flatnonzero(positives[:, a])
        curves = np.zeros((networks, _T, len(RECALLS), len(valid)))
        at_recall = needed[valid, a] - 1
        for t in range(_T):
            bit = np.uint64(1 << a * _T + t)
            hits = np.flatnonzero(correct & bit)
            skipped = (ignored & bit) != 0
            before = np.concatenate([[0], np.cumsum(~skipped)]) if skipped.any() else ordinal
            at = segment[hits]
            found[a, t] = np.bincount(at, minlength=segments)
            nth = np.arange(len(hits)) - (np.cumsum(found[a, t]) - found[a, t])[at] + 1
            shown = before[hits + 1] - before[start[at]]
            value = nth / (shown + np.spacing(1))
            # Best precision from the n-th hit on; the last column stays 0, "this recall is not reached".
            best = np.zeros((segments, int(positives[:, a].max(initial=0)) + 1))
            best[at, nth - 1] = value
            best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
            curves[:, t] = best.reshape(networks, classes, -1)[:, valid[:, None], at_recall].transpose(
                0, 2, 1
            )
            if a == 0:
                for i, most in enumerate(_FEW):
                    few[i, t] = np.bincount(at[rank[hits] < most], minlength=segments)
        precision.append(curves)
    return precision, found, few


def _row(
    network: int, precision: list[np.ndarray], found: np.ndarray, few: np.ndarray, positives: np.ndarray
) -> list[float]:
    """The numbers of one sub-network, in the order of `METRICS`; with one area range AP, AP50 and AP75
    alone.
    """
    whole = precision[0][network]
    parts = [whole, whole[0], whole[5]]
    if len(precision) == _A:
        classes = len(positives)
        parts += [p[network] for p in precision[1:]]
        for counted, a in [*((f, 0) for f in few), *((f, a) for a, f in enumerate(found))]:
            recall = counted[:, network * classes : (network + 1) * classes] / np.maximum(positives[:, a], 1)
            parts.append(recall[:, positives[:, a] > 0])
        assert len(parts) == len(METRICS)
    return [float(np.mean(part.ravel())) if part.size else np.nan for part in parts]
