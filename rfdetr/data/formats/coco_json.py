"""COCO JSON in the layouts that people have: one file per split, beside the pictures or in `annotations/`, or
one file for all of them.
"""

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rfdetr.data.annotations import Id, brief, describe, plain_id, read_annotations, read_categories
from rfdetr.data.folders import find_splits
from rfdetr.data.formats.collection import Collection, Match, Picture, absent_picture
from rfdetr.data.formats.inventory import SPLITS, Inventory, canonical_split, decoded, split_of_file
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

KIND = "COCO JSON"
_KEYS = (b'"images"', b'"annotations"', b'"annotation"', b'"categories"')


def find_coco(inventory: Inventory) -> Match | None:
    """The folder's COCO files. Raises UserError when they are of more than one dataset."""
    files = [path for path in inventory.ending(".json") if _is_coco(inventory, path)]
    usual = [path for path in files if _usual_name(path)]
    files = usual or files
    if not files:
        return None
    by_split: dict[str | None, list[str]] = defaultdict(list)
    for path in files:
        by_split[split_of_file(path)].append(path)
    if len(by_split) > 1:
        by_split.pop(None, None)  # a file of everything beside those of the splits
    for split, paths in by_split.items():
        if len(paths) > 1:
            what = f"for the split {split}" if split else "whose names do not tell their split"
            raise UserError(
                f"{inventory.root} holds {len(paths)} COCO files {what} ({', '.join(paths[:4])}): give the"
                " folder of one dataset, or call them train.json, val.json and test.json"
            )
    chosen = {split: paths[0] for split, paths in by_split.items()}
    read = partial(read_coco, inventory, chosen)
    return Match(KIND, tuple(chosen.values()), read, _ready(inventory, chosen) if usual else {})


def read_coco(inventory: Inventory, files: dict[str | None, str]) -> Collection:
    """Pictures and annotations of the files; ids are kept, categories are made one list by name."""
    report = DataReport()
    common: dict[tuple[str, int], dict[str, Any]] = {}
    pictures: list[Picture] = []
    for split in (*SPLITS, None):
        if (path := files.get(split)) is None:
            continue
        content = read_annotations(inventory.path(path))
        ids = _common_ids(inventory.path(path), content["categories"], report, common)
        objects: dict[Id | None, list[dict[str, Any]]] = defaultdict(list)
        for number, annotation in enumerate(content["annotations"], start=1):
            if not isinstance(annotation, dict):
                label = f"number {number} in {path}: {describe(annotation)}"
                report.add("annotation that is no object (left out)", label)
                continue
            told = annotation.get("category_id")
            if (key := plain_id(told)) is None or key not in ids:
                known = brief(", ".join(map(str, ids)))
                raise UserError(
                    f"{inventory.path(path)}: annotation {brief(annotation.get('id'))} has the unknown"
                    f" category id {brief(told)} (known: {known}): add it to the file's categories or remove"
                    " the annotation"
                )
            rest = {name: value for name, value in annotation.items() if name != "image_id"}
            objects[plain_id(annotation.get("image_id"))].append({**rest, "category_id": ids[key]})
        for entry in content["images"]:
            key = plain_id(entry.get("id"))
            mine = [] if key is None else objects.pop(key, [])
            pictures.append(_picture(inventory, path, split, entry, mine))
        for unknown in objects.values():
            for annotation in unknown:
                label = f"annotation {annotation.get('id')} in {path}"
                report.add("annotation of an unknown image (left out)", label)
    _drop_boxes_as_masks(pictures)
    return Collection(pictures, list(common.values()), report)


def _picture(
    inventory: Inventory, path: str, split: str | None, entry: dict[str, Any], objects: list[dict[str, Any]]
) -> Picture:
    told = entry.get("file_name")
    name = told if isinstance(told, str) else ""
    if split is None and isinstance(entry.get("split"), str):
        try:
            split = canonical_split(entry["split"].lower())
        except UserError:
            split = None
    file = inventory.picture(name, path, split) if name else None
    picture = (
        Picture(file, split=split) if file else absent_picture(name or "an entry without file_name", split)
    )
    picture.objects, picture.entry = objects, dict(entry)
    height, width = entry.get("height"), entry.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        picture.size = (height, width)
    return picture


def _common_ids(
    path: Path,
    entries: list[dict[str, Any]],
    report: DataReport,
    common: dict[tuple[str, int], dict[str, Any]],
) -> dict[Id, int]:
    """Ids of a file's categories -> ids of the common list, which grows by names that it lacks.

    common: (name, its number among those of this name) -> category. Raises UserError as `read_categories`.
    """
    own, numbers = read_categories(path, entries, report)
    met: Counter[str] = Counter()
    found: dict[int, int] = {}
    for entry in entries:
        number = numbers[plain_id(entry["id"]) or 0]
        if number in found:
            continue  # listed twice
        name = own.name_of(own.index_of(number))
        place = (name, met[name])
        met[name] += 1
        if place not in common:
            taken = {known["id"] for known in common.values()}
            common[place] = {**entry, "id": number if number not in taken else max(taken) + 1, "name": name}
        found[number] = common[place]["id"]
    return {key: found[number] for key, number in numbers.items()}


def _drop_boxes_as_masks(pictures: list[Picture]) -> None:
    """Removes polygons where every one of them only repeats its box: they are no masks."""
    given = [(picture, item) for picture in pictures for item in picture.objects if item.get("segmentation")]
    if not given or not all(_is_its_box(item) for _, item in given):
        return
    for picture, item in given:
        del item["segmentation"]
        picture.notes.append("segmentations that only repeat the box (no masks)")


def _is_its_box(item: dict[str, Any]) -> bool:
    segmentation = item["segmentation"]
    try:
        x, y, w, h = item["bbox"]
        (points,) = segmentation
        corners = set(zip(points[0::2], points[1::2], strict=True))
        return len(points) in (8, 10) and corners == {(x, y), (x + w, y), (x + w, y + h), (x, y + h)}
    except (KeyError, TypeError, ValueError):
        return False


def _is_coco(inventory: Inventory, path: str) -> bool:
    """True for a JSON object in which at least two of the format's keys occur."""
    if _usual_name(path):
        return True
    head = inventory.head(path)
    if not decoded(head).lstrip().startswith("{"):
        return False
    if b"\0" in head:  # in UTF-16, say
        return sum(key.decode() in inventory.text(path) for key in _KEYS) >= 2
    found: set[bytes] = set()
    before = b""
    with inventory.path(path).open("rb") as file:
        while len(found) < 2 and (block := file.read(1 << 20)):
            found |= {key for key in _KEYS if key in before + block}
            before = block[-20:]
    return len(found) >= 2


def _usual_name(path: str) -> bool:
    name = PurePosixPath(path).name
    return name == "_annotations.coco.json" or name.startswith("instances_")


def _ready(inventory: Inventory, files: dict[str | None, str]) -> dict[str, tuple[str, str]]:
    """Splits that can be opened where they lie, if all of them can."""
    base = inventory.path(next(iter(files.values()))).parent.parent
    found = {
        split: (
            annotations.relative_to(inventory.root).as_posix(),
            images.relative_to(inventory.root).as_posix(),
        )
        for split, (annotations, images) in find_splits(base).items()
        if annotations.is_relative_to(inventory.root) and images.is_relative_to(inventory.root)
    }
    return found if {split: pair[0] for split, pair in found.items()} == files else {}
