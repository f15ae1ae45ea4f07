"""Pascal VOC: one XML file per picture, wherever it lies.

VOC boxes are corners of pixels counted from 1, both included: x = xmin - 1, width = xmax - xmin + 1. Some
tools write the far corner excluded, so that a box at the picture's edge ends one pixel past it; where more
boxes of a folder end there than at the last pixel, all are read so.
"""

import math
import posixpath
import re
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from rfdetr.data.formats.collection import (
    Collection,
    Match,
    Picture,
    absent_picture,
    box_of_points,
    named_categories,
    names_used,
)
from rfdetr.data.formats.inventory import SPLITS, Inventory, split_of_folder
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

KIND = "Pascal VOC"
_SNIFFED = 5
_LIST = re.compile(r"(^|.*/)ImageSets/Main/(train|val|test|trainval)\.txt$")


def find_voc(inventory: Inventory) -> Match | None:
    """The folder's XML files if they are VOC annotations. Raises UserError for two VOC folders in one."""
    files = inventory.ending(".xml")
    step = max(1, len(files) // _SNIFFED)
    if not any(b"<annotation" in inventory.head(path) for path in files[::step]):
        return None
    lists = [path for path in inventory.files if _LIST.match(path)]
    bases = sorted({path.partition("ImageSets/")[0].rstrip("/") for path in lists})
    if len(bases) > 1:
        raise UserError(
            f"{inventory.root} holds {len(bases)} Pascal VOC folders ({', '.join(bases)}): give one of them"
        )
    return Match(KIND, (*files, *lists), partial(read_voc, inventory, files, lists))


def read_voc(inventory: Inventory, files: list[str], lists: list[str]) -> Collection:
    """Pictures of the XML files, in the splits of the lists, else of the folders' names."""
    report = DataReport()
    pictures = [picture for path in files if (picture := _read(inventory, path, report)) is not None]
    _far_corners(pictures)
    collection = Collection(pictures, named_categories(names_used(pictures)), report)
    known = {picture.file for picture in pictures}
    stems = {PurePosixPath(path).stem for path in files}
    for path in inventory.pictures:
        if path not in known and PurePosixPath(path).stem not in stems:
            collection.report.add("picture without an annotation file (left out)", path)
    if lists:
        _apply_lists(inventory, lists, collection)
    return collection


def _read(inventory: Inventory, path: str, report: DataReport) -> Picture | None:
    """The picture of one XML file; None for XML that is damaged or no annotation."""
    label = PurePosixPath(path).name
    try:
        tree = _parsed(inventory.path(path).read_bytes())
    except (ET.ParseError, ValueError, LookupError, OSError) as error:
        report.add("unreadable annotation file (its picture is left out)", f"{label}: {error}")
        return None
    if tree.tag != "annotation":
        return None
    split = split_of_folder(posixpath.dirname(path))
    told = (tree.findtext("filename") or "").strip()
    alike = inventory.partners(path, split)
    name = PurePosixPath(told.replace("\\", "/")).name
    file = next((file for file in alike if PurePosixPath(file).name == name), next(iter(alike), None))
    for other in alike:
        if other != file:
            report.add("picture without an annotation file (left out)", other)
    if file is None and told:
        file = inventory.picture(told, path, split)
    if file is None:
        picture = absent_picture(told or f"{PurePosixPath(path).stem}.*", split)
    else:
        picture = Picture(file, split=split)
        stem = PurePosixPath(told.replace("\\", "/")).stem
        if told and stem not in (PurePosixPath(path).stem, PurePosixPath(file).stem):
            finding = "file name in the annotations differs (the XML file's own name is used)"
            picture.findings.append((finding, f"{label}: {told}"))
    height, width = (_whole(tree.findtext(f"size/{key}")) for key in ("height", "width"))
    picture.size = (height, width) if height and width else None
    _objects(tree, label, picture)
    return picture


def _parsed(content: bytes) -> ET.Element:
    """XML in any encoding that Python knows; the parser by itself lacks those of East Asia."""
    declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[^>]*>", content)
    try:
        return ET.fromstring(content)
    except (ValueError, LookupError):
        if declared is None:
            raise
    return ET.fromstring(content[declared.end() :].decode(declared[1].decode()))


def _whole(text: str | None) -> int:
    try:
        return int(float(text or ""))
    except (ValueError, OverflowError):
        return 0


def _objects(tree: ET.Element, label: str, picture: Picture) -> None:
    """Adds the objects; boxes keep their corners (xmin, ymin, xmax, ymax) until `_far_corners`."""
    seen: list[tuple[Any, ...]] = []
    for element in tree.iter("object"):
        name = (element.findtext("name") or "").strip()
        polygons = _polygons(element)
        keys = ("xmin", "ymin", "xmax", "ymax")
        try:
            corners = [float(element.findtext(f"bndbox/{key}", "")) for key in keys]
            if not all(map(math.isfinite, corners)):
                raise ValueError
        except ValueError:
            if not polygons:
                finding = "object without a box of four numbers (left out)"
                picture.findings.append((finding, f"{label}: {name}"))
                continue
            x, y, w, h = box_of_points([value for polygon in polygons for value in polygon])
            corners = [x + 1, y + 1, x + w, y + h]
        where = f"{label}: {name} {[int(c) if c == int(c) else c for c in corners]}"
        if not name:
            picture.findings.append(("object without a name (left out)", label))
        elif corners[2] <= corners[0] or corners[3] <= corners[1]:
            picture.findings.append(("box without area (left out)", where))
        elif (name, corners) in seen:
            picture.findings.append(("object given twice (used once)", where))
        else:
            seen.append((name, corners))
            item: dict[str, Any] = {"name": name, "corners": corners, "source": where}
            if polygons:
                item["segmentation"] = polygons
            picture.objects.append(item)


def _polygons(element: ET.Element) -> list[list[float]]:
    """Outlines of an object: children x1, y1, x2, y2, ... or points with x and y each."""
    found = []
    for polygon in element.iter("polygon"):
        points = [(pt.findtext("x"), pt.findtext("y")) for pt in polygon if pt.find("x") is not None]
        if not points:
            values = {child.tag: child.text for child in polygon}
            count = sum(1 for tag in values if re.fullmatch(r"x\d+", tag))
            points = [(values.get(f"x{i}"), values.get(f"y{i}")) for i in range(1, count + 1)]
        try:
            numbers = [float(value or "") for point in points for value in point]
        except ValueError:
            continue
        if len(numbers) >= 6:
            found.append(numbers)
    return found


def _far_corners(pictures: list[Picture]) -> None:
    """Corners -> xywh, by the convention that fits the folder (see the module's text)."""
    at_edge = past = 0
    for picture in pictures:
        if picture.size is None:
            continue
        height, width = picture.size
        for item in picture.objects:
            over = max(item["corners"][2] - width, item["corners"][3] - height)
            at_edge += over == 0
            past += over == 1
            if over == 1:
                picture.notes.append("boxes that end one pixel past the picture")
    inclusive = 0 if past > at_edge else 1
    for picture in pictures:
        for item in picture.objects:
            left, top, right, bottom = item.pop("corners")
            item["bbox"] = [left - 1, top - 1, right - left + inclusive, bottom - top + inclusive]


def _apply_lists(inventory: Inventory, lists: list[str], collection: Collection) -> None:
    """Splits of ImageSets/Main; `trainval` counts only where there is no `train`."""
    by_stem = {PurePosixPath(picture.file).stem: picture for picture in collection.pictures}
    by_name = {PurePosixPath(picture.file).name: picture for picture in collection.pictures}
    for picture in collection.pictures:
        picture.split = None
    paths = {PurePosixPath(path).stem: path for path in lists}
    names = {"train": "train" if "train" in paths else "trainval", "val": "val", "test": "test"}
    for split in SPLITS:
        if (path := paths.get(names[split])) is None:
            continue
        text = inventory.text(path)
        for line in dict.fromkeys(filter(None, map(str.strip, text.splitlines()))):
            meant = [known[n] for n in _readings(line) for known in (by_stem, by_name) if n in known]
            if not meant:
                name = _readings(line)[-1]
                file = inventory.picture(name, path) or inventory.partner(
                    f"{posixpath.dirname(path)}/{name}.txt"
                )
                if file is None:
                    collection.pictures.append(absent_picture(name, split))
                else:
                    collection.report.add(
                        "listed picture without annotations (left out)", f"{file}, in {path}"
                    )
            elif (picture := meant[0]).split not in (None, split):
                finding = "picture in two splits (kept in the first)"
                picture.findings.append((finding, f"{picture.file}: {picture.split}, {split}"))
            else:
                picture.split = split


def _readings(line: str) -> list[str]:
    """What a line of a list may mean, the likeliest first: all of it, or without a last column of -1, 0, 1;
    each also without folders.
    """
    lines = [line]
    if shorter := re.fullmatch(r"(.*\S)\s+(?:-1|0|\+?1)", line):
        lines.append(shorter[1])
    readings = []
    for text in lines:
        name = text.replace("\\", "/").rsplit("/", 1)[-1]
        readings += [name, PurePosixPath(name).stem] if re.search(r"\.[A-Za-z]{3,4}$", name) else [name]
    return readings
