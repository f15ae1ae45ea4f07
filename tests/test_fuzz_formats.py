"""Damaged annotation files of every format: a dataset, or one line that says what is wrong; never a crash."""

import random
import re
import shutil

import data_folders as make
import pytest

from rfdetr.data.conversion import look
from rfdetr.data.registry import available_splits, load_dataset
from rfdetr.errors import UserError

WRITERS = {
    "coco": lambda root: make.one_coco_file(root, make.ONE[None], masks=True),
    "almost coco": make.almost_coco,
    "voc": make.voc,
    "voc beside": lambda root: make.voc_beside(root, masks=True),
    "yolo": lambda root: make.yolo(root, masks=True),
    "yolo boxes": make.yolo,
    "csv": make.csv_tables,
    "csv without a header": lambda root: make.csv_tables(root, header=False),
    "custom vision": make.custom_vision,
    "deep pcb": make.pair_lists,
    "png masks": lambda root: make.png_masks(root, {s: o for s, o in make.ONE[None].items() if o}),
}
WORDS = [
    b"nan",
    b"1e999",
    b"-1",
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b"../..",
    b"99999999999999999999",
    b"x",
]


def damage(content, random_):
    """Cut, overwrite, repeat or replace a piece, or one word alone."""
    if not content:
        return random_.choice(WORDS)
    words = [found.span() for found in re.finditer(rb"[^\s<>,:\"\[\]{}]+", content)]
    if words and random_.random() < 0.4:
        start, end = random_.choice(words)
        return content[:start] + random_.choice(WORDS) + content[end:]
    start = random_.randrange(len(content))
    end = min(len(content), start + random_.choice([1, 2, 5, 40, 400]))
    piece = {
        "cut": b"",
        "word": random_.choice(WORDS),
        "noise": random_.randbytes(end - start),
        "twice": content[start:end] * 2,
        "rest": None,
    }[random_.choice(["cut", "word", "noise", "twice", "rest"])]
    return content[:start] if piece is None else content[:start] + piece + content[end:]


def survive(root):
    """Opens all there is; every refusal is a UserError of one line."""
    try:
        look(root)
        for split in available_splits(root):
            data = load_dataset(root, split, unreadable="skip")
            for index in range(len(data)):
                data[index]
    except UserError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2000
        return False
    return True


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, name, monkeypatch, rounds=12):
    monkeypatch.setenv("RFDETR_DATA", str(tmp_path / "home"))
    WRITERS[name](tmp_path / "sound")
    assert survive(tmp_path / "sound")
    for seed in range(rounds):
        random_ = random.Random(f"{name} {seed}")
        root = tmp_path / f"set{seed}"
        shutil.copytree(tmp_path / "sound", root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        texts = [path for path in files if path.suffix != ".png"] or files
        for path in random_.sample(texts, min(len(texts), 2)):
            kind = random_.random()
            if kind < 0.1:
                path.unlink()
            else:
                path.write_bytes(damage(path.read_bytes(), random_))
        if random_.random() < 0.2:
            random_.choice([path for path in files if path.suffix == ".png"]).write_bytes(b"no picture")
        survive(root)
