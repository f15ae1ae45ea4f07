"""The vectorised evaluator equals pycocotools on all twelve numbers."""

import contextlib
import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfdetr.errors import UserError
from rfdetr.search import fast_ap, grid


def make_truth(rng, images, classes, objects, crowds=True):
    annotations = []
    for image in range(images):
        for _ in range(rng.integers(0, objects + 1)):
            # Integers and few sizes: equal IoUs, equal areas and the limits of the area ranges really happen.
            x, y = rng.integers(0, 8, 2) * 12.0
            w, h = rng.choice([8.0, 16.0, 32.0, 64.0, 96.0, 130.0], 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 7 + 3 * image,
                    "category_id": int(2 + 5 * rng.integers(classes)),
                    "bbox": [x, y, w, h],
                    "area": float(w * h if rng.random() < 0.7 else w * h * 0.6),
                    "iscrowd": int(crowds and rng.random() < 0.15),
                }
            )
    return {
        "images": [{"id": 7 + 3 * i, "width": 200, "height": 200} for i in range(images)][::-1],
        "annotations": [annotations[i] for i in rng.permutation(len(annotations))],
        "categories": [{"id": 2 + 5 * k, "name": str(k)} for k in range(classes)],
    }


def from_results(truth, results):
    """A table of one sub-network from COCO-format box results; those of unknown categories are left out, as
    pycocotools does.
    """
    labels = np.array([r["category_id"] for r in results], dtype=np.int64)
    boxes = np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4)
    table = fast_ap.DetectionTable(
        1,
        np.zeros(len(results), dtype=np.int64),
        np.searchsorted(truth.images, np.array([r["image_id"] for r in results], dtype=np.int64)),
        np.searchsorted(truth.classes, labels),
        np.array([r["score"] for r in results], dtype=np.float64),
        boxes[:, 2] * boxes[:, 3],
        boxes,
    )
    return table.take(np.isin(labels, truth.classes))


def make_results(rng, truth, per_image):
    """Detections near objects, duplicates of them and noise; scores with many ties."""
    results = []
    for image in truth["images"]:
        near = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        for _ in range(rng.integers(0, per_image + 1)):
            if near and rng.random() < 0.8:
                base = near[rng.integers(len(near))]
                box = np.array(base["bbox"]) + rng.integers(-2, 3, 4) * rng.choice([0.0, 1.0, 3.0])
                category = base["category_id"]
            else:
                box, category = np.r_[rng.integers(0, 90, 2), rng.integers(4, 120, 2)].astype(float), None
            box[2:] = np.maximum(box[2:], 1)
            if category is None or rng.random() < 0.1:
                category = truth["categories"][rng.integers(len(truth["categories"]))]["id"]
            score = float(np.float32(rng.integers(1, 12) / 12 if rng.random() < 0.5 else rng.random()))
            results.append(
                {"image_id": image["id"], "category_id": category, "bbox": box.tolist(), "score": score}
            )
    return results


def reference(truth, results, kind="bbox"):
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = truth
        ground.createIndex()
        evaluator = COCOeval(ground, ground.loadRes([dict(r) for r in results]), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.where(evaluator.stats == -1, np.nan, evaluator.stats)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 6),
    classes=st.integers(1, 3),
    objects=st.integers(0, 12),
    per_image=st.sampled_from([3, 20, 150]),
)
def test_equals_pycocotools(seed, images, classes, objects, per_image):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, images, classes, objects)
    results = make_results(rng, truth, per_image)
    if results:
        table = from_results(fast_ap.GroundTruth(truth), results)
        np.testing.assert_array_equal(
            fast_ap.evaluate(fast_ap.GroundTruth(truth), table)[0], reference(truth, results)
        )


def joined(tables):
    """One table of several one-network tables."""
    parts = {
        name: np.concatenate([getattr(t, name) for t in tables])
        for name in ("image", "label", "score", "area", "boxes")
    }
    network = np.repeat(np.arange(len(tables)), [len(t.score) for t in tables])
    return fast_ap.DetectionTable(len(tables), network, **parts)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), piece=st.sampled_from([1, 150, 10**6]))
