"""Numbers of a dataset, its contact sheet, and masks made by a segmenter."""

import json

import data_folders as make
import numpy as np
import pytest
from PIL import Image

from rfdetr.cli import main
from rfdetr.data import pseudo_masks
from rfdetr.data.drawing import class_colour, contact_sheet
from rfdetr.data.pseudo_masks import add_masks
from rfdetr.data.registry import load_dataset
from rfdetr.data.scenes import scenes
from rfdetr.data.statistics import Spread, Statistics
from rfdetr.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))


def opened(folder):
    return {split: load_dataset(folder, split) for split in make.TRUTH}


def test_numbers_of_a_small_set(tmp_path, capsys):
    make.roboflow(tmp_path / "set")
    found = Statistics.of(*opened(tmp_path / "set").values())
    # Boxes: 20x10, 12x30, 60x40; 6x6; 7x8, 40x30 px on pictures of 60x40.
    assert (found.images, found.objects, found.empty, found.masks) == (5, 6, 1, 0)
    assert found.classes == {"dog": 3, "cat": 3}
    assert found.per_image.median == 1 and found.per_image.maximum == 2 and found.per_image.mean == 1.2
    shares = np.array([200, 360, 2400, 36, 56, 1200]) / 2400
    assert found.share.median == pytest.approx(np.median(shares)) and found.share.maximum == 1
    assert found.side.maximum == pytest.approx(2400**0.5) and found.small == 4 and found.tiny == 0
    assert found.sizes == {(60, 40): 5} and found.modes == {"RGB": 5}
    assert main(["data", "stats", str(tmp_path / "set"), "--out", str(tmp_path / "n.json")]) == 0
    shown = capsys.readouterr().out
    assert (
        "5 images, 6 objects" in shown
        and "objects per image" in shown
        and "modes of the files: RGB 5" in shown
    )
    written = json.loads((tmp_path / "n.json").read_text())
    assert written["sizes"] == {"60x40": 5} and written["classes"]["cat"] == 3
    assert main(["data", "stats", str(tmp_path / "set"), "--split", "valid"]) == 0
    assert "1 images, 1 objects" in capsys.readouterr().out


def test_numbers_without_objects_and_of_scenes():
    assert np.isnan(Spread.of([]).median)
    found = Statistics.of(scenes("digits", "train", size=5))
    assert found.images == 5 and found.objects == sum(found.classes.values()) and found.modes == {}
    with pytest.raises(UserError, match="at least one split"):
        Statistics.of()


def test_regions_to_ignore_are_counted_once(tmp_path):
    """A region that is no object stands for a crowd region of every class."""
    from rfdetr.data.conversion import Reading, look, open_split

    make.yolo(tmp_path / "set", setup="names: [cat, dog]\n")
    opened = look(tmp_path / "set", Reading(classes=("cat",), ignore=("dog",)))
    splits = [open_split(opened, tmp_path / "set", split, "set") for split in opened.files]
    found = Statistics.of(*splits)
    assert found.classes == {"cat": 3} and found.ignored == {"dog": 3} and found.crowds == 0
    with pytest.raises(UserError, match=r"class 'dog' of .* is not among cat: add it"):
        look(tmp_path / "set", Reading(classes=("cat",)))
    renamed = look(tmp_path / "set", Reading(rename={"cat": "lion"}))
    assert open_split(renamed, tmp_path / "set", "train", "set").class_names == ("lion", "dog")


def test_a_contact_sheet_shows_boxes_and_masks(tmp_path, capsys):
    make.voc_beside(tmp_path / "set", masks=True)
    for folder in ("train", "val", "test"):  # plain pictures, so that colours can be told
        for path in (tmp_path / "set" / "images" / folder).glob("*.png"):
            Image.new("RGB", (60, 40), "grey").save(path)
    assert (
        main(["data", "show", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png"), "--count", "6"])
        == 0
    )
    assert "written: " in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    for label in (0, 1):
        assert (sheet == class_colour(label)).all(axis=2).sum() > 300
        tint = (0.55 * 128 + 0.45 * np.array(class_colour(label))).astype(np.uint8)
        assert (sheet == tint).all(axis=2).sum() > 300
    assert main(["data", "show", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.txt")]) == 2
    assert "ends in .png" in capsys.readouterr().err
    again = contact_sheet(opened(tmp_path / "set"), "set: 3 train, 1 val, 1 test", 6)
    assert np.array_equal(np.asarray(again), sheet)


def test_a_sheet_of_scenes_and_of_crowded_pictures():
    sheet = contact_sheet({"train": scenes("crowd", "train", size=3)}, "crowd")
    assert sheet.width == 1480 and sheet.height > 360


def disc(image, boxes):
    """A stand-in for SAM 2: the ellipse in every box, and all of the picture's corner."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    masks = []
    for left, top, right, bottom in boxes:
        x, y, w, h = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
        inside = ((columns - x) / w) ** 2 + ((rows - y) / h) ** 2 <= 1
        inside[:2, :2] = True
        masks.append(inside)
    return np.array(masks)


def test_masks_by_a_segmenter_are_resumed_and_stay_in_their_boxes(tmp_path):
    make.roboflow(tmp_path / "set")
    splits = opened(tmp_path / "set")
    seen = []

    def stops(image, boxes):
        seen.append(len(boxes))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return disc(image, boxes)

    with pytest.raises(KeyboardInterrupt):
        add_masks(splits, tmp_path / "out", stops)
    assert not (tmp_path / "out").exists()
    with (tmp_path / ".out.masks" / "train.jsonl").open("a") as file:
        file.write('{"image": 5, "ma')  # killed while it wrote
    calls = []

    def counted(image, boxes):
        calls.append(len(boxes))
        return disc(image, boxes)

    add_masks(splits, tmp_path / "out", counted)
    assert seen[0] == 2 and sum(calls) == 4 and not (tmp_path / ".out.masks").exists()
    for split in make.TRUTH:
        data = load_dataset(tmp_path / "out", split)
        assert data.has_masks and make.objects_of(data) == make.expected(make.TRUTH[split])
        for _, target in data:
            for mask, (cx, _, w, h) in zip(target.masks.numpy(), target.boxes.numpy(), strict=True):
                _, columns = np.nonzero(mask)
                assert columns.min() >= round((cx - w / 2) * 60) and columns.max() < round((cx + w / 2) * 60)
                assert mask.sum() == pytest.approx(np.pi / 4 * w * h * 2400, rel=0.25)


def test_an_empty_mask_becomes_its_box_and_sam2_is_asked_for(tmp_path, capsys, monkeypatch):
    make.roboflow(tmp_path / "set")
    nothing = lambda image, boxes: np.zeros((len(boxes), *image.shape[:2]), dtype=bool)  # noqa: E731
    add_masks(opened(tmp_path / "set"), tmp_path / "out", nothing)
    data = load_dataset(tmp_path / "out", "val")
    assert data[0][1].masks.sum() == 36
    monkeypatch.setitem(__import__("sys").modules, "sam2", None)
    assert main(["data", "masks", str(tmp_path / "set"), str(tmp_path / "new")]) == 2
    assert "pip install sam2" in capsys.readouterr().err
    monkeypatch.setattr(pseudo_masks, "sam2_segmenter", lambda *_: disc)
    assert main(["data", "masks", str(tmp_path / "set"), str(tmp_path / "new")]) == 0
    assert load_dataset(tmp_path / "new", "test").has_masks
    assert main(["data", "masks", str(tmp_path / "set"), str(tmp_path / "new")]) == 2
