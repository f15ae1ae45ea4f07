"""Pascal VOC folders become COCO-format folders; nothing is lost silently."""

import json

import numpy as np
import pytest
from PIL import Image

from rfdetr.data.folders import coco_folder
from rfdetr.data.voc import HASH_SPLIT, convert_voc, hash_split
from rfdetr.errors import UserError


def voc_object(name, *box):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>"


def add(
    root, stem, objects, size=(60, 40), picture=True, xml=True, names=("Annotations", "JPEGImages"), seed=None
):
    annotations, images = root / names[0], root / names[1]
    annotations.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    if picture:
        rng = np.random.default_rng(abs(hash(stem)) % 2**32 if seed is None else seed)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(images / f"{stem}.png")
    if xml:
        head = (
            f"<filename>{stem}.png</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        )
        (annotations / f"{stem}.xml").write_text(f"<annotation>{head}{''.join(objects)}</annotation>")


def lists(root, **splits):
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for split, stems in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(stems) + "\n")


def test_conversion_with_split_lists(tmp_path):
    root = tmp_path / "set" / "VOC"
    add(root, "one", [voc_object("dog", 1, 1, 60, 40), voc_object("cat", 11, 6, 20, 15)])
    add(root, "two", [voc_object("cat", 1, 1, 10, 10)])
    add(root, "three", [])
    lists(root, train=["one 1", "three -1"], val=["two"])
    report = convert_voc(tmp_path / "set", tmp_path / "out")  # the VOC folder lies one level down
    assert not report and report.notes == {"images without objects (legal)": 1}
    train, val = coco_folder(tmp_path / "out", "train"), coco_folder(tmp_path / "out", "val")
    assert train.class_names == val.class_names == ("cat", "dog")  # the same ids in every split
    assert (len(train), len(val)) == (2, 1)
    image, target = train[0]
    assert target.labels.tolist() == [1, 0]
    # Corners count from 1 and are included: 1..60 is the whole width, 11..20 is ten pixels.
    np.testing.assert_allclose(
        target.boxes.numpy(), [[0.5, 0.5, 1, 1], [15 / 60, 10 / 40, 10 / 60, 10 / 40]], rtol=1e-6
    )
    assert np.array_equal(image, np.asarray(Image.open(root / "JPEGImages" / "one.png")))
    with pytest.raises(UserError, match="no split 'test'"):
        coco_folder(tmp_path / "out", "test")


def test_flaws_are_reported_and_never_crash(tmp_path):
    root = tmp_path / "voc"
    add(
        root,
        "a",
        [
            voc_object("cat", 5, 5, 5, 5),
            voc_object("cat", 50, 30, 90, 60),
            voc_object("cat", 70, 5, 80, 10),
            voc_object("cat", 3, 3, 9, 9),
            voc_object("cat", 3, 3, 9, 9),
            voc_object("cat", 3, "x", 9, 9),
            voc_object("", 3, 3, 9, 9),
        ],
        size=(600, 400),
    )
    add(root, "nopicture", [], picture=False)
    add(root, "noxml", [], xml=False)
    add(root, "broken", [])
    (root / "Annotations" / "broken.xml").write_text("<annotation><object>")
    add(root, "unlisted", [])
    add(root, "damaged", [])
    (root / "JPEGImages" / "damaged.png").write_bytes(b"nothing")
    lists(root, train=["a", "absent"], val=["a"])
    report = convert_voc(root, tmp_path / "out")
    assert report.counts == {
        "wrong image size in the annotations (corrected)": 1,
        "box without area (left out)": 1,
        "object given twice (used once)": 1,
        "object without a box of four numbers (left out)": 1,
        "object without a name (left out)": 1,
        "annotation file without a picture (left out)": 1,
        "unreadable annotation file or picture (left out)": 2,
        "picture without an annotation file (left out)": 1,
        "listed picture without annotations (left out)": 1,
        "picture in two splits (kept in the first)": 1,
        "picture in no split list (left out)": 1,
        "box partly outside its image (clipped)": 1,
        "box wholly outside its image (left out)": 1,
    }
    data = coco_folder(tmp_path / "out", "train")
    assert [a["bbox"] for a in data.coco["annotations"]] == [[49, 29, 11, 11], [2, 2, 7, 7]]
    assert data.report.counts == report.counts  # what the conversion found stays with the data
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"] == report.counts


def test_a_folder_without_lists_is_split_by_content(tmp_path):
    root = tmp_path / "raccoons"
    for number in range(40):
        add(
            root,
            f"r{number}",
            [voc_object("raccoon", 1, 1, 9, 9)],
            names=("annotations", "images"),
            seed=number,
        )
    add(root, "twin", [voc_object("raccoon", 1, 1, 9, 9)], names=("annotations", "images"), seed=7)
    report = convert_voc(root, tmp_path / "out")
    assert report.counts == {"the same picture under two names in one split (kept)": 1}
    names = {s: {i["file_name"] for i in coco_folder(tmp_path / "out", s).coco["images"]} for s in HASH_SPLIT}
    assert sum(map(len, names.values())) == 41 and len(set.union(*names.values())) == 41
    assert len(names["train"]) > len(names["val"]) > 0 and names["test"]
    # Taking a picture away moves no other one.
    (root / "images" / "r3.png").unlink()
    convert_voc(root, tmp_path / "again")
    again = {
        s: {i["file_name"] for i in coco_folder(tmp_path / "again", s).coco["images"]} for s in HASH_SPLIT
    }
    assert {s: found - {"r3.png"} for s, found in names.items()} == again


def test_hash_split_keeps_the_shares():
    import hashlib

    found = [hash_split(hashlib.sha256(str(i).encode()).hexdigest()) for i in range(40000)]
    for split, share in HASH_SPLIT.items():
        assert found.count(split) / 40000 == pytest.approx(share, abs=0.01)


def test_wrong_input(tmp_path):
    with pytest.raises(UserError, match="no Pascal VOC folder"):
        convert_voc(tmp_path, tmp_path / "out")
    root = tmp_path / "voc"
    add(root, "a", [voc_object("dgo", 1, 1, 5, 5)])
    with pytest.raises(UserError, match="'dgo' is not among cat, dog"):
        convert_voc(root, tmp_path / "out", classes=["cat", "dog"])
    assert not (tmp_path / "out").exists()
    convert_voc(root, tmp_path / "out", classes=["dog", "dgo"])
    with pytest.raises(UserError, match="exists already"):
        convert_voc(root, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "voc"]  # no temporary folder is left


def test_the_order_of_given_classes_is_kept(tmp_path):
    root = tmp_path / "voc"
    add(root, "a", [voc_object("cat", 1, 1, 5, 5)], seed=1)
    lists(root, train=["a"])
    convert_voc(root, tmp_path / "out", classes=["dog", "cat"])
    assert coco_folder(tmp_path / "out", "train").class_names == ("dog", "cat")
