"""Kinds of flaws of annotation files: read, reported or refused, the same in every command."""

import json
import re

import numpy as np
import pytest
from data_case import HEIGHT, SMOKE, WIDTH, content, every, make, perfect
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.cli import main
from rfdetr.data.box_formats import check_box_format
from rfdetr.data.checks import summary_line
from rfdetr.data.folders import coco_folder
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import evaluate_detections
from rfdetr.search import fast_ap

# -- the file


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("annotations", None, "'annotations' must be a list of objects, found null"),
        ("annotations", {"1": {}}, "'annotations' must be a list of objects, found an object"),
        ("annotations", "none", "found the text 'none'"),
        ("categories", {"1": "cat"}, "'categories' must be a list of objects, found an object"),
        ("categories", ["cat"], "entry 1 of 'categories' must be an object, found the text 'cat'"),
        ("categories", None, "found null"),
        ("images", 3, "'images' must be a list of objects, found the number 3"),
        ("images", [None], "entry 1 of 'images' must be an object, found null"),
        ("categories", [{"id": None, "name": "cat"}], r"category 1 \(cat\) must have an id.*found null"),
        ("categories", [{"name": "cat"}], "must have an id"),
        ("categories", [{"id": [1], "name": "cat"}], "found a list"),
        ("categories", [{"id": 1, "name": {"en": "cat"}}], "name of category 1 must be a text"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "used twice, for 'a' and for 'b'"),
        ("categories", [{"id": -1, "name": "a"}], "reserved"),
        ("images", [{"file_name": "1.png"}], "must have an id and a file_name; its id is null"),
        ("images", [{"id": True, "file_name": "1.png"}], "its id is true"),
        ("images", [{"id": 1, "file_name": 7}], "its file_name is the number 7"),
        ("images", [{"id": 1, "file_name": ""}], "its file_name is the text"),
    ],
)
def test_a_malformed_file_is_one_line_in_every_command(tmp_path, capsys, key, value, words):
    make(tmp_path, lambda values, split: values.update({key: value}) if split == "train" else None)
    with pytest.raises(UserError, match=words) as caught:
        coco_folder(tmp_path, "train")
    assert "\n" not in str(caught.value) and "train/_annotations.coco.json" in str(caught.value)
    assert main(["data", "check", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert re.search(f"train: cannot be opened: .*{words}", shown) and "val: 2 images" in shown
    assert "`train` will stop: train cannot be opened" in shown
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_are_read(tmp_path, encoding):
    make(tmp_path)
    path = tmp_path / "train" / "_annotations.coco.json"
    path.write_text(json.dumps(content(), ensure_ascii=False), encoding=encoding)
    assert len(coco_folder(tmp_path, "train")) == 2


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": [' + "9" * 5000 + "]}", "\x00", "{'a': 1}"])
def test_json_that_no_reader_takes(tmp_path, text):
    make(tmp_path)
    (tmp_path / "train" / "_annotations.coco.json").write_text(text)
    with pytest.raises(UserError, match="is not readable JSON"):
        coco_folder(tmp_path, "train")


def test_a_split_that_is_broken_does_not_hide_the_others(tmp_path, capsys):
    make(tmp_path)
    (tmp_path / "valid" / "_annotations.coco.json").write_text('{"images": [')
    assert main(["data", "check", str(tmp_path), "--out", str(tmp_path / "found.json")]) == 1
    shown = capsys.readouterr().out
    assert "val: cannot be opened" in shown and "train: 2 images, 4 objects" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["errors"]) == ["val"] and found["splits"]["train"]["statistics"]["objects"] == 4


def test_exit_codes_of_the_check(tmp_path, capsys):
    make(tmp_path / "good")
    assert main(["data", "check", str(tmp_path / "good")]) == 0
    assert "objects per class: cat 2, mouse 2" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "absent")]) == 2
    assert main(["data", "check", str(tmp_path / "good"), "--split", "dev"]) == 2
    make(tmp_path / "one", splits=("test",))
    assert main(["data", "check", str(tmp_path / "one")]) == 0
    assert main(["data", "check", str(tmp_path / "one"), "--split", "val"]) == 2


# -- ids


def as_texts(values, split):
    for annotation in values["annotations"]:
        annotation["category_id"] = str(annotation["category_id"])
        annotation["image_id"] = float(annotation["image_id"])
    for image in values["images"]:
        image["id"] = str(image["id"])


@pytest.mark.parametrize("edited", ["categories", "annotations"])
def test_a_number_and_its_text_are_one_id(tmp_path, edited):
    def edit(values, split):
        if edited == "annotations":
            return as_texts(values, split)
        for category in values["categories"]:
            category["id"] = str(category["id"])

    data = coco_folder(make(tmp_path, edit), "train")
    assert data.category_ids.ids == (1, 2) and [image["id"] for image in data.coco["images"]] == [1, 2]
    assert [len(data[i][1]) for i in (0, 1)] == [2, 2] and not data.report


