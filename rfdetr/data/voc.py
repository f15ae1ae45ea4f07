"""Pascal VOC folders -> COCO-format folders.

VOC boxes are corners of pixels counted from 1, both included: x = xmin - 1, width = xmax - xmin + 1. (The
boxes of the registered sets do start at 1 and end at the image's width.) Flaws are repaired or left out, and
reported.
"""

import json
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfdetr.data.annotations import clean_box
from rfdetr.data.categories import CategoryMap
from rfdetr.data.folders import SPLITS, image_files
from rfdetr.data.images import image_size
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError
from rfdetr.files import sha256_file

HASH_SPLIT = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Shares of the deterministic split of a folder that has no split lists."""
_FOLDER = {"train": "train", "val": "valid", "test": "test"}


def find_voc(root: str | os.PathLike[str]) -> tuple[Path, Path] | None:
    """(folder of the XML files, folder of the pictures) of a VOC folder, or of the one VOC folder inside;
    else None.
    """
    root = Path(root)
    if not root.is_dir():
        return None
    for base in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        xml = next((base / n for n in ("Annotations", "annotations") if any((base / n).glob("*.xml"))), None)
        images = next((base / n for n in ("JPEGImages", "images") if (base / n).is_dir()), None)
        if xml is not None and images is not None:
            return xml, images
    return None


def convert_voc(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    shares: Mapping[str, float] = HASH_SPLIT,
    name: str | None = None,
) -> DataReport:
    """Write `source` as a COCO-format folder (train, valid, test; pictures hard-linked or copied) and report
    its flaws.

    Splits come from ImageSets/Main/{train,val,test}.txt; without these lists every picture is put by a hash
    of its content, in the given `shares`: a picture that occurs twice cannot end up in two splits. classes:
    names in the order of their ids; by default all that occur, sorted. name: for the report. The folder
    appears complete or not at all; the report is also written to its `report.json`. Raises UserError when
    `source` is no VOC folder, `destination` exists, or a class is not among `classes`.
    """
    found = find_voc(source)
    if found is None:
        raise UserError(
            f"{source} is no Pascal VOC folder: expected Annotations/*.xml and JPEGImages (or annotations,"
            " images)"
        )
    destination = Path(destination)
    if destination.exists():
        raise UserError(f"{destination} exists already: choose a new folder")
    xml_folder, image_folder = found
    report = DataReport(f"{name or Path(source).resolve().name}, converted from Pascal VOC")
    pictures = {path.stem: path for path in image_files(image_folder)}
    records = _read_all(xml_folder, pictures, report)
    names = {name for record in records.values() for name, _ in record["objects"]}
    if classes is not None and not names <= set(classes):
        raise UserError(
            f"{xml_folder}: class {min(names - set(classes))!r} is not among {', '.join(classes)}: add it"
        )
    categories = CategoryMap.from_names(classes if classes is not None else sorted(names))
    hashes = {stem: sha256_file(pictures[stem]) for stem in records}
    splits = _splits(xml_folder.parent, hashes, shares, report)
    _report_twins(splits, hashes, report)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
        staged = Path(temporary) / "data"
        for split, stems in splits.items():
            _write_split(staged / _FOLDER[split], stems, records, pictures, categories, report)
        (staged / "report.json").write_text(json.dumps(report.to_dict(), indent=1))
        staged.rename(destination)
    return report


def _read_all(folder: Path, pictures: dict[str, Path], report: DataReport) -> dict[str, dict[str, Any]]:
    """Stem -> height, width, objects [(name, (xmin, ymin, xmax, ymax))] of every picture with annotations."""
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.xml")):
        if path.stem not in pictures:
            report.add("annotation file without a picture (left out)", path.name)
            continue
        try:
            tree = ET.parse(path).getroot()
            height, width = image_size(pictures[path.stem])
        except (ET.ParseError, UserError) as error:
            report.add("unreadable annotation file or picture (left out)", f"{path.name}: {error}")
            continue
        told = (tree.findtext("size/height", ""), tree.findtext("size/width", ""))
        if told != (str(height), str(width)):
            report.add(
                "wrong image size in the annotations (corrected)",
                f"{path.name}: {told[1]}x{told[0]}, is {width}x{height}",
            )
        if Path(tree.findtext("filename", path.stem)).stem != path.stem:
            report.add("file name in the annotations differs (the XML file's own name is used)", path.name)
        records[path.stem] = {"height": height, "width": width, "objects": _objects(tree, path.name, report)}
    for stem in sorted(set(pictures) - {path.stem for path in folder.glob("*.xml")}):
        report.add("picture without an annotation file (left out)", pictures[stem].name)
    return records


def _objects(tree: ET.Element, label: str, report: DataReport) -> list[tuple[str, tuple[float, ...]]]:
    objects: list[tuple[str, tuple[float, ...]]] = []
    for element in tree.iter("object"):
        name = (element.findtext("name") or "").strip()
        try:
            box = tuple(
                float(element.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            report.add("object without a box of four numbers (left out)", f"{label}: {name}")
            continue
        if not name:
            report.add("object without a name (left out)", label)
        elif box[2] <= box[0] or box[3] <= box[1]:
            report.add("box without area (left out)", f"{label}: {name} {list(box)}")
        elif (name, box) in objects:
            report.add("object given twice (used once)", f"{label}: {name} {list(box)}")
        else:
            objects.append((name, box))
    return objects


def _splits(
    root: Path, hashes: dict[str, str], shares: Mapping[str, float], report: DataReport
) -> dict[str, list[str]]:
    lists = {split: root / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS}
    if not any(path.is_file() for path in lists.values()):
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        for stem in sorted(hashes):
            splits[hash_split(hashes[stem], shares)].append(stem)
        return splits
    splits = {}
    taken: dict[str, str] = {}
    for split, path in lists.items():
        if not path.is_file():
            continue
        splits[split] = []
        for stem in dict.fromkeys(line.split()[0] for line in path.read_text().splitlines() if line.strip()):
            if stem not in hashes:
                report.add("listed picture without annotations (left out)", f"{path.name}: {stem}")
            elif stem in taken:
                report.add("picture in two splits (kept in the first)", f"{stem}: {taken[stem]}, {split}")
            else:
                taken[stem] = split
                splits[split].append(stem)
    for stem in sorted(set(hashes) - set(taken)):
        report.add("picture in no split list (left out)", stem)
    return splits


def hash_split(sha256: str, shares: Mapping[str, float] = HASH_SPLIT) -> str:
    """Split of a picture from its content's hash (hex) alone: adding or removing others never moves it."""
    position = int(sha256[:12], 16) / 16**12 * sum(shares.values())
    for split, share in shares.items():
        if position < share:
            return split
        position -= share
    return list(shares)[-1]


