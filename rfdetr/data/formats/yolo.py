"""YOLO and YOLO segmentation: one text file per picture, a line is `class cx cy w h` or `class x1 y1 x2 y2
...`, all as fractions of the picture; class names and splits in `data.yaml` where there is one.
"""

import math
import posixpath
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import yaml

from rfdetr.data.formats.collection import Collection, Match, Picture, absent_picture, box_of_points
from rfdetr.data.formats.inventory import SPLITS, Inventory, canonical_split, split_of_folder
from rfdetr.data.images import read_header
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

KIND = "YOLO"
_NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "classes.names", "predefined_classes.txt")
_LISTS = ("train", "val", "valid", "test")
_SNIFFED = 20
_MOST_CLASSES = 10_000
"""Class numbers from here on are taken for a mistake where there are no names."""


@dataclass
class _Setup:
    """What a data.yaml says. places: split -> folders or lists of pictures, as written there. keypoints: how
    many numbers of key points follow every box.
    """

    file: str = ""
    names: dict[int, str] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    base: str = ""
    keypoints: int = 0


def find_yolo(inventory: Inventory) -> Match | None:
    """The folder's data.yaml and label files; None without a data.yaml.

    Raises UserError for several data.yaml of different sets, and for one without label files.
    """
    setups = [setup for path in inventory.ending(".yaml", ".yml") if (setup := _setup(inventory, path))]
    if not setups:
        return None
    if len({str((sorted(s.names.items()), sorted(s.places.items()))) for s in setups}) > 1:
        names = ", ".join(setup.file for setup in setups)
        raise UserError(f"{inventory.root} holds {len(setups)} YOLO sets ({names}): give the folder of one")
    labels = _label_files(inventory)
    if labels:
        return _match(inventory, setups[0], labels)
    if inventory.ending(".xml", ".json", ".csv"):
        return None  # a data.yaml that was left beside annotations of another format
    found = inventory.describe(inventory.pictures, "pictures") if inventory.pictures else "no pictures"
    raise UserError(
        f"{inventory.root}: {setups[0].file} describes a YOLO set, but no label files are there (.txt with"
        f" the pictures' names, in labels/ or beside them), and {found}: give the folder that holds"
        " data.yaml, pictures and labels, or export the set again"
    )


