"""Which format a folder is in, by what is in it."""

import json
from collections import Counter
from pathlib import PurePosixPath

from rfdetr.data.formats.coco_json import find_coco
from rfdetr.data.formats.collection import Match
from rfdetr.data.formats.custom_vision import find_custom_vision
from rfdetr.data.formats.instance_masks import find_instance_masks
from rfdetr.data.formats.inventory import IMAGE_SUFFIXES, Inventory
from rfdetr.data.formats.pair_lists import find_pair_lists
from rfdetr.data.formats.tables import find_tables
from rfdetr.data.formats.voc import find_voc
from rfdetr.data.formats.yolo import find_bare_yolo, find_yolo
from rfdetr.errors import NotFoundError

# The surest signs first: a set that was exported as VOC often has CSV tables beside it.
_FINDERS = (
    find_coco,
    find_yolo,
    find_voc,
    find_custom_vision,
    find_pair_lists,
    find_instance_masks,
    find_bare_yolo,
    find_tables,
)
LOOKED_FOR = (
    "COCO JSON (train/_annotations.coco.json, annotations/instances_train.json or train.json, or one file)",
    "Pascal VOC (XML files)",
    "YOLO (data.yaml, labels/*.txt)",
    "CSV (filename, width, height, class, xmin, ymin, xmax, ymax; or file, xmin, ymin, xmax, ymax, class)",
    "Custom Vision JSON",
    "DeepPCB lists",
    "one PNG per object (images/ beside masks/)",
)


def recognise(inventory: Inventory) -> Match:
    """The format of a folder. Raises NotFoundError that says what was looked for and what was found."""
    for find in _FINDERS:
        match = find(inventory)
        if match is not None:
            return match
    found = [inventory.describe(inventory.pictures, "pictures")] if inventory.pictures else ["no pictures"]
    others = [path for path in inventory.files if not path.lower().endswith(IMAGE_SUFFIXES)]
    suffixes = Counter(PurePosixPath(path).suffix.lower() for path in others)
    for suffix, _ in suffixes.most_common(4):
        paths = [path for path in others if PurePosixPath(path).suffix.lower() == suffix]
        found.append(inventory.describe(paths, f"{suffix or 'other'} files") + _begins(inventory, paths[0]))
    raise NotFoundError(
        f"no annotations that can be read in {inventory.root}. Found: {'; '.join(found)}. Looked for:"
        f" {'; '.join(LOOKED_FOR)}. Give the folder that holds both annotations and pictures, or export the"
        " data as COCO JSON"
    )


def _begins(inventory: Inventory, path: str) -> str:
    """How a text file begins, so that a reader sees what kind it is."""
    if path.lower().endswith(".json"):
        try:
            json.loads(inventory.path(path).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            return f" ({PurePosixPath(path).name} is not readable JSON: {error})"
    head = inventory.head(path, 200)
    if b"\0" in head:
        return ""
    text = " ".join(head.decode("utf-8", errors="replace").split())
    return f" ({PurePosixPath(path).name} begins {text[:60]!r})" if text else ""