def _report_twins(splits: dict[str, list[str]], hashes: dict[str, str], report: DataReport) -> None:
    """A picture that occurs in two splits under two names would be training data in the test set."""
    seen: dict[str, tuple[str, str]] = {}
    for split, stems in splits.items():
        for stem in stems:
            first_split, first = seen.setdefault(hashes[stem], (split, stem))
            if first != stem:
                where = "two splits" if first_split != split else "one split"
                report.add(f"the same picture under two names in {where} (kept)", f"{first}, {stem}")


def _write_split(
    folder: Path,
    stems: list[str],
    records: dict[str, dict[str, Any]],
    pictures: dict[str, Path],
    categories: CategoryMap,
    report: DataReport,
) -> None:
    folder.mkdir(parents=True)
    ids = dict(zip(categories.names, categories.ids, strict=True))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for stem in stems:
        record, picture = records[stem], pictures[stem]
        height, width = record["height"], record["width"]
        images.append({"id": len(images) + 1, "file_name": picture.name, "height": height, "width": width})
        for name, (xmin, ymin, xmax, ymax) in record["objects"]:
            entry = {"bbox": [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]}
            box = clean_box(entry, f"{stem}: {name}", height, width, report)
            if box is None:
                continue
            number = len(annotations) + 1
            annotations.append(
                {
                    "id": number,
                    "image_id": len(images),
                    "category_id": ids[name],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        _place(picture, folder / picture.name)
        if not record["objects"]:
            report.note("images without objects (legal)")
    content = {"images": images, "annotations": annotations, "categories": categories.to_coco()}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
