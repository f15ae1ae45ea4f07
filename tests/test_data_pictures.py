"""Pictures and splits of a folder: where they may lie, how they are turned, how splits fit each other."""

import json

import numpy as np
import pytest
from data_case import HEIGHT, SMOKE, WIDTH, every, make, picture
from PIL import Image

from rfdetr.cli import main
from rfdetr.data.checks import compare_splits
from rfdetr.data.folders import coco_folder, image_files
from rfdetr.data.images import read_image
from rfdetr.data.inspection import inspect_dataset
from rfdetr.errors import UserError

# -- pictures


def test_file_names_stay_in_the_folder_of_the_dataset(tmp_path):
    root = tmp_path / "set"
    picture(tmp_path / "secret.png")

    def named(name):
        def edit(values, split):
            values["images"][0]["file_name"] = name

        return edit

    for name in ("../../secret.png", str(tmp_path / "secret.png"), "x/../../../secret.png"):
        with pytest.raises(UserError, match=r"secret\.png lies outside the dataset's folder"):
            coco_folder(make(root, named(name)), "train")
    for name in ("../valid/1.png", str(root / "valid" / "1.png"), "./1.png"):
        assert coco_folder(make(root, named(name)), "train")[0][0].shape == (HEIGHT, WIDTH, 3)
    (root / "train" / "deep").mkdir()
    picture(root / "train" / "deep" / "3.png")
    assert len(coco_folder(make(root, named("deep\\3.png")), "train")) == 2
    linked = tmp_path / "link"
    linked.symlink_to(root)
    assert len(coco_folder(linked, "train")) == 2


def turned(root, told, orientation=6, names=(1, 2)):
    """Pictures stored as 40 x 60 with an orientation tag, annotated with the sizes `told`."""

    def edit(values, split):
        for image, (height, width) in zip(values["images"], told, strict=True):
            image["height"], image["width"] = height, width

    make(root, edit, splits=("train",))
    tag = Image.Exif()
    tag[0x0112] = orientation
    for name in names:
        picture(root / "train" / f"{name}.png", seed=name, exif=tag)
    return coco_folder(root, "train")


def test_orientation_is_applied_where_the_annotated_size_is_that_of_the_picture_as_shown(tmp_path):
    shown = turned(tmp_path / "a", [(60, 40), (60, 40)])
    assert shown[0][0].shape == (60, 40, 3) and shown[0][1].size == (60, 40)
    np.testing.assert_array_equal(shown[0][0], read_image(shown.files[0]))
    assert shown.report.notes["pictures with an orientation tag, annotated and read as shown"] == 2
    assert "wrong image size" not in str(shown.report)
    stored = turned(tmp_path / "b", [(40, 60), (40, 60)])
    assert stored[0][0].shape == (40, 60, 3) and not stored.report
    assert stored.report.notes["pictures with an orientation tag, annotated and read as stored"] == 2


@pytest.mark.parametrize(("first", "expected"), [((60, 40), (60, 40)), ((40, 60), (40, 60))])
def test_an_open_orientation_follows_the_other_pictures(tmp_path, first, expected):
    data = turned(tmp_path, [first, (7, 7)])
    assert data[1][0].shape[:2] == data[1][1].size == expected
    assert data.report.counts["orientation tag that the annotated size does not explain"] == 1


def test_an_open_orientation_is_taken_as_shown(tmp_path):
    data = turned(tmp_path, [(40, 60), (40, 60)], orientation=3)
    np.testing.assert_array_equal(data[0][0], read_image(data.files[0]))
    assert data.report.total == 2


def test_values_of_pictures_are_reported_and_refused_before_the_first_step(tmp_path, capsys):
    make(tmp_path)
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(grey).save(tmp_path / "train" / "1.png")
    assert coco_folder(tmp_path, "train").report.notes == {"16-bit pictures (divided by 257)": 1}
    Image.fromarray(grey // 16).save(tmp_path / "train" / "1.png")
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 2
    assert "1.png holds 16-bit values of at most 4095" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "unreadable picture (left out): 1" in shown and "`train` will stop: train: unreadable" in shown


def test_hidden_files_are_no_pictures(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png"]


def test_twins_and_leaks_are_found(tmp_path, capsys):
    make(tmp_path)
    (tmp_path / "valid" / "2.png").write_bytes((tmp_path / "train" / "1.png").read_bytes())
    found = inspect_dataset(str(tmp_path))
    (leak,) = found.between.problems["the same picture in two splits"]
    assert leak.text == "1.png of train is 2.png of val" and not found.stopping
    (tmp_path / "train" / "2.png").write_bytes((tmp_path / "train" / "1.png").read_bytes())
    assert inspect_dataset(str(tmp_path)).reports["train"].counts == {"the same picture under two names": 1}


# -- splits


def renamed(change):
    def edit(values, split):
        if split == "valid":
            change(values)

    return edit


def swap(values):
    values["categories"] = [{"id": 1, "name": "mouse"}, {"id": 2, "name": "cat"}]


def lack(values):
    values["categories"].pop()
    values["annotations"] = [a for a in values["annotations"] if a["category_id"] == 1]


def declare(values):
    values["categories"].append({"id": 9, "name": "dog"})


@pytest.mark.parametrize("change", [swap, lack, declare])
def test_another_order_and_a_missing_class_are_no_problem(tmp_path, change):
    make(tmp_path, renamed(change))
    assert compare_splits(coco_folder(tmp_path, "train"), coco_folder(tmp_path, "val")) == []
    assert main(["data", "check", str(tmp_path)]) == 0
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 0


@pytest.mark.parametrize("name", ["dog", "Mouse "])
def test_a_class_that_only_val_has_stops_before_the_first_step(tmp_path, capsys, name):
    make(tmp_path, renamed(lambda values: values["categories"][1].update(name=name)))
    assert main(["data", "check", str(tmp_path)]) == 1
    words = f"val has 2 objects of the class {name!r}, which train does not have"
    assert words in capsys.readouterr().out
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 2
    message = capsys.readouterr().err
    assert words in message and ("is it 'mouse'" in message) == (name != "dog")


@pytest.mark.parametrize("edit", [every("iscrowd", 1), lambda values, split: values["annotations"].clear()])
def test_data_without_objects_are_named_before_the_first_step(tmp_path, capsys, edit):
    make(tmp_path, edit)
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *SMOKE]) == 2
    assert "there is nothing to learn from: " in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "`train` will stop: train: no object to learn from" in capsys.readouterr().out


def test_an_undefined_ap_has_its_reason(tmp_path, capsys):
    make(tmp_path, lambda values, split: values["annotations"].clear() if split != "train" else None)
    run = tmp_path / "out"
    assert main(["train", "--data", str(tmp_path), "--out", str(run), *SMOKE]) == 0
    assert "AP on val is undefined" in capsys.readouterr().out
    command = [str(run), "--data", str(tmp_path), "--split", "test"]
    assert main(["evaluate", *command, "--out", str(tmp_path / "n.json")]) == 0
    assert "undefined: no objects" in capsys.readouterr().out
    found = json.loads((tmp_path / "n.json").read_text(), parse_constant=pytest.fail)
    assert found["AP"] is None and found["per_class"] == {"cat": None, "mouse": None}
    assert main(["search", *command, "--profile", "smoke", "--out", str(tmp_path / "search")]) == 2
    assert "AP is undefined" in capsys.readouterr().err