def test_ids_that_are_texts_are_numbered(tmp_path):
    def edit(values, split):
        names = {1: "left-001", 2: "1" * 30}
        for annotation in values["annotations"]:
            annotation["image_id"] = names[annotation["image_id"]]
            annotation["category_id"] = f"c{annotation['category_id']}"
            annotation["id"] = f"a{annotation['id']}"
        for image in values["images"]:
            image["id"] = names[image["id"]]
        for category in values["categories"]:
            category["id"] = f"c{category['id']}"

    data = coco_folder(make(tmp_path, edit), "train")
    assert [data[i][1].image_id for i in (0, 1)] == [1, 2] and data.class_names == ("cat", "mouse")
    assert sorted(annotation["id"] for annotation in data.coco["annotations"]) == [1, 2, 3, 4]
    assert "image ids that are texts (numbered here)" in data.report.notes
    assert evaluate_detections(data, perfect(data))["AP"] == pytest.approx(1)
    assert len(fast_ap.GroundTruth(data.coco)) == 4


def test_one_picture_under_two_image_ids_is_merged(tmp_path):
    def edit(values, split):
        values["images"].append({**values["images"][0], "id": 77, "file_name": "./1.png"})
        values["annotations"][1]["image_id"] = 77

    data = coco_folder(make(tmp_path, edit), "train")
    assert len(data) == 2 and data[0][1].labels.tolist() == [0, 1]
    assert data.report.counts == {"picture under two image ids (merged)": 1}
    assert "1.png: ids 1 and 77" in str(data.report)


# -- boxes, areas, crowd flags


@pytest.mark.parametrize("value", [None, [300], "300", float("nan"), float("inf"), -1, True, 10**400, {}])
def test_an_area_that_is_none_becomes_that_of_the_box(tmp_path, capsys, value):
    data = coco_folder(make(tmp_path, every("area", value)), "train")
    assert [annotation["area"] for annotation in data.coco["annotations"]] == [300, 360, 300, 360]
    assert data.report.total == 4 and "annotation 2" in str(data.report)
    assert summary_line(data).startswith("4 problems in train, see `data check`: area that is no number")
    assert evaluate_detections(data, perfect(data))["APs"] == pytest.approx(1)


def test_an_area_of_its_own_stays_and_a_missing_one_is_no_problem(tmp_path):
    def edit(values, split):
        values["annotations"][0]["area"] = 123.5
        del values["annotations"][1]["area"]

    data = coco_folder(make(tmp_path, edit), "train")
    assert [annotation["area"] for annotation in data.coco["annotations"]][:2] == [123.5, 360]
    assert not data.report


@pytest.mark.parametrize(
    ("flag", "crowd", "problem"),
    [
        *(("0", 0, False), ("1", 1, False), (None, 0, False), (False, 0, False), (True, 1, False)),
        *((1.0, 1, False), ("no", 0, True), ([], 0, True), (2, 0, True), (float("nan"), 0, True)),
    ],
)
def test_crowd_flags(tmp_path, flag, crowd, problem):
    def edit(values, split):
        values["annotations"][0]["iscrowd"] = flag

    data = coco_folder(make(tmp_path, edit), "train")
    assert data.coco["annotations"][0]["iscrowd"] == crowd and len(data[0][1]) == 2 - crowd
    assert bool(data.report) == problem


def relative(values, split):
    for annotation in values["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def corners(values, split):
    for annotation in values["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("edit", "words"), [(relative, "coordinates must be in pixels"), (corners, "corners x1, y1, x2, y2")]
)
def test_boxes_of_another_format_are_recognised_and_named(tmp_path, capsys, edit, words):
    make(tmp_path, edit)
    assert main(["data", "check", str(tmp_path)]) == 1
    assert words in capsys.readouterr().out
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 2
    assert words in capsys.readouterr().err


inside = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1)).map(
    lambda v: [v[0] * 200, v[1] * 100, (1 - v[0]) * v[2] * 200, (1 - v[1]) * v[3] * 100]
)


@given(st.lists(inside, min_size=1, max_size=12), st.booleans())
def test_boxes_inside_their_pictures_are_taken_as_they_are(boxes, with_areas):
    table = np.array(boxes)
    sizes = np.tile([100.0, 200.0], (len(boxes), 1))
    areas = table[:, 2] * table[:, 3] if with_areas else np.full(len(boxes), np.nan)
    check_box_format("a.json", table, sizes, areas)


@given(st.integers(0, 10_000), st.sampled_from(["none", "corners", "wrong"]))
def test_corners_are_recognised_whatever_the_areas_say(seed, kind):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, [150, 70], (20, 2))
    high = low + rng.uniform(20, 30, (20, 2))
    areas = {
        "none": np.full(20, np.nan),
        "corners": (high - low).prod(axis=1),
        "wrong": high.prod(axis=1),
    }[kind]
    with pytest.raises(UserError, match="corners"):
        check_box_format("a.json", np.concatenate([low, high], 1), np.tile([100.0, 200.0], (20, 1)), areas)


def test_a_box_below_a_pixel_is_reported(tmp_path):
    def edit(values, split):
        values["annotations"][0]["bbox"] = [5, 5, 0.4, 0.4]

    data = coco_folder(make(tmp_path, edit), "train")
    assert data.report.counts["box below a pixel (kept)"] == 1 and len(data[0][1]) == 2
