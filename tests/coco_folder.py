"""A folder in COCO 2017's own layout: 80 names, ids to 90, `annotations/instances_val2017.json`."""

import json

import numpy as np
from PIL import Image

from rfdetr.data.categories import COCO_CATEGORIES


def pictures(folder, count, side=96, seed=0):
    """Pictures with coloured rectangles, named as COCO's are; their entries for an annotation file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries = []
    for number in range(1, count + 1):
        pixels = rng.integers(0, 60, (side, side + 32, 3)).astype(np.uint8)
        for _ in range(4):
            (top, left), (high, wide) = rng.integers(0, side - 24, 2), rng.integers(12, 48, 2)
            pixels[top : top + high, left : left + wide] = rng.integers(60, 256, 3)
        name = f"{100 * seed + number:012d}.jpg"
        Image.fromarray(pixels).save(folder / name)
        entries.append({"id": 7 * number, "file_name": name, "height": side, "width": side + 32})
    return entries


def annotations(entries, boxes, names=COCO_CATEGORIES, masks=False):
    """COCO's file for pictures and (position of the picture, category id, [left, top, width, height])."""
    listed = [
        {
            "id": number,
            "image_id": entries[position]["id"],
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            **({"segmentation": [outline(*box)]} if masks else {}),
        }
        for number, (position, category, box) in enumerate(boxes, start=1)
    ]
    categories = [{"id": i, "name": name, "supercategory": "thing"} for i, name in names.items()]
    return {"images": entries, "annotations": listed, "categories": categories}


def outline(left, top, width, height):
    """The polygon of a box."""
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def split(root, name, entries, boxes, masks=False):
    """Write `annotations/instances_<name>.json`; the pictures lie in `<name>/`."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    text = json.dumps(annotations(entries, boxes, masks=masks))
    (root / "annotations" / f"instances_{name}.json").write_text(text, encoding="utf-8")


def random_boxes(entries, per_picture=3, seed=0):
    """Some boxes for pictures that no network has seen yet."""
    rng = np.random.default_rng(seed)
    ids = list(COCO_CATEGORIES)
    return [
        (position, ids[rng.integers(len(ids))], [*map(int, rng.integers(0, 40, 2)), 30, 25])
        for position in range(len(entries))
        for _ in range(per_picture)
    ]