def test_many_networks_at_once_equal_one_by_one(seed, piece):
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, 5, 3, 8)
    ground = fast_ap.GroundTruth(truth)
    tables = [from_results(ground, make_results(rng, truth, 30)) for _ in range(4)]
    tables.insert(2, from_results(ground, []))
    together = joined(tables)
    shuffled = together.take(rng.permutation(len(together.score)))
    # Shuffling keeps the result only without ties, so distinct scores are given first.
    shuffled.score = rng.permutation(len(shuffled.score)) / len(shuffled.score)
    before, fast_ap._PIECE = fast_ap._PIECE, piece
    try:
        for table in (together, shuffled):
            alone = []
            for n in range(table.count):
                one = table.take(table.network == n)
                one.count, one.network = 1, np.zeros_like(one.network)
                alone.append(fast_ap.evaluate(ground, one)[0])
            np.testing.assert_array_equal(fast_ap.evaluate(ground, table), np.stack(alone))
    finally:
        fast_ap._PIECE = before


def test_mask_overlaps_equal_pycocotools_segm():
    rng = np.random.default_rng(3)
    truth = make_truth(rng, 6, 2, 6)
    size = 64
    annotations = truth["annotations"]
    masks = np.zeros((len(annotations), size, size), dtype=np.uint8)
    for mask, annotation in zip(masks, annotations, strict=True):
        x, y = rng.integers(0, 40, 2)
        mask[y : y + rng.integers(3, 24), x : x + rng.integers(3, 40)] = 1
        mask &= rng.random((size, size)) < 0.9
        annotation["segmentation"] = rle.encode(np.asfortranarray(mask))
        annotation["area"] = float(mask.sum())
    for image in truth["images"]:
        image.update(width=size, height=size)
    ground = fast_ap.GroundTruth(truth)
    results, rows, guesses = [], [], []
    for image in truth["images"]:
        for index in [i for i, a in enumerate(annotations) if a["image_id"] == image["id"]]:
            for _ in range(rng.integers(0, 4)):
                guess = (
                    np.roll(masks[index], rng.integers(-2, 3, 2), (0, 1))
                    if rng.random() < 0.9
                    else masks[index] * 0
                )
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": annotations[index]["category_id"],
                        "segmentation": rle.encode(np.asfortranarray(guess)),
                        "score": float(rng.integers(1, 9)) / 9,
                    }
                )
                guesses.append(guess)
    overlaps = np.zeros((len(results), 12))
    for row, (result, guess) in enumerate(zip(results, guesses, strict=True)):
        position = int(np.searchsorted(ground.images, result["image_id"]))
        things = np.arange(len(ground))[ground.image == position]
        for column, thing in enumerate(things):
            other = masks[ground.source[thing]]
            common = int((guess & other).sum())
            union = int(guess.sum()) if ground.crowd[thing] else int((guess | other).sum())
            overlaps[row, column] = common / union if common else 0.0
        rows.append(row)
    table = from_results(ground, [{**r, "bbox": [0, 0, 0, 0]} for r in results])
    table.area = np.array([guess.sum() for guess in guesses], dtype=float)
    table.rows, table.overlaps = np.array(rows), overlaps
    got = fast_ap.evaluate(ground, table)[0]
    np.testing.assert_array_equal(got, reference(truth, results, "segm"))
    assert got[0] > 0.1


def test_perfect_and_empty():
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 4, 2, 5, crowds=False)
    ground = fast_ap.GroundTruth(truth)
    perfect = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5 + 0.01 * i}
        for i, a in enumerate(truth["annotations"])
    ]
    assert fast_ap.evaluate(ground, from_results(ground, perfect))[0, 0] == 1.0
    nothing = fast_ap.evaluate(ground, from_results(ground, []))[0]
    assert set(nothing[~np.isnan(nothing)]) == {0.0} and nothing[0] == 0.0


def test_wrong_input_is_named():
    truth = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}
    with pytest.raises(UserError, match="no images"):
        fast_ap.GroundTruth({**truth, "images": []})


NUMBERS = {1: "24048e0f"}
"""Version of the evaluator -> digest of what it gives for fixed detections."""


def test_other_numbers_are_another_version_of_the_evaluator():
    """Kept results are used again while the version is the same: it must change when they would."""
    rng = np.random.default_rng(5)
    truth = make_truth(rng, 8, 3, 5)
    ground = fast_ap.GroundTruth(truth)
    found = fast_ap.evaluate(
        ground, joined([from_results(ground, make_results(rng, truth, 30)) for _ in range(3)])
    )
    digest = hashlib.sha256(np.nan_to_num(found, nan=-1).round(6).tobytes()).hexdigest()[:8]
    assert digest == NUMBERS[grid.EVALUATOR_VERSION]
