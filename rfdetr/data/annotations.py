"""Single entries of a COCO-format file: the file itself, ids, categories, boxes, areas, crowd flags.

What has one sensible reading is read (the text "1" is the number 1), what has none is left out or refused,
and a `DataReport` says so either way.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rfdetr.data.categories import CategoryMap
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

_TOLERANCE = 1.0  # px; a box over the edge by less is rounding, not a flaw
_ROUNDING = 1e-6  # px; below this it is the arithmetic of this package
_LARGEST = 2**63
Id = int | str


def read_annotations(path: Path) -> dict[str, Any]:
    """Content of a COCO-format JSON file: `images`, `annotations`, `categories`, each a list.

    UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 are read. Raises UserError naming the file,
    what was expected and what was found. Entries of images and categories are objects; those of annotations
    are looked at one by one.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"annotation file {path} does not exist: check the path") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"annotation file {path} is not readable JSON ({error}): export the dataset again"
        ) from error
    _usual_keys(content)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} has no images, annotations and categories: expected a COCO-format object, found"
            f" {describe(content)}"
        )
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)}: it is not a COCO-format detection file (it has"
            f" {', '.join(str(key)[:30] for key in list(content)[:8]) or 'nothing'}); export it as COCO JSON"
        )
    for key in keys:
        if not isinstance(content[key], list):
            raise UserError(
                f"{path}: {key!r} must be a list of objects, found {describe(content[key])}: export the"
                " dataset again as COCO JSON"
            )
        for number, entry in enumerate(content[key] if key != "annotations" else [], start=1):
            if not isinstance(entry, dict):
                raise UserError(
                    f"{path}: entry {number} of {key!r} must be an object, found {describe(entry)}"
                )
    return content


def brief(value: Any) -> str:
    """A name or id for a message: a line of its own, cut off where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:37]}...{text[-40:]}"


def describe(value: Any) -> str:
    """What a JSON value is, in a few words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return f"the number {str(value)[:40]}"


def plain_id(value: Any) -> Id | None:
    """An id as this package compares it: 1, 1.0 and "1" are one and the same; None if it is no id.

    Other texts, and numbers of more than 63 bits, stay texts ("001" is not "1").
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if isinstance(value, int):
        return value if -_LARGEST < value < _LARGEST else str(value)
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text) else text or None
    return None


def numbering(ids: Iterable[Id]) -> dict[Id, int]:
    """Id -> number: themselves where all are numbers, else 1, 2, ... in the given order."""
    ids = list(ids)
    if all(isinstance(key, int) for key in ids):
        return {key: int(key) for key in ids}
    return {key: number for number, key in enumerate(ids, start=1)}


def read_categories(
    path: Path, entries: list[dict[str, Any]], report: DataReport
) -> tuple[CategoryMap, dict[Id, int]]:
    """Categories of a file, and the id here of every id there.

    Raises UserError naming the file for an entry without an id, a name that is no text, an id of two names.
    """
    names: dict[Id, str] = {}
    for number, entry in enumerate(entries, start=1):
        key, name = plain_id(entry.get("id")), entry.get("name")
        if key is None:
            raise UserError(
                f"{path}: category {number} ({brief(name)}) must have an id, a whole number; found"
                f" {describe(entry.get('id'))}"
            )
        if isinstance(name, dict | list | bool):
            raise UserError(
                f"{path}: the name of category {brief(key)} must be a text, found {describe(name)}"
            )
        # Half a letter, of a text that was cut, can be stored nowhere.
        name = str(key if name in (None, "") else name).encode("utf-8", "replace").decode()
        if key in names and names[key] != name:
            raise UserError(
                f"{path}: category id {brief(key)} is used twice, for {brief(names[key])!r} and for"
                f" {brief(name)!r}: give every category its own id"
            )
        if key in names:
            report.add("category listed twice (used once)", brief(f"{key}: {name}"), file=str(path))
        names[key] = name
    for name, count in Counter(names.values()).items():
        if count > 1:
            report.add("name of several categories (they stay apart)", repr(brief(name)), file=str(path))
    numbers = numbering(names)
    if any(isinstance(key, str) for key in names):
        report.note("category ids that are texts (numbered here)", len(names))
    elif any(isinstance(entry.get("id"), str) for entry in entries):
        report.note("category ids that are texts (read as numbers)", len(names))
    try:
        found = [{"id": numbers[key], "name": name} for key, name in names.items()]
        return CategoryMap.from_coco(found), numbers
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def clean_box(
    entry: dict[str, Any], label: str, height: int, width: int, report: DataReport, **where: Any
) -> list[float] | None:
    """Box xywh in pixels of an annotation, clipped to its image; None, and a line in the report, if there is
    none.

    height, width: of the image, 0 if not known: then nothing is clipped. where: `file` and `annotation` of
    the problems.
    """
    box = numbers_of(entry.get("bbox"))
    if box is None:
        report.add("annotation without a box of four numbers (left out)", label, **where)
        return None
    x, y, w, h = box
    shown = f"{label}: [{', '.join(f'{value:g}' for value in box)}]"
    if not all(map(math.isfinite, (*box, x + w, y + h))) or w <= 0 or h <= 0:
        report.add("box without area (left out)", shown, **where)
        return None
    if not height or not width:
        return [x, y, w, h]
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + w, float(width)), min(y + h, float(height))
    over = max(left - x, top - y, x + w - right, y + h - bottom)
    shown = f"{shown} of {width}x{height}"
    if right <= left or bottom <= top:
        report.add("box wholly outside its image (left out)", shown, **where)
        return None
    if over > _TOLERANCE:
        report.add("box partly outside its image (clipped)", shown, **where)
        x, y, w, h = left, top, right - left, bottom - top
    elif over > _ROUNDING:
        report.note("boxes that end less than a pixel outside their image (kept)")
    if w < 1 or h < 1:
        report.add("box below a pixel (kept)", shown, **where)
    return [x, y, w, h]


def numbers_of(box: Any) -> list[float] | None:
    """The four numbers of a box, finite or not; None if it is none."""
    if not isinstance(box, list | tuple) or len(box) != 4 or any(isinstance(v, bool) for v in box):
        return None
    try:
        return [float(value) for value in box]
    except (TypeError, ValueError, OverflowError):
        return None


def clean_area(value: Any, box: list[float]) -> tuple[float, bool]:
    """(area in px^2, whether it is the annotation's own): the box's unless it is a finite number >= 0."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= float(value) < math.inf:
            return value, True
    except OverflowError:
        pass
    return box[2] * box[3], False


def clean_crowd(value: Any) -> tuple[int, bool]:
    """(0 or 1, whether it could be read) of a crowd flag: numbers, true and false, also as texts."""
    if value is None or value == "":
        return 0, True
    if isinstance(value, str):
        value = {"false": 0, "true": 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value), True
    return 0, False


def _usual_keys(content: Any) -> None:
    """Gives the keys of almost-COCO files their usual names: `annotation`, and `filename` of an image."""
    if not isinstance(content, dict):
        return
    if "annotations" not in content and isinstance(content.get("annotation"), list):
        content["annotations"] = content.pop("annotation")
    for entry in content["images"] if isinstance(content.get("images"), list) else ():
        if isinstance(entry, dict) and "file_name" not in entry and "filename" in entry:
            entry["file_name"] = entry.pop("filename")
