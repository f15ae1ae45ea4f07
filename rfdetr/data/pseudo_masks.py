"""Masks for data that have boxes alone: a promptable segmenter draws the object in every box.

The paper pre-trains on Objects365 with masks that SAM 2 made so. The boxes stay as they are.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.data.coco import CocoDataset
from rfdetr.data.conversion import write_folder
from rfdetr.data.images import read_image
from rfdetr.errors import UserError
from rfdetr.progress import progress_bar

Segmenter = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(picture uint8 [H, W, 3], boxes float32 [N, 4] xyxy in pixels) -> masks bool [N, H, W]."""


def sam2_segmenter(weights: str = "facebook/sam2.1-hiera-large", device: str = "auto") -> Segmenter:
    """SAM 2 by its public package. Raises UserError when the package or the weights cannot be had."""
    try:
        import torch
        from sam2.sam2_image_predictor import SAM2ImagePredictor
    except ImportError as error:
        raise UserError(f"SAM 2 is not installed ({error}): pip install sam2") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        predictor = SAM2ImagePredictor.from_pretrained(weights, device=device)
    except Exception as error:
        raise UserError(f"the weights {weights} of SAM 2 cannot be loaded ({error})") from error

    def segment(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            predictor.set_image(image)
            found, _, _ = predictor.predict(box=boxes, multimask_output=False)
        # One mask per box: [N, 1, H, W], or [1, H, W] for a single box.
        return np.asarray(found).reshape(len(boxes), *image.shape[:2]) > 0

    return segment


def add_masks(splits: Mapping[str, CocoDataset], destination: Path, segment: Segmenter) -> None:
    """Write splits as a COCO-format folder whose objects have masks; crowd regions stay as they are.

    What is finished is kept beside `destination`, so that an interrupted call goes on. A mask is cut to its
    box; where none of it is left, the box itself is the mask. Raises UserError when `destination` exists.
    """
    work = destination.with_name(f".{destination.name}.masks")
    work.mkdir(parents=True, exist_ok=True)
    found = {split: _masks(dataset, work / f"{split}.jsonl", segment) for split, dataset in splits.items()}
    write_folder(splits, destination, found)
    for path in work.iterdir():
        path.unlink()
    work.rmdir()


def _masks(dataset: CocoDataset, path: Path, segment: Segmenter) -> dict[int, dict[str, Any]]:
    """Annotation id -> run-length code, read from the file of finished pictures or made now."""
    done, masks = _finished(path)
    objects: dict[Any, list[dict[str, Any]]] = {}
    for entry in dataset.coco["annotations"]:
        if not entry.get("iscrowd"):
            objects.setdefault(entry["image_id"], []).append(entry)
    images = dataset.coco["images"]
    with path.open("a", encoding="utf-8") as file, progress_bar(True, len(images), path.stem) as report:
        for position, image in enumerate(images, start=1):
            entries = objects.get(image["id"], [])
            if entries and image["id"] not in done:
                oriented = (image["height"], image["width"])
                pixels = read_image(dataset.folder / image["file_name"], oriented=oriented)
                made = dict(
                    zip([entry["id"] for entry in entries], _segment(pixels, entries, segment), strict=True)
                )
                masks |= made
                pairs = [[number, code] for number, code in made.items()]
                file.write(json.dumps({"image": image["id"], "masks": pairs}) + "\n")
                file.flush()
            report(position, len(images))
        os.fsync(file.fileno())
    return masks


def _finished(path: Path) -> tuple[set[Any], dict[Any, dict[str, Any]]]:
    """Pictures and masks of the file of an earlier call; its last line may be half written."""
    done: set[Any] = set()
    masks: dict[Any, dict[str, Any]] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole, _, rest = text.rpartition("\n")
    for line in whole.splitlines():
        entry = json.loads(line)
        done.add(entry["image"])
        masks |= dict(entry["masks"])
    if rest:
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    return done, masks


def _segment(pixels: np.ndarray, entries: list[dict[str, Any]], segment: Segmenter) -> list[dict[str, Any]]:
    from pycocotools import mask as rle

    height, width = pixels.shape[:2]
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float32)
    boxes[:, 2:] += boxes[:, :2]
    codes = []
    for mask, box in zip(segment(pixels, boxes), boxes, strict=True):
        left, top = np.clip(np.floor(box[:2]), 0, [width - 1, height - 1]).astype(int)
        right, bottom = np.clip(np.ceil(box[2:]), [left + 1, top + 1], [width, height]).astype(int)
        inside = np.zeros((height, width), dtype=np.uint8)
        inside[top:bottom, left:right] = mask[top:bottom, left:right]
        if not inside.any():
            inside[top:bottom, left:right] = 1
        code = rle.encode(np.asfortranarray(inside))
        codes.append({"size": [height, width], "counts": code["counts"].decode("ascii")})
    return codes
