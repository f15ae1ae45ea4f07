"""Finds the splits of a COCO-format folder in the two usual layouts.

`train/_annotations.coco.json` with the pictures beside it (Roboflow exports; also `valid`, `test`), and
`annotations/instances_{train,val,test}*.json` with the pictures in a folder of the same name (COCO 2017).
Other layouts are read by `rfdetr.data.formats`.
"""

import os
from pathlib import Path
from typing import Any

from rfdetr.data.coco import CocoDataset
from rfdetr.data.formats.inventory import ALIASES, IMAGE_SUFFIXES, SPLITS, canonical_split
from rfdetr.errors import NotFoundError

__all__ = ["SPLITS", "NotFoundError", "canonical_split", "coco_folder", "find_splits", "image_files"]


def find_splits(root: str | os.PathLike[str]) -> dict[str, tuple[Path, Path]]:
    """Split -> (annotation file, folder of the pictures) of a COCO-format folder; empty if it is none."""
    root = Path(root)
    found: dict[str, tuple[Path, Path]] = {}
    for split, aliases in ALIASES.items():
        for alias in aliases:
            beside = root / alias / "_annotations.coco.json"
            if beside.is_file():
                found.setdefault(split, (beside, beside.parent))
            for path in sorted((root / "annotations").glob(f"instances_{alias}*.json")):
                found.setdefault(
                    split, (path, _image_folder(root, path.stem.removeprefix("instances_"), alias))
                )
    return found


def _image_folder(root: Path, *names: str) -> Path:
    candidates = [base / name for name in names for base in (root, root / "images")]
    return next((folder for folder in [*candidates, root / "images"] if folder.is_dir()), root)


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Pictures directly in a folder, by file name; hidden files (`._a.jpg` of macOS) are none."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def coco_folder(
    root: str | os.PathLike[str], split: str = "train", name: str | None = None, **options: Any
) -> CocoDataset:
    """Open one split of a COCO-format folder; `options` are those of `CocoDataset`.

    Pictures must lie in the folder. Raises NotFoundError when it has no such split, naming those it has.
    """
    root, split = Path(root), canonical_split(split)
    if not root.is_dir():
        raise NotFoundError(f"dataset folder {root} does not exist: check the path")
    found = find_splits(root)
    if split not in found:
        has = (
            f"it has {', '.join(found)}"
            if found
            else (
                "expected train/_annotations.coco.json (and valid, test) or annotations/instances_train*.json"
            )
        )
        raise NotFoundError(f"{root} has no split {split!r} in COCO format: {has}")
    annotations, images = found[split]
    name = name or root.resolve().name
    return CocoDataset(annotations, images, name, split, **{"within": root, **options})
