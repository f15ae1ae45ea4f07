"""What people's files hold besides the usual: other encodings, texts for numbers, numbers that are none, dead
links. It is read in the one sensible way, or left out and reported, or refused in one line.
"""

import json
import re

import data_folders as make
import pytest
from data_folders import TRUTH, expected, objects_of

from rfdetr.cli import main
from rfdetr.data.registry import load_dataset
from rfdetr.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("RFDETR_MIRROR", raising=False)


def coco_files(root, edit=lambda content, split: None, encoding="utf-8"):
    """A layout that is converted: labels/train.json and so on, the pictures in pics/."""
    for split, pictures in TRUTH.items():
        make.pictures_to(root / "pics", pictures)
        content = make.coco_content(pictures)
        edit(content, split)
        path = root / "labels" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json.dumps(content).encode(encoding))
    return root


def texts_in_another_order(content, split):
    """Only after train; ids of categories and pictures are texts in the annotations."""
    if split != "train":
        content["categories"] = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = {7: "3", 3: "7"}[annotation["category_id"]]
            annotation["image_id"] = str(annotation["image_id"])


def test_ids_that_are_texts_mean_the_same_in_every_file(tmp_path):
    root = coco_files(tmp_path / "set", texts_in_another_order)
    for split, pictures in TRUTH.items():
        assert objects_of(load_dataset(root, split)) == expected(pictures)


def test_categories_of_one_name_stay_apart_in_every_file(tmp_path):
    root = coco_files(tmp_path / "set", lambda content, _: content["categories"][0].update(name="dog"))
    found = [load_dataset(root, split) for split in TRUTH]
    assert all(data.class_names == ("dog", "dog") for data in found)
    assert [a["category_id"] for a in found[2].coco["annotations"]] == [7, 3]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content["annotations"].append(None), ""),
        (lambda content: content["annotations"][0].update(image_id=[1]), ""),
        (lambda content: content["annotations"][0].update(category_id=[1]), "unknown category id"),
        (lambda content: content["annotations"][0].update(category_id=5), "unknown category id 5"),
        (lambda content: content["categories"].append({"name": "x"}), "must have an id"),
        (lambda content: content["categories"][0].update(id={}), "must have an id"),
        (lambda content: content["images"][0].update(id={}), "must have an id"),
        (lambda content: content["images"][0].update(file_name=7), r"1 of \d pictures"),
    ],
)
def test_entries_that_are_none_are_one_line_or_a_report(tmp_path, capsys, edit, words):
    root = coco_files(tmp_path / "set", lambda content, split: edit(content) if split == "val" else None)
    if words:
        with pytest.raises(UserError, match=words) as raised:
            load_dataset(root, "val")
        assert str(root) in str(raised.value)
    else:
        assert any("left out" in kind for data in map(load_dataset, [root]) for kind in data.report.counts)
    assert main(["data", "check", str(root)]) == 1
    assert re.search(f"{words}|missing picture", capsys.readouterr().out)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_is_followed_in_every_format(tmp_path, encoding):
    def rewritten(root, pattern):
        for path in root.rglob(pattern):
            path.write_bytes(path.read_text().encode(encoding))
        return objects_of(load_dataset(root, "train"))

    coco_files(tmp_path / "coco", encoding=encoding)
    assert objects_of(load_dataset(tmp_path / "coco", "train")) == expected(TRUTH["train"])
    make.yolo(tmp_path / "yolo", setup="names: [no, dog]\n")  # "no" is no truth value
    (tmp_path / "yolo/data.yaml").write_bytes((tmp_path / "yolo/data.yaml").read_text().encode(encoding))
    found = rewritten(tmp_path / "yolo", "*.txt")
    assert {name for objects in found.values() for name, *_ in objects} == {"no", "dog"}
    make.csv_tables(tmp_path / "csv")
    assert rewritten(tmp_path / "csv", "*.csv").keys() == {"p 0", "p2"}
    make.voc(tmp_path / "voc")
    assert rewritten(tmp_path / "voc", "ImageSets/*/*.txt") == expected(TRUTH["train"])
    make.custom_vision(tmp_path / "vision")
    assert rewritten(tmp_path / "vision", "*.json")


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "windows-1252"])
def test_xml_in_an_older_encoding_is_read(tmp_path, encoding):
    make.voc(tmp_path / "set")
    name = "caf\xe9" if encoding == "windows-1252" else "\u732b"  # a word for cat
    for path in (tmp_path / "set").rglob("*.xml"):
        text = path.read_text().replace(">cat<", f">{name}<")
        path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    data = load_dataset(tmp_path / "set", "train")
    assert sorted(data.class_names) == sorted([name, "dog"]) and not data.report


