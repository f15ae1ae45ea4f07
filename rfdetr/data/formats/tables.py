"""CSV tables of boxes: one object a row, with a header (`filename,width,height,class,xmin,ymin,xmax,ymax` and
its relatives) or without one (`file,xmin,ymin,xmax,ymax,class` and other orders that can be told apart).
"""

import csv
import io
import math
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from rfdetr.data.formats.collection import (
    Collection,
    Match,
    Picture,
    absent_picture,
    named_categories,
    names_used,
)
from rfdetr.data.formats.inventory import (
    IMAGE_SUFFIXES,
    Inventory,
    decoded,
    split_of_file,
    split_of_name,
)
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

KIND = "CSV"
_COLUMNS = {
    "file": ("filename", "file", "file_name", "image", "image_path", "image_name", "image_id", "path", "img"),
    "class": ("class", "label", "name", "category", "class_name", "labelname", "type"),
    "left": ("xmin", "x_min", "x1", "left"),
    "top": ("ymin", "y_min", "y1", "top"),
    "right": ("xmax", "x_max", "x2", "right"),
    "bottom": ("ymax", "y_max", "y2", "bottom"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "split": ("split", "subset", "set"),
}
_NEEDED = ("file", "left", "top", "right", "bottom", "class")


@dataclass(frozen=True)
class _Table:
    """Where a CSV file has what. columns: role -> column number. header: the first row is one."""

    file: str
    delimiter: str
    columns: dict[str, int]
    header: bool


def find_tables(inventory: Inventory) -> Match | None:
    """The folder's CSV files that hold boxes of pictures."""
    tables = [table for path in inventory.ending(".csv", ".tsv") if (table := _table(inventory, path))]
    if not tables:
        return None
    # A table of everything beside the tables of its splits would give every picture twice.
    in_splits = [table for table in tables if split_of_file(table.file)]
    used = in_splits or tables
    return Match(KIND, tuple(table.file for table in used), partial(read_tables, inventory, used))


def read_tables(inventory: Inventory, tables: list[_Table]) -> Collection:
    """Pictures of the tables' rows; a column tells the split, or the file's name (train.csv)."""
    pictures: dict[str, Picture] = {}
    report = DataReport()
    seen: set[tuple[object, ...]] = set()
    for table in tables:
        for number, row in _rows(inventory, table):
            where = f"{table.file}, row {number}"
            values = {
                role: row[column].strip() for role, column in table.columns.items() if column < len(row)
            }
            if len(values) < len(table.columns) or not values["file"]:
                report.add("row with too few columns (left out)", where)
                continue
            picture = _picture(inventory, table, values, pictures)
            _add(picture, values, where, seen)
    unlisted = [path for path in inventory.pictures if path not in pictures]
    if unlisted:
        report.note("pictures that no CSV lists (left out)", len(unlisted))
    found = list(pictures.values())
    return Collection(found, named_categories(names_used(found)), report)


def _rows(inventory: Inventory, table: _Table) -> list[tuple[int, list[str]]]:
    lines = io.StringIO(inventory.text(table.file), newline="")
    reader = csv.reader(lines, delimiter=table.delimiter)
    found = []
    start = 1
    try:
        for number, row in enumerate(reader, start=1):
            used = [row[column] for column in table.columns.values() if column < len(row)]
            if any("\n" in value for value in used):
                raise csv.Error(f"it goes on to line {reader.line_num}")
            if row and not (table.header and number == 1):
                found.append((number, row))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{inventory.path(table.file)}: the row that begins in line {start} cannot be read ({error}): is"
            " a quotation mark left open there? Close or remove it"
        ) from error
    return found


def _picture(
    inventory: Inventory, table: _Table, values: dict[str, str], pictures: dict[str, Picture]
) -> Picture:
    """The picture of a row, made when it is met first."""
    told = values.get("split", "").lower()
    split = (split_of_name(told) if told else None) or split_of_file(table.file)
    file = inventory.picture(values["file"], table.file, split)
    if file is None and not values["file"].lower().endswith(IMAGE_SUFFIXES):
        file = inventory.partner(f"{values['file']}.csv", split)  # a name without its suffix
    picture = Picture(file, split=split) if file else absent_picture(values["file"], split)
    known = pictures.setdefault(file or f"absent {values['file']}", picture)
    if known.split != split:
        problem = ("picture in two splits (kept in the first)", f"{known.file}: {known.split}, {split}")
        if problem not in known.findings:
            known.findings.append(problem)
    if known.size is None and values.get("width") and values.get("height"):
        width, height = _number(values["width"]), _number(values["height"])
        known.size = (int(height), int(width)) if 1 <= width < 1e9 and 1 <= height < 1e9 else None
    return known


def _add(picture: Picture, values: dict[str, str], where: str, seen: set[tuple[object, ...]]) -> None:
    texts = [values[role] for role in ("left", "top", "right", "bottom")]
    if not any(texts) and not values["class"]:
        return  # keras-retinanet's way to list a picture without objects
    left, top, right, bottom = (_number(text) for text in texts)
    key = (picture.file, picture.missing, values["class"], left, top, right, bottom)
    if not all(map(math.isfinite, (left, top, right, bottom))):
        picture.findings.append(("row without a box of four numbers (left out)", where))
    elif not values["class"]:
        picture.findings.append(("object without a name (left out)", where))
    elif key in seen:
        picture.findings.append(("object given twice (used once)", where))
    else:
        seen.add(key)
        box = [left, top, right - left, bottom - top]
        picture.objects.append({"name": values["class"], "bbox": box, "source": where})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _table(inventory: Inventory, path: str) -> _Table | None:
    """Columns of a CSV file; None for one that holds no boxes of pictures."""
    lines = decoded(inventory.head(path, 1 << 16)).splitlines()
    delimiter = max(",;\t|", key=lines[0].count) if lines else ","
    try:
        rows = [row for row in csv.reader(lines[:200], delimiter=delimiter) if row][:100]
    except csv.Error:
        return None
    if not rows:
        return None
    names = [cell.strip().lower() for cell in rows[0]]
    columns = {
        role: names.index(alias)
        for role, aliases in _COLUMNS.items()
        if (alias := next((name for name in aliases if name in names), None))
    }
    if all(role in columns for role in _NEEDED):
        return _Table(path, delimiter, columns, True)
    guessed = _without_header(rows)
    return _Table(path, delimiter, guessed, False) if guessed else None


def _without_header(rows: list[list[str]]) -> dict[str, int] | None:
    """Roles of the columns by what they hold: the one with picture names, the text, the numbers in order.

    With all numbers, the class is the last column.
    """
    full = [[cell.strip() for cell in row] for row in rows if all(cell.strip() for cell in row)]
    widths = {len(row) for row in full}
    if len(widths) != 1:
        return None
    columns = list(zip(*full, strict=True))
    files = [
        i
        for i, cells in enumerate(columns)
        if all(PurePosixPath(c).suffix.lower() in IMAGE_SUFFIXES for c in cells)
    ]
    numeric = [i for i, cells in enumerate(columns) if all(math.isfinite(_number(c)) for c in cells)]
    others = [i for i in range(len(columns)) if i not in files and i not in numeric]
    if len(files) != 1 or len(others) > 1 or len(numeric) + len(others) not in (5, 7):
        return None
    if others:
        label = others[0]
    else:
        label = numeric.pop()
    roles = ["width", "height"] if len(numeric) == 6 else []
    roles += ["left", "top", "right", "bottom"]
    return {"file": files[0], "class": label, **dict(zip(roles, numeric, strict=True))}
