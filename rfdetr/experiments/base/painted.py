"""Scenes that are painted once and shared by all processes that train on them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.data.scenes import Scenes
from rfdetr.files import atomic_path

MOST = 64  # objects of a scene; the fullest domain has 60


class Painted(DetectionDataset):
    """The scenes of `base` without their masks, each kept in a file once it was painted.

    folder: of the file. It has 3 canvas^2 + 1,154 bytes a scene (29 KB at 96 px) and takes space as it is
    filled. Any number of processes may use it at once: what two of them paint is the same.
    """

    def __init__(self, base: Scenes, folder: Path) -> None:
        self.base = base
        self.name, self.split = base.name, base.split
        self.category_ids, self.flip = base.category_ids, base.flip
        side = base.canvas
        kind = np.dtype(
            [
                ("objects", "i2"),  # one more than there are; 0: not painted yet
                ("labels", "i2", (MOST,)),
                ("boxes", "f4", (MOST, 4)),
                ("picture", "u1", (side, side, 3)),
            ]
        )
        path = folder / f"{base.name}-{base.split}-{base.fingerprint}.bin"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    file.truncate(kind.itemsize * len(base))
        self._kept = np.memmap(path, kind, "r+", shape=(len(base),))

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Image uint8 [canvas, canvas, 3] and its target without masks."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {self!r}")
        row = self._kept[index]
        if not row["objects"]:
            self._paint(index)
        count = int(row["objects"]) - 1
        target = Target(
            labels=torch.from_numpy(row["labels"][:count].astype(np.int64)),
            boxes=torch.from_numpy(row["boxes"][:count].copy()),
            masks=None,
            image_id=index + 1,
            size=(self.base.canvas, self.base.canvas),
        )
        return np.array(row["picture"]), target

    def _paint(self, index: int) -> None:
        picture, target = self.base[index]
        row = self._kept[index]
        row["labels"][: len(target)] = target.labels.numpy()
        row["boxes"][: len(target)] = target.boxes.numpy()
        row["picture"] = picture
        # Last, so that whoever sees it finds the rest.
        row["objects"] = len(target) + 1

    @property
    def coco(self) -> dict[str, Any]:
        """As the scenes' own."""
        return self.base.coco

    @property
    def fingerprint(self) -> str:
        """As the scenes' own: the same pictures and boxes."""
        return self.base.fingerprint

    @property
    def has_masks(self) -> bool:
        """Never: boxes alone are kept."""
        return False