def test_a_table_in_the_code_page_of_windows_finds_its_pictures(tmp_path):
    truth = {"train": {"caf\xe9": [("cat", 3, 4, 20, 10)]}, "val": {"b": [("dog", 3, 4, 9, 9)]}}
    make.csv_tables(tmp_path / "set", truth)
    for path in (tmp_path / "set").rglob("*.csv"):
        path.write_bytes(path.read_text().encode("cp1252"))
    assert objects_of(load_dataset(tmp_path / "set", "train")) == expected(truth["train"])


@pytest.mark.parametrize("word", ["nan", "inf", "-1e999"])
def test_numbers_that_are_none_cost_their_object_alone(tmp_path, word):
    make.voc(tmp_path / "voc")
    path = tmp_path / "voc/Annotations/p 0.xml"
    path.write_text(
        path.read_text().replace("<xmax>23<", f"<xmax>{word}<").replace("<width>60<", f"<width>{word}<")
    )
    data = load_dataset(tmp_path / "voc", "train")
    assert objects_of(data)["p 0"] == [("cat", 30, 8, 12, 30)]
    assert data.report.counts == {"object without a box of four numbers (left out)": 1}
    make.csv_tables(tmp_path / "csv")
    path = tmp_path / "csv/images/train_labels.csv"
    path.write_text(path.read_text().replace("60,40,dog,3,4,23,14", f"{word},{word},dog,3,4,{word},14"))
    data = load_dataset(tmp_path / "csv", "train")
    assert objects_of(data)["p 0"] == [("cat", 30, 8, 12, 30)] and data.report.total == 1


@pytest.mark.parametrize("write", [make.yolo, make.voc, make.csv_tables])
def test_a_link_to_nothing_is_a_missing_picture(tmp_path, write):
    write(tmp_path / "set")
    path = next((tmp_path / "set").rglob("p 0.png"))
    path.unlink()
    path.symlink_to(tmp_path / "moved.png")
    with pytest.raises(UserError, match=r"1 of \d pictures are not in .*--skip-missing"):
        load_dataset(tmp_path / "set", "train")
    data = load_dataset(tmp_path / "set", "train", unreadable="skip")
    assert objects_of(data)["p2"] == [("cat", 0, 0, 60, 40)] and "p 0" not in objects_of(data)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3)])
def test_key_points_are_no_outline(tmp_path, shape):
    make.yolo(tmp_path / "set", setup=f"names: [cat, dog]\nkpt_shape: {list(shape)}\n")
    for path in (tmp_path / "set").glob("*/labels/*.txt"):
        points = " 0.1" * (shape[0] * shape[1])
        path.write_text("".join(f"{line}{points}\n" for line in path.read_text().splitlines()))
    data = load_dataset(tmp_path / "set", "train")
    assert objects_of(data) == expected(TRUTH["train"]) and not data.has_masks and not data.report
    assert data.report.notes["objects with key points (their boxes alone are read)"] == 3


def test_a_class_number_without_names_is_no_count_of_classes(tmp_path):
    make.yolo(tmp_path / "set", setup="")
    (tmp_path / "set/valid/labels/p3.txt").write_text("4000000000 0.5 0.5 0.1 0.1")
    with pytest.raises(UserError, match=r"p3\.txt: line 1 has the class number 4000000000"):
        load_dataset(tmp_path / "set", "train")


