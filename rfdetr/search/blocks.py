"""Evaluation in blocks of images: a little of the accuracy of many, and all of it in the end.

The images of a dataset are cut into blocks, the same for every sub-network, so that differences are paired.
The first k blocks together are level k; level by level an encoder setting is looked at on more images, and
the blocks of one setting add up to its evaluation on all of them, bit for bit.
"""

from collections.abc import Sequence

import numpy as np

from rfdetr.errors import UserError
from rfdetr.evaluation import bootstrap
from rfdetr.search.fast_ap import GroundTruth
from rfdetr.search.matches import THRESHOLDS, Matches, average_precision, join, numbers

LADDER = (20, 50, 100, 200, 500, 1000, 2000, 5000)
_NEAR = 1.25  # a level this close to the number of images is left out


def levels(images: int, ladder: Sequence[int] = LADDER) -> tuple[int, ...]:
    """Numbers of images, ascending; the last is all of them. UserError for an empty dataset."""
    if images < 1:
        raise UserError("the dataset has no images: nothing can be evaluated on it")
    return (*(n for n in ladder if n * _NEAR <= images), images)


def blocks(steps: Sequence[int]) -> list[range]:
    """The images (indexes of the dataset) that each level adds to the one before."""
    return [range(first, last) for first, last in zip((0, *steps[:-1]), steps, strict=True)]


def nested_ap(truth: GroundTruth, found: Sequence[Matches]) -> np.ndarray:
    """AP [levels, count] on the first block, the first two, and so on, from the matches of the blocks in
    order.
    """
    return np.stack([average_precision(truth.objects, join(found[: k + 1])) for k in range(len(found))])


def whole(truth: GroundTruth, found: Sequence[Matches]) -> np.ndarray:
    """COCO's twelve numbers [count, 12] of the sub-networks once all blocks are in: those of `evaluate` on
    the whole dataset. UserError when images are missing.
    """
    together = join(found)
    missing = len(truth.images) - len(together.images)
    if missing:
        raise UserError(f"{missing} of {len(truth.images)} images are not evaluated yet; evaluate all blocks")
    return numbers(truth.objects, together)


def paired_difference(
    truth: GroundTruth, first: tuple[Matches, int], second: tuple[Matches, int], **options: float
) -> bootstrap.Difference:
    """AP of one sub-network (matches, number in them) minus AP of another, on the same images, with a paired
    bootstrap interval over these; options: `resamples`, `level`, `seed` of
    `rfdetr.evaluation.bootstrap.paired_difference`. UserError when the images are not the same.
    """
    one, other = (resampled(truth, *each) for each in (first, second))
    return bootstrap.paired_difference(one, other, **options)  # type: ignore[arg-type]


def resampled(truth: GroundTruth, matches: Matches, network: int) -> bootstrap.Matches:
    """One sub-network's matches in the form that bootstrap intervals are computed from."""
    part = matches.of_networks(network, network + 1)
    place = np.searchsorted(part.images, part.image)
    order = np.argsort(-part.score, kind="stable")
    words = part.words[part.code]
    bits = np.uint64(1) << np.arange(len(THRESHOLDS), dtype=np.uint64)[:, None]  # of the first area range
    found = []
    for label in range(len(truth.classes)):
        mine = order[part.label[order] == label]
        hit, ignored = ((words[mine, i] & bits) != 0 for i in (0, 1))
        objects = truth.objects.counts[part.images, label, 0].astype(float)
        found.append(bootstrap.Found(objects, place[mine], hit, ~ignored))
    return bootstrap.Matches.of(truth.images[part.images].tolist(), "", found)
