"""Masks that cannot be used are named, and never reach the code that draws them."""

import re

import numpy as np
import pytest
from data_case import BOXES, HEIGHT, SMOKE, WIDTH, make, perfect, rectangle
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.cli import main
from rfdetr.data.folders import coco_folder
from rfdetr.data.masks import clean_mask, decode_segmentation
from rfdetr.evaluation.coco import evaluate_detections

FAR = [5, 5, 2e8, 5, 25, 25]
GOOD = rectangle(*BOXES[0])[0]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[float("nan"), 10, 25, 10, 25, 25]], "not finite"),
        ([[float("inf"), 10, 25, 10, 25, 25]], "not finite"),
        ([GOOD, [5, -float("inf"), 25, 10, 25, 25]], "not finite"),
        ([FAR], "far outside"),
        ([GOOD, FAR], "far outside"),
        ([[100, 10, 110, 10, 110, 20]], "no part"),  # wholly outside
        ([[-20, 10, -5, 10, -5, 20]], "no part"),
        ([[5, 5, 9, 5]], "no part"),
        ([[5, 5, 5, 5, 5, 5]], "no part"),
        ([[]], "no part"),
        ([[1, 2, 3, 4, 5, 6, 7]], "no pairs"),
        ([["1", 2, 3, 4, 5, 6]], "no number"),
        ([[10**400, 2, 3, 4, 5, 6]], "no number"),
        ([[[1, 2], [3, 4], [5, 6]]], "no part|no number"),
        ([1, 2, 3, 4, 5, 6], "no list of polygons"),
        ("polygon", "neither a list"),
        (5, "neither a list"),
        ({"size": [HEIGHT, WIDTH], "counts": [100, 50, 30000]}, "30150 pixels, the picture 2400"),
        ({"size": [HEIGHT, WIDTH], "counts": [100, 50]}, "150 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [100, -50, 2350]}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": [100, None]}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": [0, float("nan")]}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": "garbage"}, "garbled|pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 50}, "garbled"),
        ({"size": [HEIGHT, WIDTH]}, "garbled"),
        ({"size": [HEIGHT, WIDTH], "counts": [2400]}, "no pixel"),
        ({"size": [WIDTH, HEIGHT], "counts": [2400]}, "of size"),
        ({"size": None, "counts": [2400]}, "of size"),
        ({"counts": [2400]}, "of size"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named_and_never_drawn(tmp_path, capsys, segmentation, words):
    def edit(values, split):
        if split == "train":
            values["annotations"][1]["segmentation"] = segmentation

    make(tmp_path, edit, masks=True)
    data = coco_folder(tmp_path, "train")
    assert not data.has_masks and "segmentation" not in data.coco["annotations"][1]
    assert data.report.problems["mask that cannot be used"][0].annotation == 3
    assert re.search(f"annotation 3: .*({words})", str(data.report))
    assert evaluate_detections(data, perfect(data))["AP"] == pytest.approx(1)
    command = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--segmentation", *SMOKE]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert re.search(f"1 of 4 objects without a usable mask, .* annotation 3.*({words})", shown.err)
    assert "2 problems in train, see `data check`" in shown.out


def test_empty_parts_beside_a_good_polygon_are_dropped(tmp_path):
    parts = [[], [1, 2], [90, 10, 95, 10, 95, 20]]

    def edit(values, split):
        values["annotations"][0]["segmentation"] += parts

    data = coco_folder(make(tmp_path, edit, masks=True), "train")
    assert data.has_masks and data[0][1].masks[0].sum() == 300
    assert "annotation 2: 3 of 4 parts" in str(data.report)


def test_a_crowd_region_without_a_mask_counts_with_its_box(tmp_path):
    def edit(values, split):
        crowd = {"id": 50, "image_id": 1, "category_id": 1, "bbox": [40, 0, 20, 40], "iscrowd": 1}
        values["annotations"].append(crowd)

    data = coco_folder(make(tmp_path, edit, masks=True), "train")
    detections = perfect(data)
    for found in detections:
        found["masks"] = np.zeros((len(found["labels"]), HEIGHT, WIDTH), bool)
        for mask, (left, top, right, bottom) in zip(found["masks"], found["boxes"].astype(int), strict=True):
            mask[top:bottom, left:right] = True
    assert data.has_masks and evaluate_detections(data, detections, "segm")["AP"] == pytest.approx(1)


@given(st.binary(max_size=60), st.sampled_from([(4, 5), (1, 1), (7, 3)]))
def test_run_length_codes_agree_with_pycocotools(bits, size):
    from pycocotools import mask as rle

    height, width = size
    cells = np.resize(np.frombuffer(bits + b"\1", np.uint8) % 2, (height, width)).astype(np.uint8)
    code = rle.encode(np.asfortranarray(cells))
    text = code["counts"].decode("ascii")
    flat = cells.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    runs = np.diff([0, *edges, len(flat)]).tolist()
    for counts in (text, runs):
        mask, flaw = clean_mask({"size": [height, width], "counts": counts}, height, width)
        assert (mask is None) == (not cells.any()) == bool(flaw)
        if mask is not None:
            np.testing.assert_array_equal(decode_segmentation(mask, height, width), cells.astype(bool))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner)
    ),
    max_leaves=12,
)
polygons = st.lists(
    st.lists(st.floats(-70, 130) | st.integers(-70, 130), min_size=6, max_size=12), max_size=3
)
codes = st.fixed_dictionaries({"size": st.just([40, 60]), "counts": st.text("0123456789:;Oo", max_size=9)})


@given(values | polygons | codes)
def test_whatever_stands_for_a_mask_is_drawn_or_refused(segmentation):
    mask, flaw = clean_mask(segmentation, 40, 60)
    assert isinstance(flaw, str)
    if mask is not None:
        assert decode_segmentation(mask, 40, 60).shape == (40, 60)
