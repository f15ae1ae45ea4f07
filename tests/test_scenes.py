"""Embedded scenes: deterministic, disjoint splits, boxes and masks that belong to the visible ink."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfdetr.data import painter
from rfdetr.data.scenes import _STREAMS, DOMAINS, scenes
from rfdetr.errors import UserError

cases = st.tuples(st.sampled_from(sorted(DOMAINS)), st.sampled_from(painter.SPLITS), st.integers(0, 5000))


@settings(max_examples=60, deadline=None)
@given(cases)
def test_objects_are_the_visible_ink(case):
    domain, split, index = case
    image, target = scenes(domain, split, size=index + 1)[index]
    assert image.dtype == np.uint8 and image.shape == (96, 96, 3)
    assert target.masks.shape == (len(target), 96, 96)
    assert len(target) <= DOMAINS[domain].objects[1]
    assert int(target.masks.sum(0).max()) <= 1 if len(target) else True  # ink belongs to one object
    assert set(target.labels.tolist()) <= set(range(len(DOMAINS[domain].classes)))
    for mask, (cx, cy, w, h) in zip(target.masks.numpy(), (target.boxes * 96).tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], box, atol=1e-3)
        assert mask.sum() >= 8


@settings(max_examples=20, deadline=None)
@given(cases)
def test_a_scene_is_a_pure_function_of_its_arguments(case):
    domain, split, index = case
    first, again = scenes(domain, split, size=index + 1), scenes(domain, split, size=6000)
    again[0]  # another scene in between changes nothing
    (a, ta), (b, tb) = first[index], again[index]
    assert np.array_equal(a, b) and ta.boxes.equal(tb.boxes) and ta.labels.equal(tb.labels)
    other, _ = scenes(domain, split, size=6000, seed=1)[index]
    assert not np.array_equal(a, other)


def test_splits_share_no_digit_and_no_photograph_column():
    ids = [set(painter.digit_ids(split)) for split in painter.SPLITS]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 1797
    columns = [painter.photo_columns(split) for split in painter.SPLITS]
    assert columns[0][1] <= columns[1][0] and columns[1][1] <= columns[2][0]
    # The pictures themselves: no digit image occurs twice, in whatever split.
    digits = [np.asarray(image).tobytes() for image in painter._sources()[0]]
    by_split = [{digits[i] for i in group} for group in ids]
    assert not by_split[0] & by_split[1] and not by_split[0] & by_split[2] and not by_split[1] & by_split[2]


def test_the_sources_are_scikit_learns_own():
    read, loaded = painter._read_sources(), painter._load_sources()
    assert np.array_equal(read[0], loaded[0]) and np.array_equal(read[1], loaded[1])
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(read[2], loaded[2], strict=True))


def test_labels_are_the_digits_painted():
    rng_values = painter._sources()[1]
    positions = painter.digit_ids("val")
    counts = np.bincount(rng_values[positions.start : positions.stop], minlength=10)
    assert counts.min() > 15  # every class is available in the small splits
    seen = np.zeros(10, dtype=int)
    data = scenes("digits", "val", size=150)
    for i in range(len(data)):
        seen += np.bincount(data[i][1].labels.numpy(), minlength=10)
    assert seen.min() > 0


def test_domains_differ_in_count_size_and_contrast():
    assert len(DOMAINS) >= 6 and set(_STREAMS) == set(DOMAINS)
    counts, sides = {}, {}
    for name in ("digits", "crowd", "giants", "specks"):
        data = scenes(name, "train", size=40)
        targets = [data[i][1] for i in range(40)]
        counts[name] = [len(t) for t in targets]
        sides[name] = np.concatenate([t.boxes[:, 3].numpy() * 96 for t in targets])
    assert max(counts["crowd"]) > 50 and max(counts["giants"]) <= 2 and min(counts["specks"]) == 0
    assert np.median(sides["giants"]) > 1.5 * np.median(sides["digits"]) > 3 * np.median(sides["specks"])
    faint, bold = (np.median(list(_contrasts(name))) for name in ("faint", "digits"))
    assert faint < 0.5 * bold


def _contrasts(name):
    data = scenes(name, "train", size=40)
    for i in range(40):
        image, target = data[i]
        grey = image @ np.array([0.299, 0.587, 0.114])
        outside = grey[~target.masks.any(0).numpy()].mean()
        for mask in target.masks.numpy():
            yield abs(grey[mask].mean() - outside)


def test_larger_canvas_scales_the_objects():
    small, large = scenes("digits", "train", size=30), scenes("digits", "train", size=30, canvas=288)
    image, target = large[0]
    assert image.shape == (288, 288, 3) and target.size == (288, 288)
    median = [
        np.median(np.concatenate([d[i][1].boxes[:, 3].numpy() for i in range(30)])) for d in (small, large)
    ]
    assert median[0] == pytest.approx(median[1], rel=0.15)


def test_ground_truth_agrees_with_the_targets():
    from pycocotools import mask as rle

    data = scenes("pick", "test", size=25)
    by_image = {}
    for annotation in data.coco["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for i in range(len(data)):
        _, target = data[i]
        found = by_image.get(target.image_id, [])
        assert [data.category_ids.index_of(a["category_id"]) for a in found] == target.labels.tolist()
        for annotation, mask, box in zip(found, target.masks.numpy(), target.boxes.numpy() * 96, strict=True):
            assert np.array_equal(rle.decode(annotation["segmentation"]).astype(bool), mask)
            x, y, w, h = annotation["bbox"]
            np.testing.assert_allclose(box, [x + w / 2, y + h / 2, w, h], atol=1e-3)
    assert any(
        i["id"] not in by_image for i in data.coco["images"]
    )  # images without objects exist and are listed


def test_fingerprint_names_the_content():
    base = scenes("digits", "train", size=10)
    assert base.fingerprint == scenes("digits", "train", size=10).fingerprint
    others = [
        scenes("digits", "val", size=10),
        scenes("digits", "train", size=11),
        scenes("digits", "train", size=10, canvas=128),
        scenes("digits", "train", size=10, seed=1),
        scenes("parity", "train", size=10),
        base.subset(5),
    ]
    assert len({base.fingerprint, *(d.fingerprint for d in others)}) == 7


def test_subset():
    data = scenes("digits", "val", size=20)
    part = data.subset([7, 3])
    assert len(part) == 2 and np.array_equal(part[0][0], data[7][0])
    assert [image["id"] for image in part.coco["images"]] == [8, 4]
    assert {a["image_id"] for a in part.coco["annotations"]} == {8, 4}
    assert len(data.subset(500)) == 20 and part.class_names == data.class_names
    with pytest.raises(UserError, match="25"):
        data.subset([25])
    with pytest.raises(UserError, match="twice"):
        data.subset([1, 1])
    with pytest.raises(IndexError):
        data[20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "numbers"}, "numbers.*digits"),
        ({"split": "dev"}, "dev.*train"),
        ({"canvas": 8}, "32"),
        ({"size": -1}, "size=-1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        scenes(**arguments)


def test_painting_is_cheap_enough_for_training():
    data = scenes("digits", "train", size=400)
    for i in range(100):
        data[i]
    start = time.process_time()
    for i in range(100, 300):
        data[i]
    assert (time.process_time() - start) / 200 < 0.010  # about 0.0012 s on an idle core
