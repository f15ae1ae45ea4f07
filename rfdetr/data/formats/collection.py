"""What every reader makes of a folder: pictures with their objects, in one form."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rfdetr.data.report import DataReport
from rfdetr.errors import UserError


@dataclass
class Picture:
    """One picture of a folder and its objects.

    file: path relative to the folder, with "/". objects: annotations in COCO form (bbox xywh in pixels,
    segmentation, iscrowd), with `name` in place of `category_id` unless the source has ids itself, and
    `source`, which says where the object stands. size: (height, width) as the annotations tell it, or None.
    split: "train", "val", "test", or None where the source does not say. missing: the picture is not there.
    findings: (problem, example) pairs. notes: facts that are no problems. entry: further keys of its entry
    in a COCO file.
    """

    file: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    split: str | None = None
    missing: bool = False
    findings: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)


@dataclass
class Collection:
    """All pictures of a folder, its categories (COCO form), and what there is to say about all of it."""

    pictures: list[Picture]
    categories: list[dict[str, Any]]
    report: DataReport = field(default_factory=DataReport)


@dataclass(frozen=True)
class Match:
    """A folder in a known format.

    kind: the format's name. annotations: the files, relative to the folder, that hold the annotations.
    read: makes the collection. ready: split -> (annotation file, folder of the pictures), both relative, of a
    COCO folder that can be opened as it is.
    """

    kind: str
    annotations: tuple[str, ...]
    read: Callable[[], Collection]
    ready: dict[str, tuple[str, str]] = field(default_factory=dict)


def named_categories(names: Iterable[str], first_id: int = 1) -> list[dict[str, Any]]:
    """COCO categories of the names in the given order, numbered from `first_id`."""
    return [
        {"id": number, "name": name, "supercategory": "none"} for number, name in enumerate(names, first_id)
    ]


def names_used(pictures: Iterable[Picture]) -> list[str]:
    """Sorted names of the objects of all pictures."""
    return sorted({str(item["name"]) for picture in pictures for item in picture.objects})


def absent_picture(reference: str, split: str | None = None) -> Picture:
    """An entry for a picture that the annotations name and the folder lacks."""
    file = reference.replace("\\", "/").rsplit("/", 1)[-1]
    return Picture(file, split=split, missing=True)


def box_of_points(points: Sequence[float]) -> list[float]:
    """Box xywh around x1, y1, x2, y2, ..."""
    xs, ys = points[0::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def restrict(
    collection: Collection, classes: Sequence[str], ignore: Sequence[str], renamed: dict[str, str], where: str
) -> Collection:
    """The collection with these classes alone, in this order (all that there are if `classes` is empty).

    ignore: names of regions that are no objects; each becomes a crowd region of every class, in which
    detections are not counted as errors. renamed: other names for the source's. Raises UserError for an
    object of a class that is in neither list.
    """
    by_id = {category["id"]: str(category.get("name", category["id"])) for category in collection.categories}
    names = classes or [
        name
        for c in collection.categories
        if (name := renamed.get(by_id[c["id"]], by_id[c["id"]])) not in ignore
    ]
    for picture in collection.pictures:
        objects: list[dict[str, Any]] = []
        for item in picture.objects:
            old = item["name"] if "name" in item else by_id[item["category_id"]]
            name = renamed.get(old, old)
            rest = {key: value for key, value in item.items() if key not in ("category_id", "name")}
            if name in ignore:
                objects += [{**rest, "name": other, "iscrowd": 1, "ignored": name} for other in names]
            elif name in names:
                objects.append({**rest, "name": name})
            else:
                raise UserError(
                    f"{where}: class {name!r} of {picture.file} is not among {', '.join(names)}: add it"
                )
        picture.objects = objects
    return Collection(collection.pictures, named_categories(names), collection.report)
