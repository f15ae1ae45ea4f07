"""Folders in every format give the same pictures, objects and masks; broken ones say what is wrong."""

import json
import shutil

import data_folders as make
import numpy as np
import pytest
from data_folders import ONE, TRUTH, expected, objects_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rfdetr.cli import main
from rfdetr.data.conversion import look
from rfdetr.data.registry import available_splits, load_dataset
from rfdetr.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("RFDETR_MIRROR", raising=False)
    return tmp_path / "home"


FORMATS = {
    "roboflow": (make.roboflow, "COCO JSON"),
    "coco 2017": (make.coco_2017, "COCO JSON"),
    "almost coco": (make.almost_coco, "COCO JSON"),
    "voc": (make.voc, "Pascal VOC"),
    "voc with a column": (lambda root: make.voc(root, line="{} -1"), "Pascal VOC"),
    "voc with suffixes": (lambda root: make.voc(root, line="{}.png"), "Pascal VOC"),
    "voc beside": (make.voc_beside, "Pascal VOC"),
    "yolo": (make.yolo, "YOLO"),
    "yolo, absolute paths": (lambda root: make.yolo(root, prefix="/content/set-1/"), "YOLO"),
    "yolo, names as a mapping": (lambda root: make.yolo(root, setup="names: {0: cat, 1: dog}\n"), "YOLO"),
    "yolo, a path": (lambda root: make.yolo(root, setup="path: ..\nnames: [cat, dog]\n", prefix=""), "YOLO"),
    "csv": (make.csv_tables, "CSV"),
    "csv without a header": (lambda root: make.csv_tables(root, header=False), "CSV"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_splits_and_objects_of_every_format(tmp_path, name):
    write, kind = FORMATS[name]
    write(tmp_path / "set")
    assert look(tmp_path / "set").kind == kind
    assert available_splits(tmp_path / "set") == ("train", "val", "test")
    for split, pictures in TRUTH.items():
        data = load_dataset(tmp_path / "set", split)
        truth = expected(pictures)
        if name == "csv":  # a table with a header has no way to list a picture without objects
            truth = {stem: objects for stem, objects in truth.items() if objects}
        assert objects_of(data) == truth and data.class_names in (("cat", "dog"), ("dog", "cat"))
        assert data.name == "set" and data.split_note == "" and not data.has_masks and not data.report
        stems = [image["file_name"].rsplit("/", 1)[-1][:-4] for image in data.coco["images"]]
        for index, stem in enumerate(stems):  # the right picture belongs to the objects
            pixels = np.random.default_rng(make.seed_of(stem)).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            assert np.array_equal(data[index][0], pixels)


UNSPLIT = {
    "one coco file": lambda root: make.one_coco_file(root, ONE[None]),
    "coco beside": lambda root: (
        make.pictures_to(root, ONE[None]),
        make.write_json(root / "_annotations.coco.json", make.coco_content(ONE[None])),
    ),
    "coco, cvat": lambda root: (
        make.pictures_to(root / "images", ONE[None]),
        make.write_json(root / "annotations" / "instances_default.json", make.coco_content(ONE[None])),
    ),
    "voc": lambda root: make.voc(root, ONE),
    "voc beside": lambda root: make.voc_beside(root, ONE),
    "csv": lambda root: make.csv_tables(root, ONE, header=False),
    "custom vision": make.custom_vision,
}


@pytest.mark.parametrize("name", UNSPLIT)
def test_a_folder_without_splits_gets_them(tmp_path, name):
    UNSPLIT[name](tmp_path / "set")
    splits = {split: load_dataset(tmp_path / "set", split) for split in ("train", "val", "test")}
    found = [objects_of(data) for data in splits.values()]
    assert [len(part) for part in found] == [3, 1, 1]
    assert {stem: objects for part in found for stem, objects in part.items()} == expected(ONE[None])
    assert all(
        "split made here from its 5 pictures: 3 train, 1 val, 1 test" in d.split_note for d in splits.values()
    )
    assert splits["train"].class_names == splits["test"].class_names


@pytest.mark.parametrize(
    "write",
    [
        lambda root: make.yolo(root, masks=True),
        lambda root: make.voc_beside(root, masks=True),
        lambda root: make.roboflow(root, masks=True),
    ],
    ids=["yolo", "voc", "coco"],
)
def test_polygons_become_masks(tmp_path, write):
    write(tmp_path / "set")
    data = load_dataset(tmp_path / "set", "test")
    assert data.has_masks and objects_of(data) == expected(TRUTH["test"])
    _, target = data[0]
    assert target.masks.shape == (2, 40, 60)
    for mask, box in zip(target.masks.numpy(), data.coco["annotations"], strict=True):
        x, y, w, h = map(int, box["bbox"])
        inside = mask[y : y + h + 1, x : x + w + 1]  # COCO's outlines cover the pixels that they touch
        assert inside.sum() == mask.sum() > 0.7 * w * h and not mask[y + h - 1, x]  # the cut corner


def test_a_png_for_every_object(tmp_path):
    pictures = {stem: objects for stem, objects in ONE[None].items() if objects}
    make.png_masks(tmp_path / "set", pictures)
    opened = look(tmp_path / "set")
    assert opened.kind == "PNG masks" and "split made here from its 4 pictures" in opened.note
    found = {}
    for split in opened.files:
        data = load_dataset(tmp_path / "set", split)
        assert data.has_masks and data.class_names == ("object",)
        found |= {stem: sorted(box for _, *box in objects) for stem, objects in objects_of(data).items()}
        for _, target in data:
            corners = target.boxes.numpy() * [60, 40, 60, 40]
            assert np.allclose(target.masks.sum((1, 2)).numpy(), corners[:, 2] * corners[:, 3])
    assert found == {stem: sorted(box for _, *box in o) for stem, o in expected(pictures).items()}


def test_deep_pcb(tmp_path):
    make.pair_lists(tmp_path / "set")
    names = {"cat": "mousebite", "dog": "open"}
    for split, pictures in TRUTH.items():
        data = load_dataset(tmp_path / "set", split)
        truth = {f"{s}_test": [(names[n], *box) for n, *box in o] for s, o in pictures.items()}
        assert objects_of(data) == expected(truth)
        assert not data.report
        assert data.class_names == ("open", "short", "mousebite", "spur", "copper", "pin-hole")


boxes = st.tuples(
    st.sampled_from(make.NAMES),
    st.integers(0, 49),
    st.integers(0, 29),
    st.integers(2, 11),
    st.integers(2, 11),
)


@settings(max_examples=10)
@given(st.lists(st.lists(boxes, max_size=4, unique=True), min_size=3, max_size=5))
def test_any_boxes_are_read_the_same_from_every_format(tmp_path_factory, content):
    """YOLO, VOC, CSV and COCO tell the same truth."""
    content[0].append(("cat", 1, 2, 3, 4))  # both classes occur, so that no reader may leave one out
    content[0].append(("dog", 5, 2, 3, 4))
    content[0] = list(dict.fromkeys(content[0]))
    pictures = {None: {f"p{i}": objects for i, objects in enumerate(content)}}
    root = tmp_path_factory.mktemp("any")
    make.voc_beside(root / "voc", pictures)
    make.csv_tables(root / "csv", pictures, header=False)
    make.one_coco_file(root / "coco", pictures[None])
    make.yolo(root / "yolo", {"train": pictures[None]})
    for kind in ("voc", "csv", "coco", "yolo"):
        found = {}
        for split in available_splits(root / kind):
            found |= objects_of(load_dataset(root / kind, split))
        assert found == expected(pictures[None]), kind


def test_a_yolo_folder_without_a_yaml(tmp_path):
    make.yolo(tmp_path / "set", setup="")
    assert load_dataset(tmp_path / "set", "train").class_names == ("0", "1")
    (tmp_path / "set" / "classes.txt").write_text("cat\ndog\n")
    data = load_dataset(tmp_path / "set", "train")
    assert data.class_names == ("cat", "dog") and objects_of(data) == expected(TRUTH["train"])


def test_darknet_lists(tmp_path):
    make.pictures_to(tmp_path / "set" / "obj", ONE[None])
    for stem, objects in ONE[None].items():
        lines = [make.yolo_line(*item) for item in objects]
        (tmp_path / "set" / "obj" / f"{stem}.txt").write_text("\n".join(lines))
    (tmp_path / "set" / "obj.names").write_text("cat\ndog\n")
    for split, pictures in TRUTH.items():
        lines = [f"data/obj/{stem}.png\n" for stem in pictures]
        (tmp_path / "set" / f"{split}.txt").write_text("".join(lines))
    for split, pictures in TRUTH.items():
        assert objects_of(load_dataset(tmp_path / "set", split)) == expected(pictures)


def test_names_of_different_splits_in_two_folders_do_not_meet(tmp_path):
    """1.png in train and in test are two pictures, in formats that name them alike."""
    for split, seed in (("train", 1), ("val", 2), ("test", 3)):
        make.noise(tmp_path / "csv" / "images" / split / "1.png", seed)
        make.csv_rows(tmp_path / "csv" / f"{split}.csv", [("1.png", 1, 1, 9, 9 + seed, "cat")])
        make.noise(tmp_path / "voc" / split / "1.png", seed)
        make.voc_xml(tmp_path / "voc" / split / "1.xml", [make.voc_object("cat", 2, 2, 9, 9 + seed)])
    for kind in ("csv", "voc"):
        for split, seed in (("train", 1), ("val", 2), ("test", 3)):
            data = load_dataset(tmp_path / kind, split)
            image, target = data[0]
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            assert np.array_equal(image, pixels) and target.boxes[0, 3] * 40 == pytest.approx(8 + seed)


def test_category_and_image_ids_of_a_coco_file_are_kept(tmp_path):
    make.one_coco_file(tmp_path / "set", ONE[None])
    ids = [c["id"] for c in load_dataset(tmp_path / "set", "train").coco["categories"]]
    assert sorted(ids) == [3, 7]
    images = [
        image["id"] for split in TRUTH for image in load_dataset(tmp_path / "set", split).coco["images"]
    ]
    assert sorted(images) == [0, 1, 2, 3, 4]


def test_boxes_repeated_as_polygons_are_no_masks(tmp_path):
    make.almost_coco(tmp_path / "set")
    data = load_dataset(tmp_path / "set", "train")
    assert not data.has_masks and "segmentations that only repeat the box (no masks)" in data.report.notes


def test_one_picture_folder_for_train_and_val_is_no_val(tmp_path):
    """The small example sets of YOLO name one folder for both."""
    make.pictures_to(tmp_path / "set" / "images" / "train2017", ONE[None])
    (tmp_path / "set" / "labels" / "train2017").mkdir(parents=True)
    for stem, objects in ONE[None].items():
        text = "\n".join(make.yolo_line(*item) for item in objects)
        (tmp_path / "set" / "labels" / "train2017" / f"{stem}.txt").write_text(text)
    both = "train: images/train2017\nval: images/train2017\nnames: [cat, dog]\n"
    (tmp_path / "set" / "set.yaml").write_text(both)
    splits = {split: objects_of(load_dataset(tmp_path / "set", split)) for split in TRUTH}
    assert [len(found) for found in splits.values()] == [3, 1, 1]
    assert not splits["train"].keys() & splits["val"].keys()
    assert any("puts into two splits" in kind for kind in load_dataset(tmp_path / "set").report.counts)


REFUSED = {
    "pictures alone": (
        lambda root: make.noise(root / "photos" / "a.png", 1),
        r"1 pictures in photos.*Looked for",
    ),
    "nothing": (lambda root: root.mkdir(), r"Found: no pictures.*COCO JSON.*YOLO"),
    "other text": (
        lambda root: (make.noise(root / "a.png", 1), (root / "a.txt").write_text("a cat on a mat")),
        r"1 \.txt files in \. \(a\.txt begins 'a cat on a mat'\)",
    ),
    "damaged JSON": (
        lambda root: (
            make.custom_vision(root),
            (root / "model" / "dataset.json").write_text('[{"id": "a", "regions": ['),
        ),
        r"1 \.json files in model \(dataset\.json is not readable JSON",
    ),
    "a yaml without labels": (
        lambda root: (make.yolo(root), [shutil.rmtree(p) for p in root.glob("*/labels")]),
        r"data\.yaml describes a YOLO set, but no label files.*5 pictures in",
    ),
    "numbers in pixels": (
        lambda root: (
            make.yolo(root, {"train": TRUTH["train"]}),
            [p.write_text("0 10 20 30 40") for p in root.glob("*/labels/*.txt")],
        ),
        "no fractions of the picture",
    ),
    "an unknown class": (
        lambda root: (
            make.yolo(root),
            (root / "valid" / "labels" / "p3.txt").write_text("5 .5 .5 .1 .1"),
        ),
        r"p3\.txt: line 1 has the class number 5, but the names are 0 cat, 1 dog",
    ),
    "two yolo sets": (
        lambda root: (make.yolo(root / "a"), make.yolo(root / "b", setup="names: [x]\n")),
        r"holds 2 YOLO sets \(a/data\.yaml, b/data\.yaml\)",
    ),
    "two coco sets": (
        lambda root: (make.roboflow(root / "a"), make.roboflow(root / "b")),
        "holds 2 COCO files for the split t",
    ),
    "two voc sets": (
        lambda root: (make.voc(root / "VOC2007"), make.voc(root / "VOC2012")),
        r"holds 2 Pascal VOC folders \(VOC2007, VOC2012\)",
    ),
    "annotations alone": (
        lambda root: make.voc_xml(root / "a.xml", [make.voc_object("cat", 1, 1, 5, 5)]),
        r"name 1 pictures, and none of them is there",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_was_found(tmp_path, name, capsys):
    write, message = REFUSED[name]
    write(tmp_path / "set")
    with pytest.raises(UserError, match=f"(?s){message}"):
        load_dataset(tmp_path / "set", "train")
    assert main(["data", "stats", str(tmp_path / "set")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and str(tmp_path / "set") in shown and shown.count("\n") == 1


def test_a_file_is_no_folder(tmp_path):
    make.yolo(tmp_path / "set")
    with pytest.raises(UserError, match=r"data\.yaml is a file: give the folder"):
        load_dataset(tmp_path / "set" / "data.yaml")


def test_flaws_of_yolo_and_csv_are_reported(tmp_path):
    make.yolo(tmp_path / "yolo")
    labels = tmp_path / "yolo" / "train" / "labels"
    (labels / "p1.txt").write_text(
        "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\nx y\n0 .5 .5\n1 20 30 5 5\n0 nan .5 .1 .1\n"
    )
    (labels / "p2.txt").unlink()
    (labels / "gone.txt").write_text("0 .5 .5 .2 .2")
    (tmp_path / "yolo" / "README.txt").write_text("about this set")
    data = load_dataset(tmp_path / "yolo", "train", unreadable="skip")
    assert len(data) == 3 and data.report.counts == {
        "object given twice (used once)": 1,
        "label line that is neither `class cx cy w h` nor a class and a polygon (left out)": 3,
        "label line whose numbers are no fractions of the picture (left out)": 1,
        "missing picture (left out)": 1,
    }
    assert data.report.notes["pictures without a label file (taken as without objects)"] == 1
    with pytest.raises(UserError, match=r"1 of 4 pictures are not in .*gone\.\*.*--skip-missing"):
        load_dataset(tmp_path / "yolo", "train")

    make.csv_tables(tmp_path / "csv", ONE)
    with (tmp_path / "csv" / "images" / "all_labels.csv").open("a") as file:
        file.write(
            "p3.png,60,40,cat,1,x,3,4\np3.png,60,40,,1,2,3,4\np3.png,60\np3.png,60,40,dog,10,10,16,16\n"
        )
    found = [load_dataset(tmp_path / "csv", split).report for split in TRUTH]
    counts = {kind: count for report in found for kind, count in report.counts.items()}
    assert counts == {
        "row without a box of four numbers (left out)": 1,
        "object without a name (left out)": 1,
        "row with too few columns (left out)": 1,
        "object given twice (used once)": 1,
    }
    assert sum(report.notes.get("pictures that no CSV lists (left out)", 0) for report in found) == 1


def test_missing_pictures_stop_every_command_but_with_skip_missing(tmp_path, capsys):
    for name, write in (("csv", make.csv_tables), ("voc", make.voc), ("coco", make.coco_2017)):
        write(tmp_path / name)
        next((tmp_path / name).rglob("p2.png")).unlink()
        with pytest.raises(UserError, match=r"1 of \d pictures are not in .*--skip-missing"):
            load_dataset(tmp_path / name, "train")
        assert main(["data", "stats", str(tmp_path / name)]) == 2
        assert str(tmp_path / "home") not in capsys.readouterr().err  # the user's files are named
        data = load_dataset(tmp_path / name, "train", unreadable="skip")
        assert "p2" not in objects_of(data) and data.report.counts == {"missing picture (left out)": 1}
        assert main(["data", "stats", str(tmp_path / name), "--skip-missing"]) == 0
        capsys.readouterr()


def test_masks_can_be_had_of_part_of_the_objects_alone_is_said_with_the_users_file(tmp_path):
    make.yolo(tmp_path / "set", masks=True)
    path = tmp_path / "set" / "train" / "labels" / "p2.txt"
    path.write_text(make.yolo_line("cat", 1, 2, 20, 10))
    with pytest.raises(UserError, match=r"set \(the YOLO annotations\).*without a usable mask") as caught:
        load_dataset(tmp_path / "set", "train", masks=True)
    assert "home" not in str(caught.value)


def test_coco_files_whose_classes_differ_are_read_by_name(tmp_path):
    pictures = {split: dict(found) for split, found in TRUTH.items()}
    for split, numbers in (("train", (1, 2)), ("val", (2, 1))):
        make.pictures_to(tmp_path / "set" / split, pictures[split])
        content = make.coco_content(pictures[split], numbers=numbers)
        make.write_json(tmp_path / "set" / "annotations" / f"{split}.json", content)
    for split in ("val", "train"):
        data = load_dataset(tmp_path / "set", split, shares={"train": 0.7, "val": 0.15})
        assert objects_of(data) == expected(TRUTH[split]) and data.class_names == ("cat", "dog")


def test_a_utf8_mark_in_text_files_is_no_name(tmp_path):
    make.csv_tables(tmp_path / "csv")
    for path in (tmp_path / "csv").rglob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert objects_of(load_dataset(tmp_path / "csv", "val")) == expected(TRUTH["val"])
    make.voc(tmp_path / "voc")
    for path in (tmp_path / "voc").rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert objects_of(load_dataset(tmp_path / "voc", "train")) == expected(TRUTH["train"])


def test_turned_phone_pictures_keep_their_yolo_boxes(tmp_path):
    """Fractions refer to the picture as it is shown."""
    from PIL import Image

    truth = {"p": [("cat", 3, 4, 20, 10)]}
    make.yolo(tmp_path / "set", {**TRUTH, "train": truth})
    path = tmp_path / "set" / "train" / "images" / "p.png"
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=100)
    path.unlink()
    data = load_dataset(tmp_path / "set", "train")
    assert data[0][0].shape == (40, 60, 3) and objects_of(data) == expected(truth)


def test_far_corners_that_are_excluded_are_recognised(tmp_path):
    root = tmp_path / "set"
    for split, pictures in TRUTH.items():
        make.pictures_to(root / split, pictures)
        for stem, objects in pictures.items():
            shifted = [make.voc_object(n, x + 1, y + 1, x + w + 1, y + h + 1) for n, x, y, w, h in objects]
            make.voc_xml(root / split / f"{stem}.xml", shifted)
    data = load_dataset(root, "train")
    assert objects_of(data) == expected(TRUTH["train"])
    assert data.report.notes["boxes that end one pixel past the picture"] == 1


def test_data_convert_writes_coco_from_any_format(tmp_path, capsys):
    for name in ("yolo", "csv without a header", "voc beside", "almost coco"):
        FORMATS[name][0](tmp_path / name)
        target = tmp_path / f"{name} as coco"
        assert main(["data", "convert", str(tmp_path / name), str(target)]) == 0
        assert look(target).kind == "COCO JSON" and look(target).files["val"][1] == target / "valid"
        for split, pictures in TRUTH.items():
            data = load_dataset(target, split)
            assert objects_of(data) == expected(pictures) and not data.report
        assert main(["data", "convert", str(tmp_path / name), str(target)]) == 2
        assert "exists already" in capsys.readouterr().err
    content = json.loads((target / "train" / "_annotations.coco.json").read_text())
    assert "source" not in content["annotations"][0]
