"""`python -m rfdetr predict`: every picture has its own output, and results are there as they come."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_ARCH, scramble
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_fixtures import CLASSES, exported, network
from PIL import Image

from rfdetr import RFDETR, Arch, ArchError, UserError
from rfdetr.cli import main
from rfdetr.data.categories import CategoryMap
from rfdetr.model.detections import Detections
from rfdetr.model.predict import Options


def picture(path, seed=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def predict(*arguments):
    return main(["predict", str(exported().file), *map(str, arguments), "--threshold", "0"])


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PATHS = st.lists(
    st.tuples(st.sampled_from(["", "a", "a/b", "c"]), st.sampled_from(["x", "y", "X", "x-2"]),
              st.sampled_from([".png", ".jpg", ".JPG"])),
    min_size=1, max_size=7, unique=True,
)  # fmt: skip


@settings(max_examples=12)
@given(PATHS, st.sampled_from([".", "a", "out", "a/out"]))
def test_every_picture_has_an_output_and_no_input_is_touched(tmp_path_factory, paths, out):
    root = tmp_path_factory.mktemp("shots")
    for seed, (folder, stem, suffix) in enumerate(paths):
        picture(root / folder / f"{stem}{suffix}", seed)
    before = content(root)
    for _ in range(2):  # the second time its own pictures are there
        assert predict(root, "--out", root / out) == 0
        after = content(root)
        assert {path: after[path] for path in before} == before
        records = json.loads((root / out / "pictures.json").read_text())
        assert {Path(record["file"]) for record in records} == set(before)
        names = [record["output"] for record in records]
        assert len({name.casefold() for name in names}) == len(before)
        assert set(after) - set(before) == {
            root / out / name for name in (*names, "pictures.json", "predictions.json")
        }
        for record in records:
            with Image.open(root / out / record["output"]) as drawn, Image.open(record["file"]) as shown:
                assert drawn.size == shown.size


def test_a_strangers_picture_in_the_output_folder_is_kept(tmp_path):
    stranger = picture(tmp_path / "out" / "x.png", 5)
    kept = stranger.read_bytes()
    source = picture(tmp_path / "x.jpg")
    assert predict(source, "--out", tmp_path / "out") == 0
    assert stranger.read_bytes() == kept and (tmp_path / "out" / "x-2.png").is_file()


def test_unreadable_pictures_are_listed_and_the_others_are_written(tmp_path, capsys):
    shots = tmp_path / "shots"
    for number in range(3):
        picture(shots / f"{number}.jpg", number)
    (shots / "cut.jpg").write_bytes((shots / "0.jpg").read_bytes()[:300])
    (shots / "._0.jpg").write_bytes(b"\x00\x05\x16\x07")
    picture(shots / ".thumbnails" / "0.jpg")
    assert predict(shots, "--out", tmp_path / "out") == 1
    output = capsys.readouterr().out
    assert "1 of 4 pictures could not be read:" in output and "cut.jpg" in output and "._0" not in output
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {r["image_id"] for r in records} == {1, 2, 3}  # in the order of the names; 4 is the damaged one
    assert {r["category"] for r in records} <= set(CLASSES.names)
    assert all(CLASSES.names[CLASSES.ids.index(r["category_id"])] == r["category"] for r in records)
    pictures = json.loads((tmp_path / "out" / "pictures.json").read_text())
    assert [("error" in p, "output" in p) for p in pictures] == [(False, True)] * 3 + [(True, False)]
    assert predict(shots / "cut.jpg") == 1
    assert predict(shots) == 1


def test_what_is_wrong_is_said_before_the_work(tmp_path, capsys):
    source = picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([tmp_path / "absent.jpg"], "there is no picture or folder"),
        ([tmp_path / "empty"], "no images in"),
        ([source, "--out", source], "is a file, not a folder"),
        ([source, "--arch", TINY_ARCH.id], "already is one sub-network"),
    ):
        assert predict(*arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_results_are_there_when_a_call_is_cut_off(tmp_path, monkeypatch):
    shots = [picture(tmp_path / f"{number}.jpg", number) for number in range(12)]
    real, drawn = Detections.plot, []

    def plot(self, target=None):
        drawn.append(1)
        if len(drawn) > 9:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Detections, "plot", plot)
    assert predict(*shots, "--out", tmp_path / "out") == 130
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {r["image_id"] for r in records} == set(range(1, 10))
    assert len(list((tmp_path / "out").glob("*.png"))) == 9


def test_pictures_are_read_as_they_are_needed():
    model, taken = network(), []

    def source():
        for number in range(9):
            taken.append(number)
            yield np.full((20, 20, 3), number, np.uint8)

    found = model.predict_each(source(), "r48-p8-w1-d2-q8", Options(threshold=0, batch_size=2))
    assert not taken
    next(found)
    assert taken == [0, 1]
    assert len(list(found)) == 8


def test_the_file_and_the_network_find_the_same(tmp_path):
    shots = [picture(tmp_path / f"{number}.png", number) for number in range(3)]
    assert predict(*shots, "--out", tmp_path / "out") == 0
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    expected = network().predict(shots, "r48-p8-w1-d2-q8", threshold=0)
    entries = [entry for number, d in enumerate(expected, start=1) for entry in d.to_coco(number)]
    assert len(entries) == len(records) > 10
    for record, entry in zip(records, entries, strict=True):
        assert (record["image_id"], record["category_id"]) == (entry["image_id"], entry["category_id"])
        np.testing.assert_allclose(record["bbox"], entry["bbox"], atol=0.05)


def test_ids_are_those_of_the_training_data(tmp_path):
    from rfdetr.export.onnx import export_onnx

    chess = CategoryMap(tuple(range(4)), ("pieces", "bishop", "king", "queen"))
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY, categories=chess)).eval()
    file = export_onnx(model, TINY_ARCH, tmp_path / "chess.onnx", check=False).file
    source = picture(tmp_path / "a.png")
    assert main(["predict", str(file), str(source), "--out", str(tmp_path / "o"), "--threshold", "0"]) == 0
    records = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert {(r["category_id"], r["category"]) for r in records} <= set(
        zip(chess.ids, chess.names, strict=True)
    )
    assert min(r["category_id"] for r in records) == 0


def test_an_architecture_is_a_value_or_a_text():
    image = np.zeros((20, 20, 3), np.uint8)
    model, arch = network(), Arch(48, 8, 1, 2, 8)
    one = model.predict_one(image, arch.id, threshold=0)
    assert isinstance(one, Detections) and len(one) == 8
    np.testing.assert_array_equal(one.boxes, model.predict(image, arch, 0.0)[0].boxes)
    sub = model.subnet(arch.id)
    np.testing.assert_allclose(sub.predict_one(image, threshold=0).boxes, one.boxes, atol=1e-3)
    assert len(sub.predict(image, arch, 0.0)) == 1
    with pytest.raises(ArchError, match="this sub-network is r48-p8-w1-d2-q8, not r48-p8-w1-d1-q8"):
        sub.predict(image, "r48-p8-w1-d1-q8")
    with pytest.raises(UserError, match="2 pictures were given"):
        model.predict_one([image, image], arch)


def test_a_copied_file_is_enough(tmp_path):
    file = tmp_path / "elsewhere.onnx"
    shutil.copy(exported().file, file)
    assert main(["predict", str(file), str(picture(tmp_path / "a.png"))]) == 0


def test_what_a_file_of_another_runtime_needs_is_said(tmp_path, capsys, monkeypatch):
    photo = str(picture(tmp_path / "a.png"))
    model = tmp_path / "net.xml"
    model.write_text("<net/>")
    assert main(["predict", str(model), photo]) == 2
    assert "net.bin, which is not beside it" in capsys.readouterr().err
    model.with_suffix(".bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["evaluate", str(model), "--data", "digits"]) == 2
    assert "[openvino]" in capsys.readouterr().err
    (tmp_path / "net.engine").write_bytes(b"")
    assert main(["predict", str(tmp_path / "net.engine"), photo]) == 2
    assert "no description net.engine.json" in capsys.readouterr().err
    assert main(["predict", str(model), photo, "--arch", TINY_ARCH.id]) == 2
    assert "already is one sub-network" in capsys.readouterr().err
