"""Splits that are made: shares, classes, lookalikes, the same for everyone; near-identical pictures."""

import hashlib
from collections import Counter

import data_folders as make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from rfdetr.cli import main
from rfdetr.data.duplicates import groups, near_pairs, signatures
from rfdetr.data.inspection import inspect_dataset
from rfdetr.data.registry import available_splits, load_dataset
from rfdetr.data.splits import SHARES, hash_split, places, to_make
from rfdetr.errors import NotFoundError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))


group = st.tuples(st.integers(1, 6), st.frozensets(st.sampled_from("abcde"), max_size=3))


@given(st.lists(group, min_size=3, max_size=60), st.sampled_from([SHARES, {"train": 0.7, "val": 0.15}]))
def test_every_split_has_its_share_of_pictures_and_is_never_empty(content, shares):
    counts = [count for count, _ in content]
    classes = [Counter(dict.fromkeys(names, count)) for count, names in content]
    found = places(counts, classes, shares)
    assert found == places(counts, classes, shares) and set(found) == set(shares)
    total = sum(counts)
    for split in shares:
        size = sum(count for count, place in zip(counts, found, strict=True) if place == split)
        wanted = total * shares[split] / sum(shares.values())
        if split != "train":
            # A split that would be empty takes one group, however large it is.
            assert size <= max(wanted + 1, max(counts))