@pytest.mark.parametrize("after", [3, 9000])
def test_an_open_quotation_mark_swallows_no_rows(tmp_path, after):
    make.csv_tables(tmp_path / "set")
    path = tmp_path / "set/images/val_labels.csv"
    rows = "p3.png,60,40,dog,1,1,9,9\n" * after
    path.write_text(f'{path.read_text()}p3.png,60,40,"dog,1,1,9,9\n{rows}')
    with pytest.raises(UserError, match=r"val_labels\.csv: the row that begins in line 3 .*quotation mark"):
        load_dataset(tmp_path / "set", "train")


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "p1", "regions": 5},
        {"id": [], "imageUri": 5, "regions": [[]]},
        {"id": "p1", "regions": [{"tagName": None, "left": 0, "top": 0, "width": 0.5, "height": 0.5}]},
    ],
)
def test_odd_entries_of_custom_vision_hide_no_others(tmp_path, entry):
    make.custom_vision(tmp_path / "set", {k: v for k, v in make.ONE[None].items() if k != "p1"})
    make.pictures_to(tmp_path / "set/model/images", {"p1": []})
    path = tmp_path / "set/model/dataset.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), entry]))
    names = set()
    for split in TRUTH:
        data = load_dataset(tmp_path / "set", split, unreadable="skip")
        names |= set(data.class_names)
    assert names == {"cat", "dog"}


def test_two_pictures_of_one_name_but_for_its_ending(tmp_path):
    make.yolo(tmp_path / "yolo")
    make.noise(tmp_path / "yolo/train/images/p2.bmp", 5)
    data = load_dataset(tmp_path / "yolo", "train")
    assert len(data) == 4 and len(data.coco["annotations"]) == 4  # both p2 have the object
    assert data.report.counts == {"label file of several pictures (used for each)": 1}
    make.voc(tmp_path / "voc")
    make.noise(tmp_path / "voc/JPEGImages/p2.bmp", 5)  # the XML file names p2.png
    data = load_dataset(tmp_path / "voc", "train")
    assert [image["file_name"] for image in data.coco["images"]][-1] == "JPEGImages/p2.png"
    assert data.report.counts == {"picture without an annotation file (left out)": 1}


@pytest.mark.parametrize("write", [make.voc, make.csv_tables])
def test_a_class_written_in_two_ways_is_said_and_no_error(tmp_path, capsys, write):
    write(tmp_path / "set")
    for path in [*(tmp_path / "set").rglob("p3.xml"), *(tmp_path / "set").rglob("val*.csv")]:
        path.write_text(path.read_text().replace("dog", "Dog"))
    words = "val has 1 object of the class 'Dog', and train has none (is it 'dog', written otherwise?)"
    assert main(["data", "check", str(tmp_path / "set")]) == 1
    said = capsys.readouterr().out
    assert words in said and "`train` will stop" not in said
    small = ["--profile", "smoke", "--steps", "1", "--batch-size", "2", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(tmp_path / "set"), *small]) == 0
    assert words in capsys.readouterr().out


def test_a_report_names_the_users_files_and_not_the_conversion(tmp_path, capsys):
    make.voc(tmp_path / "set")
    for path in (tmp_path / "set/Annotations").glob("*.xml"):
        make.voc_xml(path, [])
    assert main(["data", "check", str(tmp_path / "set")]) == 1
    assert main(["train", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "run")]) == 2
    said = "".join(capsys.readouterr())
    assert f"{tmp_path / 'set'} (the Pascal VOC annotations) has no objects" in said
    assert str(tmp_path / "home") not in said


def test_half_a_letter_in_a_name_is_replaced_and_the_name_can_be_stored(tmp_path):
    root = coco_files(tmp_path / "set", lambda content, _: content["categories"][0].update(name="cat \ud83d"))
    assert load_dataset(root).class_names == ("dog", "cat ?")


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "digits", "--out"],
        ["data", "stats", "digits", "--out"],
        ["data", "show", "digits", "--out"],
        ["data", "convert", "SET"],
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys, command):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("rfdetr.data.registry.load_dataset", lambda *a, **k: pytest.fail("began"))
    monkeypatch.setattr("rfdetr.data.inspection.load_dataset", lambda *a, **k: pytest.fail("began"))
    for target in (tmp_path / "folder", tmp_path / "file" / "x.png"):
        assert main([*command, str(target)]) == 2
        assert str(tmp_path) in capsys.readouterr().err
