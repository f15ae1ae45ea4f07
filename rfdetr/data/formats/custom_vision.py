"""Custom Vision: one JSON list of pictures with `regions` whose sides are fractions of the picture."""

import json
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from rfdetr.data.formats.collection import (
    Collection,
    Match,
    Picture,
    absent_picture,
    named_categories,
    names_used,
)
from rfdetr.data.formats.inventory import Inventory, decoded, split_of_file
from rfdetr.data.formats.yolo import shown_size

KIND = "Custom Vision JSON"
_SIDES = ("left", "top", "width", "height")


def find_custom_vision(inventory: Inventory) -> Match | None:
    """The folder's JSON lists whose entries have regions with tags."""
    files = [path for path in inventory.ending(".json") if _is_export(inventory, path)]
    return Match(KIND, tuple(files), partial(read_custom_vision, inventory, files)) if files else None


def read_custom_vision(inventory: Inventory, files: list[str]) -> Collection:
    """Pictures by their id (the file's name without its suffix) or by the name in their address."""
    pictures = []
    for path in files:
        for entry in json.loads(inventory.path(path).read_bytes()):
            if not isinstance(entry, dict):
                continue
            pictures.append(_picture(inventory, path, entry))
    return Collection(pictures, named_categories(names_used(pictures)))


def _picture(inventory: Inventory, path: str, entry: dict[str, Any]) -> Picture:
    split = split_of_file(path)
    folder = PurePosixPath(path).parent
    file = inventory.partner((folder / f"{entry.get('id')}.json").as_posix(), split)
    for key in ("imageUri", "originalImageUri", "name"):
        if file is None and entry.get(key):
            file = inventory.picture(str(entry[key]).partition("?")[0], path, split)
    if file is None:
        return absent_picture(f"{entry.get('id')}.*", split)
    size = shown_size(inventory, file)
    picture = Picture(file, size=size, split=split)
    for number, region in enumerate(_regions(entry), start=1):
        where = f"{file}, region {number}"
        try:
            x, y, w, h = (float(region[side]) for side in _SIDES)
            name = region["tagName"]
            if not isinstance(name, str) or not name:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            picture.findings.append(("region without a tag and four sides (left out)", where))
            continue
        if size is not None:
            height, width = size
            box = [x * width, y * height, w * width, h * height]
            picture.objects.append({"name": name, "bbox": box, "source": f"{where}: {name}"})
    return picture


def _regions(entry: dict[str, Any]) -> list[Any]:
    found = entry.get("regions")
    return found if isinstance(found, list) else []


def _is_export(inventory: Inventory, path: str) -> bool:
    head = decoded(inventory.head(path)).lstrip()
    if not head.startswith("[") or '"' not in head:
        return False
    try:
        content = json.loads(inventory.path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    regions = [r for e in content if isinstance(e, dict) for r in _regions(e) if isinstance(r, dict)]
    return any("tagName" in region and "left" in region for region in regions)