def find_bare_yolo(inventory: Inventory) -> Match | None:
    """Text files of the pictures' names whose lines look like labels, without a data.yaml."""
    texts = _label_files(inventory)
    for path in texts[:: max(1, len(texts) // _SNIFFED)]:
        if _looks_like_label(inventory.head(path, 1 << 16).partition(b"\n")[0]):
            return _match(inventory, _Setup(), texts)
    return None


def _match(inventory: Inventory, setup: _Setup, labels: list[str]) -> Match:
    named = [path for path in inventory.files if PurePosixPath(path).name in _NAME_FILES]
    lists = [path for path in inventory.ending(".txt") if PurePosixPath(path).stem in _LISTS]
    sources = dict.fromkeys([*labels, *named, *lists, *([setup.file] if setup.file else [])])
    return Match(KIND, tuple(sources), partial(read_yolo, inventory, setup, labels, named))


def read_yolo(inventory: Inventory, setup: _Setup, labels: list[str], named: list[str]) -> Collection:
    """Pictures of the set's folders; one without a label file is one without objects, as YOLO has it."""
    report = DataReport()
    splits = _splits(inventory, setup, report)
    by_picture: dict[str, str] = {}
    orphans: list[Picture] = []
    for label in labels:
        found = inventory.partners(label, split_of_folder(label))
        by_picture.update(dict.fromkeys(found, label))
        if not found:
            stem = f"{PurePosixPath(label).stem}.*"
            orphans.append(absent_picture(stem, split_of_folder(label)))
        if len(found) > 1:
            report.add("label file of several pictures (used for each)", f"{label}: {', '.join(found)}")
    names = setup.names or _name_file(inventory, named)
    pictures, highest, broken, lines = [], -1, 0, 0
    for file in inventory.pictures:
        if splits and file not in splits:
            report.note("pictures in no folder of data.yaml (left out)")
            continue
        split = splits.get(file) if splits else split_of_folder(file)
        picture = Picture(file, split=split)
        if file in by_picture:
            highest = max(highest, _read(inventory, by_picture[file], picture, names, setup.keypoints))
            lines += len(picture.objects) + len(picture.findings)
            broken += sum(1 for problem, _ in picture.findings if problem == _NO_FRACTIONS)
        else:
            picture.notes.append("pictures without a label file (taken as without objects)")
        pictures.append(picture)
    if broken and broken == lines:
        raise UserError(
            f"{inventory.root}: the numbers in all label files are no fractions of the picture (0 to 1):"
            " divide them by its width and height, or give the annotations as COCO JSON"
        )
    known = names or {number: str(number) for number in range(highest + 1)}
    categories = [{"id": i, "name": name, "supercategory": "none"} for i, name in sorted(known.items())]
    return Collection([*pictures, *orphans], categories, report)


_NO_FRACTIONS = "label line whose numbers are no fractions of the picture (left out)"


def _setup(inventory: Inventory, path: str) -> _Setup | None:
    """A data.yaml's content; None for another YAML file."""
    try:
        # Without YAML's types: a class may be called "no" or "007".
        content = yaml.load(inventory.text(path), yaml.BaseLoader)
    except (OSError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        return None
    places: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "validation", "test"):
        value = content.get(key)
        entries = [
            entry
            for entry in (value if isinstance(value, list) else [value])
            if isinstance(entry, str) and entry not in ("", "~", "null")
        ]
        if entries:
            places.setdefault(canonical_split(key), entries)
    names = content["names"]
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    try:
        numbered = {int(number): str(name) for number, name in pairs}
        keypoints = math.prod(map(int, content["kpt_shape"])) if "kpt_shape" in content else 0
    except (TypeError, ValueError):
        return None
    return _Setup(path, numbered, places, str(content.get("path") or ""), keypoints)


def _label_files(inventory: Inventory) -> list[str]:
    """Text files that belong to pictures by their folder or their name."""
    return [
        path
        for path in inventory.ending(".txt")
        if PurePosixPath(path).name not in _NAME_FILES
        and ("labels" in PurePosixPath(path).parts[:-1] or inventory.partner(path) is not None)
    ]


def _looks_like_label(row: bytes) -> bool:
    try:
        number, *rest = (float(word) for word in row.split())
    except ValueError:
        return False
    fits = len(rest) == 4 or (len(rest) >= 6 and len(rest) % 2 == 0)
    return fits and number == int(number) and all(-0.5 <= value <= 1.5 for value in rest)


def _splits(inventory: Inventory, setup: _Setup, report: DataReport) -> dict[str, str]:
    """Picture -> split by the folders and lists of data.yaml; empty where none of them is there."""
    found: dict[str, str] = {}
    # Without a data.yaml: lists of pictures called train.txt, val.txt, test.txt, as Darknet has them.
    lists = {} if setup.file else _darknet_lists(inventory)
    for split in SPLITS:
        for entry in setup.places.get(split, lists.get(split, ())):
            members = _members(inventory, setup, entry)
            if not members:
                report.note(f"{setup.file} names {split}: {entry}, which is not there")
            again = [file for file in members if found.setdefault(file, split) != split]
            if again:
                first = found[again[0]]
                report.add(
                    f"pictures that {setup.file or 'a list'} puts into two splits (kept in the first)",
                    f"{len(again)} of {split} are in {first} too",
                )
    return found


def _darknet_lists(inventory: Inventory) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for path in inventory.ending(".txt"):
        if PurePosixPath(path).stem in _LISTS and _listed(inventory, path):
            lists.setdefault(canonical_split(PurePosixPath(path).stem), []).append(path)
    return lists


def _members(inventory: Inventory, setup: _Setup, entry: str) -> list[str]:
    """Pictures of an entry of data.yaml: a folder or a list, absolute, relative, or with leading ../"""
    here = posixpath.dirname(setup.file)
    parts = [p for p in entry.replace("\\", "/").split("/") if p not in ("", ".")]
    bases = dict.fromkeys([posixpath.join(here, setup.base), here, *_parents(here)])
    split = split_of_folder("/".join(parts))
    # The whole path first, then shorter and shorter ends of it: the rest belonged to another machine.
    for start in range(len(parts)):
        if split_of_folder("/".join(parts[start:])) != split:
            break  # what is left no longer says which pictures are meant
        for base in bases:
            place = posixpath.normpath(posixpath.join(base, *parts[start:]))
            if place.endswith(".txt") and place in inventory.files:
                return _listed(inventory, place)
            prefix = "" if place == "." else f"{place}/"
            members = [file for file in inventory.pictures if file.startswith(prefix)]
            if members and ".." not in parts[start:]:
                return members
    return []


def _parents(folder: str) -> list[str]:
    return [] if not folder else [posixpath.dirname(folder), *_parents(posixpath.dirname(folder))]


def _listed(inventory: Inventory, path: str) -> list[str]:
    lines = inventory.text(path).splitlines()
    found = [inventory.picture(line, path) for line in lines if line.strip()]
    return [file for file in dict.fromkeys(found) if file]


def _name_file(inventory: Inventory, named: list[str]) -> dict[int, str]:
    for path in named:
        lines = inventory.text(path).splitlines()
        names = [line.strip() for line in lines if line.strip()]
        if names and not any(_looks_like_label(name.encode()) for name in names):
            return dict(enumerate(names))
    return {}


def _read(
    inventory: Inventory, label: str, picture: Picture, names: dict[int, str], keypoints: int = 0
) -> int:
    """Adds the objects of a label file; returns the highest class number. UserError for an unknown class."""
    size = shown_size(inventory, picture.file)
    picture.size = size
    highest = -1
    text = inventory.text(label)
    seen: set[str] = set()
    for position, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line:
            continue
        where = f"{label}, line {position}"
        if line in seen:
            picture.findings.append(("object given twice (used once)", where))
            continue
        seen.add(line)
        try:
            number, *values = (float(word) for word in line.replace(",", " ").split())
            if keypoints and len(values) == 4 + keypoints:
                picture.notes.append("objects with key points (their boxes alone are read)")
                values = values[:4]
            fits = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
            if not fits or number != int(number) or not all(map(math.isfinite, values)):
                raise ValueError
        except (ValueError, OverflowError):
            problem = "label line that is neither `class cx cy w h` nor a class and a polygon (left out)"
            picture.findings.append((problem, f"{where}: {line[:40]}"))
            continue
        index = int(number)
        if index not in names and (names or not 0 <= index < _MOST_CLASSES):
            known = ", ".join(f"{i} {n}" for i, n in sorted(names.items())[:10])
            raise UserError(
                f"{inventory.path(label)}: line {position} has the class number {str(index)[:40]}, but the"
                f" names are {known or 'not given (data.yaml)'}: correct the line or the names"
            )
        if max(values) > 2 or min(values) < -1:
            picture.findings.append((_NO_FRACTIONS, f"{where}: {line[:40]}"))
            continue
        highest = max(highest, index)
        if size is not None:
            picture.objects.append({"category_id": index, "source": where, **_shape(values, *size)})
    return highest


def _shape(values: list[float], height: int, width: int) -> dict[str, Any]:
    scaled = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    if len(values) == 4:
        cx, cy, w, h = scaled
        return {"bbox": [cx - w / 2, cy - h / 2, w, h]}
    return {"bbox": box_of_points(scaled), "segmentation": [scaled]}


def shown_size(inventory: Inventory, file: str) -> tuple[int, int] | None:
    """(height, width) of a picture as it is shown, its orientation tag applied; None if it cannot be read."""
    try:
        return read_header(inventory.path(file)).shown
    except UserError:
        return None
