"""COCO-format folders, sound and flawed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rfdetr.data.annotations import clean_box
from rfdetr.data.folders import canonical_split, coco_folder, find_splits
from rfdetr.data.images import read_image
from rfdetr.data.inspection import inspect
from rfdetr.data.masks import decode_segmentation
from rfdetr.data.report import DataReport
from rfdetr.data.transforms import collate
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import evaluate_detections


def picture(path, height=40, width=60, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Smooth content, so that a JPEG stays close to it.
    ramp = (
        np.linspace(0, 200, width, dtype=np.uint8)[None, :, None] + np.arange(3, dtype=np.uint8) * 10 + seed
    )
    Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).copy()).save(path)


def annotation(number, image_id=1, box=(5, 10, 20, 15), category=2, **extra):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "iscrowd": 0,
        **extra,
    }


def polygon(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


CATEGORIES = [{"id": 7, "name": "mouse"}, {"id": 2, "name": "cat"}]


def folder(tmp_path, annotations, images=None, categories=CATEGORIES, split="train"):
    """A Roboflow-style folder with two pictures."""
    if images is None:
        images = [
            {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 2, "file_name": "b.png", "height": 40, "width": 60},
        ]
    base = tmp_path / "data" / split
    picture(base / "a.jpg")
    picture(base / "b.png", seed=3)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (base / "_annotations.coco.json").write_text(json.dumps(content))
    return tmp_path / "data"


def test_a_sound_folder(tmp_path):
    root = folder(tmp_path, [annotation(0), annotation(1, category=7, box=(0, 0, 60, 40))])
    data = coco_folder(root, "train")
    assert len(data) == 2 and not data.report and data.class_names == ("cat", "mouse") and data.name == "data"
    image, target = data[0]
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    assert target.labels.tolist() == [0, 1] and target.size == (40, 60) and target.masks is None
    np.testing.assert_allclose(target.boxes[0].numpy(), [15 / 60, 17.5 / 40, 20 / 60, 15 / 40], rtol=1e-6)
    np.testing.assert_allclose(target.boxes[1].numpy(), [0.5, 0.5, 1, 1], rtol=1e-6)
    assert len(data[1][1]) == 0 and data[1][1].boxes.shape == (0, 4)  # an image without objects is legal
    assert data.report.notes["images without objects (legal)"] == 1
    images, targets = collate(data, [0, 1], 32, np.random.default_rng(0))
    assert images.shape == (2, 3, 32, 32) and len(targets) == 2
    perfect = [
        {"image_id": 1, "scores": [0.9, 0.8], "labels": [0, 1], "boxes": [[5, 10, 25, 25], [0, 0, 60, 40]]}
    ]
    assert evaluate_detections(data, perfect)["AP"] == pytest.approx(1)
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize(
    ("box", "expected", "problem"),
    [
        ((50, 30, 30, 30), [50, 30, 10, 10], "clipped"),
        ((-10, -5, 30, 30), [0, 0, 20, 25], "clipped"),
        ((5, 5, 0, 10), None, "without area"),
        ((5, 5, -3, 10), None, "without area"),
        ((float("nan"), 5, 3, 10), None, "without area"),
        ((70, 5, 10, 10), None, "wholly outside"),
        ((5, 5, 10), None, "four numbers"),
        (None, None, "four numbers"),
        ((50, 30, 10.4, 10.4), [50, 30, 10.4, 10.4], None),  # rounding: evaluated as annotated
    ],
)
def test_a_flawed_box_is_repaired_or_left_out_and_reported(tmp_path, box, expected, problem):
    bad = {**annotation(2), "bbox": None if box is None else list(box)}
    data = coco_folder(folder(tmp_path, [annotation(1), bad]), "train")
    boxes = [a["bbox"] for a in data.coco["annotations"]]
    assert boxes == ([[5, 10, 20, 15]] + ([expected] if expected else []))
    assert len(data[0][1]) == len(boxes)
    edges = data[0][1].boxes
    assert float((edges[:, :2] + edges[:, 2:] / 2).max()) <= 1 + 1e-6
    if problem is None:
        assert not data.report
    else:
        assert problem in str(data.report) and "annotation 2" in str(data.report)


@settings(max_examples=200)
@given(st.lists(st.floats(-100, 200) | st.just(float("nan")), min_size=4, max_size=4))
def test_a_cleaned_box_lies_in_its_image(box):
    report = DataReport()
    cleaned = clean_box({"bbox": box}, "annotation 1", 40, 60, report)
    if cleaned is None:
        assert report
    else:
        x, y, w, h = cleaned
        assert w > 0 and h > 0 and x >= -1 and y >= -1 and x + w <= 61 and y + h <= 41


def test_an_unknown_category_stops_with_file_annotation_and_remedy(tmp_path):
    root = folder(tmp_path, [annotation(1), annotation(42, category=9)])
    with pytest.raises(
        UserError, match=r"_annotations\.coco\.json: annotation 42 .*category id 9.*known: 2, 7.*remove"
    ):
        coco_folder(root, "train")


def test_a_truncated_picture_is_named_when_it_is_read(tmp_path):
    root = folder(tmp_path, [annotation(1)])
    path = root / "train" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    data = coco_folder(root, "train")
    with pytest.raises(UserError, match=r"a\.jpg is damaged"):
        data[0]
    assert inspect(data).counts["unreadable picture"] == 1
    rest = coco_folder(root, "train", unreadable="skip")
    assert len(rest) == 1 and "a.jpg" in str(rest.report) and rest.coco["annotations"] == []
    assert (
        evaluate_detections(rest, [])["AP"] != evaluate_detections(rest, [])["AP"]
    )  # NaN: no objects are left


@pytest.mark.parametrize("content", [b"", b"not a picture at all"])
def test_a_file_that_is_no_picture(tmp_path, content):
    root = folder(
        tmp_path, [annotation(1)], images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.png"}]
    )
    (root / "train" / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg is not a picture"):
        coco_folder(root, "train")[0]
    assert len(coco_folder(root, "train", unreadable="skip")) == 1


def test_a_missing_picture(tmp_path):
    root = folder(tmp_path, [annotation(1)])
    (root / "train" / "b.png").unlink()
    with pytest.raises(UserError, match=r'1 of 2 pictures.*b\.png.*unreadable="skip"'):
        coco_folder(root, "train")
    data = coco_folder(root, "train", unreadable="skip")
    assert len(data) == 1 and data.report.counts["missing picture (left out)"] == 1
    (root / "train" / "a.jpg").unlink()
    with pytest.raises(UserError, match="2 of 2"):
        coco_folder(root, "train", unreadable="skip")


def test_image_ids_that_occur_twice(tmp_path):
    one = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
    data = coco_folder(folder(tmp_path, [annotation(1)], images=[one, dict(one)]), "train")
    assert len(data) == 1 and data.report.counts["image listed twice (used once)"] == 1
    root = folder(tmp_path, [annotation(1)], images=[one, {**one, "file_name": "b.png"}])
    with pytest.raises(UserError, match=r"image id 1 stands for a\.jpg and for b\.png"):
        coco_folder(root, "train")


def test_a_wrong_image_size_is_corrected(tmp_path):
    wrong = [{"id": 1, "file_name": "a.jpg", "height": 400, "width": 30}]
    data = coco_folder(folder(tmp_path, [annotation(1)], images=wrong), "train")
    assert data[0][1].size == (40, 60) and data.coco["images"][0]["width"] == 60
    assert "30x400, is 60x40" in str(data.report)
    np.testing.assert_allclose(data[0][1].boxes[0, 2], 20 / 60, rtol=1e-6)


def test_a_wrong_image_size_of_a_large_dataset_is_corrected_when_the_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("rfdetr.data.listing.HEADER_LIMIT", 0)
    wrong = [{"id": 1, "file_name": "a.jpg", "height": 80, "width": 120}]
    data = coco_folder(folder(tmp_path, [annotation(1)], images=wrong), "train")
    assert not data.report
    assert data[0][1].size == (40, 60) and "120x80, is 60x40" in str(data.report)
    np.testing.assert_allclose(data[0][1].boxes[0, 2], 20 / 60, rtol=1e-6)


def test_annotations_of_unknown_images_and_repeated_ids(tmp_path):
    data = coco_folder(folder(tmp_path, [annotation(1), annotation(1), annotation(2, image_id=99)]), "train")
    assert len(data[0][1]) == 2
    assert set(data.report.counts) == {
        "annotation id used twice (kept, numbered anew)",
        "annotation of an unknown image (left out)",
    }


def test_masks_from_polygons_and_run_length_codes(tmp_path):
    from pycocotools import mask as rle

    square = np.zeros((40, 60), np.uint8)
    square[20:30, 30:50] = 1
    code = rle.encode(np.asfortranarray(square))
    runs = [30 * 40 + 20, *([10, 30] * 19), 10, 60 * 40 - (49 * 40 + 30)]
    coded = [
        annotation(1, box=(5, 10, 20, 15), segmentation=polygon(5, 10, 20, 15)),
        annotation(
            2, box=(30, 20, 20, 10), segmentation={"size": [40, 60], "counts": code["counts"].decode()}
        ),
        annotation(3, box=(30, 20, 20, 10), segmentation={"size": [40, 60], "counts": runs}),
    ]
    data = coco_folder(folder(tmp_path, coded), "train")
    assert data.has_masks
    masks = data[0][1].masks.numpy()
    assert masks.shape == (3, 40, 60) and masks.dtype == bool
    assert np.array_equal(masks[1], square.astype(bool)) and np.array_equal(masks[2], masks[1])
    assert masks[0][10:25, 5:25].all() and masks[0].sum() == 300
    assert data[1][1].masks.shape == (0, 40, 60)
    assert not coco_folder(tmp_path / "data", "train", masks=False).has_masks


@pytest.mark.parametrize("bad", [[], [[1, 2, 3, 4]], {"size": [10, 10], "counts": "abc"}])
def test_masks_are_used_only_if_every_object_has_one(tmp_path, bad):
    root = folder(
        tmp_path, [annotation(1, segmentation=polygon(5, 10, 20, 15)), annotation(2, segmentation=bad)]
    )
    data = coco_folder(root, "train")
    assert not data.has_masks and data[0][1].masks is None and "masks not used" in str(data.report)
    with pytest.raises(UserError, match="annotation 2"):
        coco_folder(root, "train", masks=True)


def test_crowds_count_in_evaluation_only(tmp_path):
    crowd = annotation(2, box=(30, 5, 30, 30), iscrowd=1)
    data = coco_folder(folder(tmp_path, [annotation(1), crowd]), "train")
    assert len(data[0][1]) == 1 and len(data.coco["annotations"]) == 2
    inside = {
        "image_id": 1,
        "scores": [0.9, 0.8],
        "labels": [0, 0],
        "boxes": [[32, 8, 40, 20], [5, 10, 25, 25]],
    }
    assert evaluate_detections(data, [inside])["AP"] == pytest.approx(1)  # the one in the crowd is ignored


def test_the_cache_reduces_pictures_and_masks_alike(tmp_path):
    root = folder(tmp_path, [annotation(1, box=(0, 0, 30, 40), segmentation=polygon(0, 0, 30, 40))])
    plain, cached = coco_folder(root, "train"), coco_folder(root, "train", cache_side=30)
    image, target = cached[0]
    assert image.shape == (20, 30, 3) and target.size == (40, 60) and target.masks.shape == (1, 20, 30)
    assert target.masks[0, :, :15].all() and not target.masks[0, :, 15:].any()
    assert target.boxes.equal(plain[0][1].boxes)
    a, b = (collate(d, [0], 16)[0] for d in (plain, cached))
    assert float((a - b).abs().mean()) < 0.05


def test_pictures_are_kept_in_memory_up_to_a_limit(tmp_path):
    root = folder(tmp_path, [annotation(1)])
    size = 40 * 60 * 3
    kept, none = coco_folder(root, "train", cache_bytes=size), coco_folder(root, "train", cache_bytes=0)
    first = kept[0][0]
    kept[0][0][:] = 0  # a caller's own copy
    for file in ("a.jpg", "b.png"):
        (root / "train" / file).unlink()
    assert np.array_equal(kept[0][0], first)
    for data, index in ((kept, 1), (none, 0)):
        with pytest.raises(UserError, match="does not exist"):
            data[index]


def test_fingerprint(tmp_path):
    root = folder(tmp_path, [annotation(1)])
    first = coco_folder(root, "train").fingerprint
    assert coco_folder(root, "train").fingerprint == first
    picture(root / "train" / "b.png", height=50)
    assert coco_folder(root, "train").fingerprint != first


def test_layouts_and_split_names(tmp_path):
    root = folder(tmp_path, [annotation(1)])
    folder(tmp_path, [annotation(1)], split="valid")
    assert set(find_splits(root)) == {"train", "val"} and len(coco_folder(root, "val")) == 2
    with pytest.raises(UserError, match=r"no split 'test'.*train, val"):
        coco_folder(root, "test")
    coco2017 = tmp_path / "coco"
    picture(coco2017 / "val2017" / "000000000139.jpg")
    images = [{"id": 139, "file_name": "000000000139.jpg", "height": 40, "width": 60}]
    (coco2017 / "annotations").mkdir()
    content = {"images": images, "annotations": [annotation(1, image_id=139)], "categories": CATEGORIES}
    (coco2017 / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    data = coco_folder(coco2017, "valid")
    assert data.split == "val" and data[0][1].image_id == 139
    with pytest.raises(UserError, match="train/_annotations"):
        coco_folder(tmp_path, "train")
    with pytest.raises(UserError, match="does not exist"):
        coco_folder(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="'dev'"):
        canonical_split("dev")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not readable JSON"), ("[]", "no images"), ('{"images": [], "annotations": []}', "no categories")],
)
def test_an_annotation_file_that_is_none(tmp_path, text, message):
    root = folder(tmp_path, [])
    (root / "train" / "_annotations.coco.json").write_text(text)
    with pytest.raises(UserError, match=message):
        coco_folder(root, "train")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((8, 9), 128 * 257, np.uint16)).save(path)
    else:
        Image.new("L", (9, 8), 128).convert("RGB").convert(mode, dither=Image.Dither.NONE).save(path)
    image = read_image(path)
    assert image.shape == (8, 9, 3) and image.dtype == np.uint8
    if mode not in ("1", "P"):  # two values, and a palette of coarse steps
        np.testing.assert_allclose(image, 128, atol=2)


def test_an_uncompressed_run_length_code_is_decoded():
    assert decode_segmentation({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3).tolist() == [
        [False, True, False],
        [True, False, False],
    ]