@given(st.integers(20, 80), st.integers(3, 12))
def test_every_split_has_its_share_of_a_class(count, rare):
    """Single pictures of which a few show a second class."""
    rare = min(rare, count // 2)
    classes = [
        Counter({"common": 1, **({"rare": 1} if i % (count // rare) == 0 else {})}) for i in range(count)
    ]
    found = places([1] * count, classes, SHARES)
    number = sum(1 for c in classes if c["rare"])
    for split, share in SHARES.items():
        here = sum(1 for c, place in zip(classes, found, strict=True) if place == split and c["rare"])
        assert abs(here - share * number) <= 1


def test_which_splits_are_made():
    assert to_make([]) == (None, SHARES)
    assert to_make(["train", "test"]) == ("train", {"train": 0.7, "val": 0.15})
    assert to_make(["train", "val"]) == ("train", {"train": 0.7, "test": 0.15})
    assert to_make(["val", "test"]) == ("val", {"train": 0.7, "val": 0.15})
    assert to_make(["train"]) == ("train", SHARES)
    for given_splits in (["train", "val", "test"], ["val"], ["test"]):
        assert to_make(given_splits)[1] == {}
    assert to_make(["train"], {"train": 1, "val": 0, "test": 0})[1] == {}


def test_a_missing_picture_is_placed_by_its_hash():
    found = Counter(hash_split(hashlib.sha256(str(number).encode()).hexdigest()) for number in range(20000))
    for split, share in SHARES.items():
        assert found[split] / 20000 == pytest.approx(share, abs=0.02)


def test_a_folder_for_evaluation_alone_is_left_as_it_is(tmp_path):
    make.roboflow(tmp_path / "set", {"val": make.ONE[None]})
    assert available_splits(tmp_path / "set") == ("val",) and len(load_dataset(tmp_path / "set", "val")) == 5
    with pytest.raises(NotFoundError, match="no split 'train', only val, and none was made: they are kept"):
        load_dataset(tmp_path / "set", "train")


def test_train_is_made_where_there_are_val_and_test(tmp_path, capsys):
    """YOLO exports without their train split, whose data.yaml still names it."""
    pictures = {f"q{number}": [("cat", 3, 4, 20, 10)] for number in range(20)}
    make.yolo(tmp_path / "set", {"val": pictures, "test": make.TRUTH["test"]})
    splits = {split: load_dataset(tmp_path / "set", split) for split in ("train", "val", "test")}
    assert [len(data) for data in splits.values()] == [16, 4, 1]
    assert splits["val"].split_note.startswith(
        "test (1) as given; split made here from the 20 pictures of val"
    )
    assert "data.yaml names train: ../train/images, which is not there" in splits["train"].report.notes
    # Every command sees the same, and says so.
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert main(["data", "stats", str(tmp_path / "set")]) == 0
    shown = capsys.readouterr().out
    assert shown.count(": 16 train, 4 val") == 3


def test_a_share_of_nothing_makes_no_split(tmp_path):
    make.voc_beside(tmp_path / "set", make.ONE)
    only = {"train": 1.0, "val": 0.0, "test": 0.0}
    assert available_splits(tmp_path / "set", only) == ("train",)
    assert len(load_dataset(tmp_path / "set", "train", shares=only)) == 5


def test_two_pictures_are_too_few_for_three_splits(tmp_path):
    make.voc_beside(tmp_path / "set", {None: {"a": [("cat", 1, 1, 5, 5)], "b": [("cat", 1, 1, 5, 5)]}})
    assert available_splits(tmp_path / "set") == ("train", "val")
    with pytest.raises(NotFoundError, match=r"no split 'test'.*too few pictures to divide"):
        load_dataset(tmp_path / "set", "test")


def photograph(seed, size=(160, 120)):
    """A smooth picture with some things in it, and no two alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def drawing(seed, size=(400, 300)):
    """Black lines on white paper."""
    rng = np.random.default_rng(seed)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    for _ in range(10):
        x, y, w, h = (int(v) for v in rng.integers([10, 10, 30, 10], [250, 220, 140, 70]))
        pen.rectangle((x, y, x + w, y + h), outline="black", width=2)
    return page


def shaded(page):
    """The drawing as a phone sees it: grey paper, darker to one side, cut otherwise, blurred."""
    width, height = page.size
    light = np.linspace(90, 170, width, dtype=np.float32)[None, :, None] / 255
    seen = np.asarray(page, dtype=np.float32) * light + 20
    seen = Image.fromarray(seen.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return seen.crop((4, 6, width - 3, height - 8)).resize((620, 450))


def saved(folder, pictures):
    paths = []
    for number, (picture, options) in enumerate(pictures):
        paths.append(folder / f"{number:03d}.{options.pop('suffix', 'png')}")
        picture.save(paths[-1], **options)
    return paths


def test_copies_in_other_sizes_lights_and_qualities_are_found(tmp_path):
    pictures = []
    for seed in range(12):
        whole = photograph(seed)
        pictures += [(whole, {}), (whole.resize((323, 241)), {"suffix": "jpg", "quality": 40})]
        pictures += [(whole.point(lambda value: 0.7 * value + 20), {}), (whole.crop((1, 1, 159, 118)), {})]
    found = groups(len(pictures), near_pairs(signatures(saved(tmp_path, pictures))))
    assert found == [list(range(start, start + 4)) for start in range(0, 48, 4)]


def test_a_photograph_of_a_drawing_and_its_cleaned_copy_are_one(tmp_path):
    pictures = [(picture, {}) for seed in range(12) for picture in (drawing(seed), shaded(drawing(seed)))]
    found = groups(24, near_pairs(signatures(saved(tmp_path, pictures))))
    assert found == [[i, i + 1] for i in range(0, 24, 2)]


def test_things_on_an_empty_background_are_not_taken_for_copies(tmp_path):
    """One thing at other places of a white, a black or a grey page; empty pages; noise."""
    pictures = []
    for shift, paper in enumerate(("white", "black", "grey")):
        for x, y in ((20 + 8 * shift, 15), (85 + 8 * shift, 15), (20 + 8 * shift, 65), (85 + 8 * shift, 65)):
            page = Image.new("RGB", (160, 120), paper)
            ImageDraw.Draw(page).rectangle((x, y, x + 35, y + 30), fill="red")
            pictures.append((page, {}))
    pictures += [(Image.new("L", (160, 120), level), {}) for level in (0, 100, 255)]
    paths = saved(tmp_path, pictures)
    for seed in range(10):
        paths.append(tmp_path / f"noise{seed}.png")
        make.noise(paths[-1], seed)
    assert near_pairs(signatures(paths)) == []


def test_files_that_are_no_pictures_resemble_their_exact_copies_alone(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png", "absent.png")]
    paths[0].write_bytes(b"nothing")
    paths[1].write_bytes(b"nothing")
    paths[2].write_bytes(b"\x89PNG\r\n\x1a\nand nothing")
    found = signatures(paths)
    assert near_pairs(found) == [(0, 1)] and len(set(found.sha256)) == 3


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "I;16", "F"])
def test_pictures_of_any_depth_are_compared(tmp_path, mode):
    values = [np.asarray(photograph(seed).convert("L")) for seed in range(4)]
    paths = []
    for number, grey in enumerate([*values, values[0]]):
        paths.append(tmp_path / f"{number}.tif")
        if mode == "I;16":
            picture = Image.fromarray(grey.astype(np.uint16) * 200)
        elif mode == "F":
            picture = Image.fromarray(grey.astype(np.float32) / 255)
        else:
            picture = Image.fromarray(grey).convert(mode)
        picture.save(paths[-1], compression=None if number < 4 else "tiff_lzw")
    assert (0, 4) in near_pairs(signatures(paths)) and len(near_pairs(signatures(paths))) == 1


def test_lookalikes_stay_in_one_split(tmp_path):
    """Video frames: 12 scenes of 4 neighbouring frames each."""
    folder = tmp_path / "set"
    folder.mkdir()
    for scene in range(12):
        whole = photograph(scene, (170, 130))
        for frame in range(4):
            whole.crop((frame, frame, 160 + frame, 120 + frame)).save(folder / f"s{scene:02d}f{frame}.png")
            objects = [make.voc_object("cat" if scene % 3 else "dog", 5, 5, 40, 40)]
            make.voc_xml(folder / f"s{scene:02d}f{frame}.xml", objects, size=(160, 120))
    scenes = {}
    for split in ("train", "val", "test"):
        data = load_dataset(folder, split)
        scenes[split] = {image["file_name"][:3] for image in data.coco["images"]}
        assert "12 group(s) of near-identical pictures stay together" in data.split_note
    assert sum(map(len, scenes.values())) == 12 and all(scenes.values())
    assert not inspect_dataset(str(folder)).between


def test_a_set_that_looks_alike_throughout_is_divided_and_says_so(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    whole = photograph(1, (190, 150))
    for frame in range(20):
        whole.crop((frame, frame, 160 + frame, 120 + frame)).save(folder / f"f{frame:02d}.png")
        make.voc_xml(folder / f"f{frame:02d}.xml", [make.voc_object("cat", 5, 5, 40, 40)], size=(160, 120))
    data = load_dataset(folder, "val")
    assert len(data) == 3 and "all its pictures are nearly alike" in data.split_note
    found = inspect_dataset(str(folder)).between
    assert set(found.counts) == {"nearly the same picture in two splits"}
