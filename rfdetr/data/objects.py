"""The annotations of a COCO-format file: assigned to their pictures, cleaned, numbered."""

from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.data.annotations import (
    Id,
    brief,
    clean_area,
    clean_box,
    clean_crowd,
    describe,
    numbers_of,
    plain_id,
)
from rfdetr.data.box_formats import check_box_format
from rfdetr.data.listing import Listing
from rfdetr.data.masks import clean_mask
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError

UNUSABLE_MASK = "mask that cannot be used"


class _Cleaner:
    """Cleans the annotations of one file."""

    def __init__(self, path: Path, listing: Listing, categories: dict[Id, int], report: DataReport) -> None:
        self.path, self.listing, self.categories, self.report = path, listing, categories, report
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in listing.images}

    def clean(self, entries: list[Any]) -> list[dict[str, Any]]:
        """All of `clean_annotations`."""
        assigned = [self._assign(number, entry) for number, entry in enumerate(entries, start=1)]
        placed = [found for found in assigned if found is not None]
        self._check_format(placed)
        kept = [found for entry in placed if (found := self._clean(*entry)) is not None]
        self._number(kept)
        return kept

    def _assign(self, number: int, entry: Any) -> tuple[dict[str, Any], str, int, int] | None:
        """(entry, its label, image id, category id), or None if it is of no image."""
        if not isinstance(entry, dict):
            self._add("annotation that is no object (left out)", f"number {number}: {describe(entry)}")
            return None
        key = plain_id(entry.get("id"))
        source = entry.get("source")  # readers of other formats name the line or element that it was
        label = f"annotation {brief(key)}" if key is not None else f"annotation number {number}"
        label = brief(source) if isinstance(source, str) and source else label
        category = plain_id(entry.get("category_id"))
        if category not in self.categories:
            known = ", ".join(sorted(map(brief, self.categories), key=lambda text: (len(text), text))[:10])
            raise UserError(
                f"{self.path}: {label} has the unknown category id {brief(entry.get('category_id'))}"
                f" (known: {known}{', ...' if len(self.categories) > 10 else ''}):"
                " add it to the file's categories or remove the annotation"
            )
        image = plain_id(entry.get("image_id"))
        if image in self.listing.left_out:
            self.report.note("annotations of pictures that are left out")
            return None
        if image not in self.listing.ids:
            self._add("annotation of an unknown image (left out)", label, key)
            return None
        return entry, label, self.listing.ids[image], self.categories[category]

    def _check_format(self, placed: list[tuple[dict[str, Any], str, int, int]]) -> None:
        rows = [
            (*box, *self.sizes[image], _plain_area(entry.get("area")))
            for entry, _, image, _ in placed
            if (box := numbers_of(entry.get("bbox"))) is not None
        ]
        table = np.array(rows, dtype=np.float64).reshape(-1, 7)
        check_box_format(self.path, table[:, :4], table[:, 4:6], table[:, 6])

    def _clean(self, entry: dict[str, Any], label: str, image: int, category: int) -> dict[str, Any] | None:
        key = plain_id(entry.get("id"))
        size = self.sizes[image]
        box = clean_box(entry, label, *size, self.report, file=str(self.path), annotation=key)
        if box is None:
            return None
        crowd, sound = clean_crowd(entry.get("iscrowd"))
        if not sound:
            self._add("crowd flag that is neither 0 nor 1 (read as 0)", label, key)
        elif isinstance(entry.get("iscrowd"), str):
            self.report.note("crowd flags that are texts (read as numbers)")
        area, sound = clean_area(entry.get("area"), box)
        if not sound and "area" in entry:
            found = describe(entry["area"])
            self._add("area that is no number >= 0 (that of the box is used)", f"{label}: {found}", key)
        elif sound and (area == 0 or area > 2 * box[2] * box[3] + 1):
            self._add("area of 0, or larger than the box (kept)", f"{label}: {area:g}", key)
        clean = {
            "id": key,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
        }
        if "ignored" in entry:
            clean["ignored"] = str(entry["ignored"])
        mask, flaw = clean_mask(entry.get("segmentation"), *size)
        if mask is not None:
            clean["segmentation"] = mask
        if flaw and mask is None:
            self._add(UNUSABLE_MASK, f"{label}: {flaw}", key)
        elif flaw:
            kind = "polygon part without area in the picture (dropped, the others stay)"
            self._add(kind, f"{label}: {flaw}", key)
        return clean

    def _number(self, kept: list[dict[str, Any]]) -> None:
        """Give every annotation an id of its own: those that have none, a text, or one used before."""
        used: set[int] = set()
        again = []
        for annotation in kept:
            key = annotation["id"]
            if isinstance(key, int) and key not in used:
                used.add(key)
                continue
            if isinstance(key, int):
                self._add("annotation id used twice (kept, numbered anew)", f"annotation {key}", key)
            again.append(annotation)
        for number, annotation in enumerate(again, start=max(used, default=0) + 1):
            annotation["id"] = number

    def _add(self, kind: str, text: str, key: Id | None = None) -> None:
        self.report.add(kind, text, file=str(self.path), annotation=key)


def _plain_area(value: Any) -> float:
    area, sound = clean_area(value, [0, 0, 0, 0])
    return float(area) if sound else np.nan


def clean_annotations(
    path: Path,
    entries: list[Any],
    listing: Listing,
    categories: dict[Id, int],
    report: DataReport,
) -> list[dict[str, Any]]:
    """The annotations of the file `path` that stay: id, image_id, category_id, bbox (xywh in px, inside its
    picture), area, iscrowd and, where there is a usable mask, segmentation; `ignored`, a name that readers
    of other formats give to regions that are no objects, is kept.

    listing, categories: its pictures, and the id here of every category id there. Raises UserError for an
    unknown category, and for boxes that are no x, y, width, height in pixels.
    """
    return _Cleaner(path, listing, categories, report).clean(entries)
