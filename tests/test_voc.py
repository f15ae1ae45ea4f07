"""Pascal VOC: corners, split lists, and flaws that are reported."""

import data_folders as make
import numpy as np
import pytest
from data_folders import expected, objects_of, voc_object, voc_xml

from rfdetr.data.registry import available_splits, load_dataset
from rfdetr.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))


def add(root, stem, objects, **options):
    make.noise(root / "JPEGImages" / f"{stem}.png", make.seed_of(stem))
    voc_xml(root / "Annotations" / f"{stem}.xml", objects, **options)


def lists(root, **splits):
    for split, lines in splits.items():
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def test_corners_count_from_one_and_are_included(tmp_path):
    root = tmp_path / "set" / "VOC"  # the VOC folder lies one level down
    add(root, "one", [voc_object("dog", 1, 1, 60, 40), voc_object("cat", 11, 6, 20, 15)])
    add(root, "two", [voc_object("cat", 1, 1, 10, 10)])
    add(root, "three", [])
    add(root, "four", [])
    lists(root, train=["one 1", "three -1"], val=["two"], test=["four 0"])
    data = load_dataset(tmp_path / "set", "train")
    assert data.class_names == ("cat", "dog") and len(data) == 2
    _, target = data[0]
    assert target.labels.tolist() == [1, 0]
    # 1..60 is the whole width, 11..20 is ten pixels.
    boxes = [[0.5, 0.5, 1, 1], [15 / 60, 10 / 40, 10 / 60, 10 / 40]]
    np.testing.assert_allclose(target.boxes.numpy(), boxes, rtol=1e-6)


def test_flaws_are_reported_and_never_crash(tmp_path):
    root = tmp_path / "voc"
    objects = [
        voc_object("cat", 5, 5, 5, 5),
        voc_object("cat", 50, 30, 90, 70),
        voc_object("cat", 70, 5, 80, 10),
        voc_object("cat", 3, 3, 9, 9),
        voc_object("cat", 3, 3, 9, 9),
        voc_object("cat", 3, "x", 9, 9),
        voc_object("", 3, 3, 9, 9),
    ]
    add(root, "a", objects, size=(600, 400), file_name="other.png")
    add(root, "b", [voc_object("cat", 1, 1, 5, 5)])
    add(root, "unlisted", [])
    add(root, "broken", [])
    (root / "Annotations" / "broken.xml").write_text("<annotation><object>")
    make.noise(root / "JPEGImages" / "noxml.png", 1)
    lists(root, train=["a"], val=["a", "b"], test=["b", "noxml"])
    data = load_dataset(root, "train", shares={"train": 1})
    # What concerns the whole folder is told with the first split, once.
    assert data.report.counts == {
        "unreadable annotation file (its picture is left out)": 1,
        "picture without an annotation file (left out)": 1,
        "listed picture without annotations (left out)": 1,
        "picture in no split (left out)": 1,
        "file name in the annotations differs (the XML file's own name is used)": 1,
        "box without area (left out)": 1,
        "object given twice (used once)": 1,
        "object without a box of four numbers (left out)": 1,
        "object without a name (left out)": 1,
        "picture in two splits (kept in the first)": 1,
        "wrong image size in the annotations (corrected)": 1,
        "box partly outside its image (clipped)": 1,
        "box wholly outside its image (left out)": 1,
    }
    assert objects_of(data) == {"a": [("cat", 2, 2, 7, 7), ("cat", 49, 29, 11, 11)]}
    # An example says where the object stands, not its number in the conversion.
    assert "a.xml: cat [50, 30, 90, 70]" in data.report.examples["box partly outside its image (clipped)"][0]
    val = load_dataset(root, "val", shares={"train": 1})
    assert objects_of(val).keys() == {"b"}
    assert val.report.counts == {"picture in two splits (kept in the first)": 1}


def test_names_with_spaces_are_whole_lines(tmp_path):
    """Split lists of names such as "IMG 2024-05-01 (1)", which also end in what could be a column."""
    names = {"train": ["IMG 1 (1)", "cut 1", "cut"], "val": ["IMG 2 -1"], "test": ["IMG 3.v2"]}
    for stems in names.values():
        for number, stem in enumerate(stems):
            add(tmp_path / "set", stem, [voc_object("cat", 1, 1, 5 + number, 5)])
    lists(tmp_path / "set", **names)
    for split, stems in names.items():
        data = load_dataset(tmp_path / "set", split)
        assert sorted(objects_of(data)) == sorted(stems) and not data.report


def test_trainval_is_train_where_there_is_no_train(tmp_path):
    for stem in "abcdef":
        add(tmp_path / "set", stem, [voc_object("cat", 1, 1, 5, 5)])
    lists(tmp_path / "set", trainval=list("abcd"), test=list("ef"))
    found = {split: objects_of(load_dataset(tmp_path / "set", split)) for split in ("train", "val", "test")}
    assert sorted(found["train"] | found["val"]) == list("abcd") and len(found["val"]) == 1
    note = load_dataset(tmp_path / "set").split_note
    assert note.startswith("test (2) as given; split made here from the 4 pictures of train: 3 train, 1 val")
    lists(tmp_path / "set", train=list("ab"), val=list("cd"))
    assert sorted(objects_of(load_dataset(tmp_path / "set", "train"))) == list("ab")


def test_a_listed_picture_that_is_not_there_is_missing(tmp_path):
    make.voc(tmp_path / "set")
    path = tmp_path / "set" / "ImageSets" / "Main" / "val.txt"
    path.write_text(path.read_text() + "absent\n")
    with pytest.raises(UserError, match=r"1 of 2 pictures are not in .*the first is absent"):
        load_dataset(tmp_path / "set", "val")
    data = load_dataset(tmp_path / "set", "val", unreadable="skip")
    assert objects_of(data) == expected(make.TRUTH["val"])


def test_polygons_of_points_and_objects_of_polygons_alone(tmp_path):
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((5, 6), (25, 6), (25, 30), (5, 20)))
    polygon = f"<object><name>leaf</name><polygon>{points}</polygon></object>"
    for number in range(3):
        add(tmp_path / "set", f"p{number}", [polygon])
    found = {}
    for split in available_splits(tmp_path / "set"):
        data = load_dataset(tmp_path / "set", split)
        assert data.has_masks
        found |= objects_of(data)
    assert found == expected({f"p{number}": [("leaf", 5, 6, 20, 24)] for number in range(3)})


def test_two_lists_of_two_sets_are_not_mixed(tmp_path):
    make.voc(tmp_path / "set" / "VOC2007")
    make.voc(tmp_path / "set" / "VOC2012")
    with pytest.raises(UserError, match="give one of them"):
        load_dataset(tmp_path / "set")
    assert len(load_dataset(tmp_path / "set" / "VOC2007")) == 3
