"""One binary PNG per object: `ID/images/NAME.png` with `ID/masks/*.png` (Data Science Bowl 2018)."""

import posixpath
from collections import defaultdict
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from rfdetr.data.formats.collection import Collection, Match, Picture, named_categories
from rfdetr.data.formats.inventory import Inventory, split_of_folder

KIND = "PNG masks"
NAME = "object"
"""The format has no class names; a manifest gives one."""


def find_instance_masks(inventory: Inventory) -> Match | None:
    """Pictures in folders `images` with a sister folder `masks`."""
    masks: dict[str, list[str]] = defaultdict(list)
    pictures: dict[str, list[str]] = defaultdict(list)
    for path in inventory.pictures:
        parent = PurePosixPath(path).parent
        if parent.name in ("masks", "images"):
            (masks if parent.name == "masks" else pictures)[parent.parent.as_posix()].append(path)
    pairs = {
        base: (files[0], masks[base]) for base, files in pictures.items() if len(files) == 1 and masks[base]
    }
    if not pairs:
        return None
    used = tuple(path for _, found in pairs.values() for path in found)
    return Match(KIND, used, partial(read_instance_masks, inventory, pairs))


def read_instance_masks(inventory: Inventory, pairs: dict[str, tuple[str, list[str]]]) -> Collection:
    """One object per mask: its run-length code and the box around its pixels."""
    pictures = [
        _picture(inventory, file, masks, split_of_folder(base))
        for base, (file, masks) in sorted(pairs.items())
    ]
    return Collection(pictures, named_categories([NAME]))


def _picture(inventory: Inventory, file: str, masks: list[str], split: str | None) -> Picture:
    picture = Picture(file, split=split)
    covered: np.ndarray | None = None
    for path in masks:
        mask = _mask(inventory, path)
        if mask is None:
            picture.findings.append(("mask file that cannot be read (left out)", path))
        elif not mask.any():
            picture.findings.append(("mask without a pixel (left out)", path))
        elif picture.size not in (None, mask.shape):
            picture.findings.append(("mask of another size than the others of its picture (left out)", path))
        else:
            picture.size = (mask.shape[0], mask.shape[1])
            picture.objects.append(_object(mask, path))
            shared = 0 if covered is None else int((covered & mask).sum())
            picture.notes += ["pixels that belong to two masks"] * shared
            covered = mask if covered is None else covered | mask
    return picture


def _mask(inventory: Inventory, path: str) -> np.ndarray | None:
    try:
        with Image.open(inventory.path(path)) as image:
            return np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _object(mask: np.ndarray, path: str) -> dict[str, Any]:
    from pycocotools import mask as rle

    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    size = [int(side) for side in code["size"]]
    segmentation = {"size": size, "counts": code["counts"].decode("ascii")}
    return {
        "name": NAME,
        "bbox": box,
        "segmentation": segmentation,
        "area": int(mask.sum()),
        "source": posixpath.basename(path),
    }
