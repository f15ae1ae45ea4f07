"""What every dataset looks like to the rest of the package."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfdetr.data.categories import CategoryMap
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError


@dataclass(frozen=True)
class Target:
    """Objects of one image.

    labels: LongTensor [M], class indexes. boxes: FloatTensor [M, 4], cxcywh in 0..1 of the image. masks:
    BoolTensor [M, h, w] at the size of the (cropped) picture it comes with, before any resizing, or None.
    image_id: id in the COCO ground truth. size: (height, width) of the ORIGINAL image in pixels.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    image_id: int
    size: tuple[int, int]

    def __len__(self) -> int:
        """Number of objects M."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Target":
        """The same target with its tensors on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, labels=self.labels.to(device), boxes=self.boxes.to(device), masks=masks)


class DetectionDataset(ABC):
    """Random access to images and their objects, and the same objects as COCO-format ground truth.

    name, split: as registered. category_ids: the class-id convention. flip: probability of a horizontal flip
    that keeps the classes' meaning (0 where a mirrored object is no object of its class, as for digits).
    report: what is wrong with the data; None for data that are made here. untrainable: why there is
    no object to learn from or to find. maskless: why there are no masks. Both are "" where that is not so.
    split_note: which splits of the folder were made here, and how; "" where the source gives them all.
    """

    name: str
    split: str
    category_ids: CategoryMap
    flip: float = 0.5
    report: DataReport | None = None
    untrainable: str = ""
    maskless: str = ""
    split_note: str = ""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Image uint8 [H, W, 3] RGB and its target. Raises IndexError past the end, UserError for a bad
        file.
        """

    @property
    @abstractmethod
    def coco(self) -> dict[str, Any]:
        """COCO-format ground truth (images, annotations, categories): original category ids, boxes xywh in
        pixels.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest that changes whenever the content does: a key for caches and provenance."""

    @property
    @abstractmethod
    def has_masks(self) -> bool:
        """True when every target carries instance masks."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name per class index, length K."""
        return tuple(self.category_ids.name_of(index) for index in range(self.category_ids.num_classes))

    @property
    def num_classes(self) -> int:
        """K: what the network's class layers need."""
        return self.category_ids.num_classes

    def subset(self, which: int | Iterable[int]) -> "DetectionDataset":
        """The first `which` images (all of them if there are fewer), or the images at the given indexes."""
        indexes = range(min(which, len(self))) if isinstance(which, int) else [int(i) for i in which]
        return Subset(self, indexes)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} images,"
            f" {len(self.category_ids)} classes)"
        )


class Subset(DetectionDataset):
    """Some images of another dataset, in the given order; an index may not repeat (image ids must stay
    unique).
    """

    def __init__(self, base: DetectionDataset, indexes: Iterable[int]) -> None:
        self.base = base
        self.indexes = tuple(indexes)
        wrong = [i for i in self.indexes if not 0 <= i < len(base)]
        if wrong:
            raise UserError(f"subset index {wrong[0]} is outside 0..{len(base) - 1} of {base!r}")
        if len(set(self.indexes)) != len(self.indexes):
            raise UserError(f"subset of {base!r}: an index is given twice; give every index once")
        self.name, self.split = base.name, base.split
        self.category_ids, self.flip = base.category_ids, base.flip
        self.report, self.untrainable, self.maskless = base.report, base.untrainable, base.maskless
        self.split_note = base.split_note

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        return self.base[self.indexes[index]]

    @cached_property
    def coco(self) -> dict[str, Any]:
        """Ground truth of these images alone."""
        full = self.base.coco
        images = [full["images"][i] for i in self.indexes]
        kept = {image["id"] for image in images}
        annotations = [a for a in full["annotations"] if a["image_id"] in kept]
        return {**full, "images": images, "annotations": annotations}

    @property
    def fingerprint(self) -> str:
        """Digest of the base's fingerprint and the indexes."""
        return digest(self.base.fingerprint, self.indexes)

    @property
    def has_masks(self) -> bool:
        """As the base."""
        return self.base.has_masks


def digest(*parts: Any) -> str:
    """Short hex digest of values with a stable `repr` (strings, numbers, tuples of them)."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
