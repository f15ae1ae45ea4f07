"""Small COCO-format folders with a flaw of one's choice."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
SMOKE = ("--profile", "smoke", "--steps", "1", "--batch-size", "2")
BOXES = ([5, 10, 20, 15], [30, 5, 12, 30])


def picture(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH, **save) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)


def rectangle(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def content(masks: bool = False) -> dict:
    """Two pictures with two objects each, of the classes cat and mouse."""
    images = [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in (1, 2)]
    annotations = [
        {
            "id": 2 * i + k,
            "image_id": i,
            "category_id": k + 1,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": 0,
            **({"segmentation": rectangle(*box)} if masks else {}),
        }
        for i in (1, 2)
        for k, box in enumerate(BOXES)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "mouse"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def make(root: Path, edit=None, splits=("train", "valid", "test"), masks: bool = False) -> Path:
    """A folder of these splits. edit(content, split) changes the content or returns another value."""
    for number, split in enumerate(splits):
        for i in (1, 2):
            picture(root / split / f"{i}.png", seed=10 * number + i)
        values = content(masks)
        changed = edit(values, split) if edit is not None else None
        text = json.dumps(values if changed is None else changed)
        (root / split / "_annotations.coco.json").write_text(text)
    return root


def perfect(data):
    """Detections that are the ground truth."""
    found = []
    for image in data.coco["images"]:
        mine = [a for a in data.coco["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in mine], dtype=float).reshape(-1, 4)
        labels = [data.category_ids.index_of(a["category_id"]) for a in mine]
        boxes[:, 2:] += boxes[:, :2]
        found.append({"image_id": image["id"], "scores": [0.9] * len(mine), "labels": labels, "boxes": boxes})
    return found


def every(key, value):
    """An edit that sets a field of every annotation."""

    def edit(values, split):
        for annotation in values["annotations"]:
            annotation[key] = value

    return edit
