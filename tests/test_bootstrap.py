"""Bootstrap intervals: the weighted AP is the evaluator's own on the resampled images."""

import math
import time

import numpy as np
import pytest
from detections import DATA, noisy, perfect

from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation import bootstrap
from rfdetr.evaluation.bootstrap import Matches, bootstrap_ap, paired_difference
from rfdetr.evaluation.coco import evaluate_detections


def unequal_scores(found, seed=0):
    """Equal scores are ranked in image order, which a resampled dataset changes: leave them out here."""
    rng = np.random.default_rng(seed)
    return [{**image, "scores": rng.random(len(image["scores"]))} for image in found]


class Resampled:
    """The dataset with image i repeated weights[i] times, as the evaluator would be given it."""

    def __init__(self, data, found, weights):
        self.category_ids, self.has_masks, self.fingerprint = data.category_ids, True, "resampled"
        images, annotations, self.found = [], [], []
        by_image = {image["image_id"]: image for image in found}
        for image, weight in zip(data.coco["images"], weights, strict=True):
            for _ in range(int(weight)):
                number = len(images) + 1
                images.append({**image, "id": number})
                self.found.append({**by_image[image["id"]], "image_id": number})
                for annotation in data.coco["annotations"]:
                    if annotation["image_id"] == image["id"]:
                        annotations.append({**annotation, "id": len(annotations) + 1, "image_id": number})
        self.coco = {**data.coco, "images": images, "annotations": annotations}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_every_resample_is_the_evaluator_on_the_resampled_images(kind):
    found = unequal_scores(noisy(DATA, 3))
    matches = Matches(DATA, found, kind)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(DATA), np.full(len(DATA), 1 / len(DATA)), size=4).astype(float)
    weights[0] = 1
    for row, ap in zip(weights, matches.ap(weights), strict=True):
        again = Resampled(DATA, found, row)
        assert ap == pytest.approx(evaluate_detections(again, again.found, kind)["AP"], abs=1e-9)


def test_crowds_are_ignored_as_the_evaluator_ignores_them():
    """A crowd region swallows detections without counting as an object."""

    class Crowds(Resampled):
        pass

    found = unequal_scores(noisy(DATA, 4))
    data = Crowds(DATA, found, np.ones(len(DATA)))
    for annotation in data.coco["annotations"][::3]:
        annotation["iscrowd"] = 1
    ap = Matches(data, data.found).ap(np.ones((1, len(DATA))))[0]
    assert ap == pytest.approx(evaluate_detections(data, data.found)["AP"], abs=1e-9)
    assert ap != pytest.approx(evaluate_detections(DATA, found)["AP"], abs=1e-4)


def test_interval_holds_the_estimate_and_is_seeded():
    found = noisy(DATA, 1)
    interval = bootstrap_ap(DATA, found, resamples=300)
    assert interval.ap == pytest.approx(evaluate_detections(DATA, found)["AP"], abs=1e-9)
    assert interval.low < interval.ap < interval.high and interval.high - interval.low < 0.5
    again = bootstrap_ap(DATA, found, resamples=300)
    assert np.array_equal(interval.samples, again.samples)
    assert not np.array_equal(interval.samples, bootstrap_ap(DATA, found, resamples=300, seed=1).samples)
    narrow = bootstrap_ap(DATA, found, resamples=300, level=0.5)
    assert narrow.high - narrow.low < interval.high - interval.low
    sure = bootstrap_ap(DATA, perfect(DATA), resamples=50)
    assert sure.low == pytest.approx(1) and sure.high == pytest.approx(1)


def test_more_images_give_a_narrower_interval():
    large = scenes("digits", "test", size=160)
    few, many = (bootstrap_ap(d, noisy(d, 2), resamples=200) for d in (large.subset(20), large))
    assert many.high - many.low < few.high - few.low


def test_paired_difference_resolves_what_is_different_and_nothing_else():
    better, worse = Matches(DATA, noisy(DATA, 1, jitter=0.03)), Matches(DATA, noisy(DATA, 1, jitter=0.25))
    gap = paired_difference(better, worse, resamples=300)
    assert gap.resolved and gap.low > 0 and "resolved" in str(gap)
    assert paired_difference(worse, better, resamples=300).high < 0
    same = paired_difference(better, better, resamples=300)
    assert (same.diff, same.low, same.high, same.resolved) == (0, 0, 0, False)
    other = paired_difference(Matches(DATA, noisy(DATA, 7)), Matches(DATA, noisy(DATA, 8)), resamples=300)
    assert not other.resolved and other.low < 0 < other.high


def test_paired_difference_needs_the_same_images():
    part = DATA.subset(20)
    with pytest.raises(UserError, match="same images"):
        paired_difference(Matches(DATA, []), Matches(part, []))


def test_blocks_of_resamples_give_what_all_at_once_give(monkeypatch):
    found = noisy(DATA, 3)
    whole = bootstrap_ap(DATA, found, resamples=50)
    monkeypatch.setattr(bootstrap, "_NUMBERS", 100)  # fewer than one resample has detections
    assert np.array_equal(bootstrap_ap(DATA, found, resamples=50).samples, whole.samples)


def test_degenerate_cases():
    interval = bootstrap_ap(DATA, [], resamples=20)
    assert (interval.ap, interval.low, interval.high) == (0, 0, 0)
    specks = scenes("specks", "test", size=60)
    empty = specks.subset([i for i in range(60) if not len(specks[i][1])])
    with pytest.raises(UserError, match="no objects"):
        bootstrap_ap(empty, [])
    # An image with objects among empty ones: a resample without it has no AP, and takes no part.
    one = specks.subset([*empty.indexes[:2], next(i for i in range(60) if len(specks[i][1]))])
    lone = bootstrap_ap(one, perfect(one), resamples=100)
    assert np.isnan(lone.samples).any() and lone.low == pytest.approx(1) and not math.isnan(lone.high)
    with pytest.raises(UserError, match="level"):
        bootstrap_ap(DATA, [], level=95)


def test_two_hundred_images_take_about_a_second():
    data = scenes("digits", "test", size=200)
    matches = Matches(data, noisy(data, 0, extra=30))
    start = time.process_time()
    matches.ap(np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), size=200).astype(float))
    assert time.process_time() - start < 3  # about 0.2 s on an idle core
