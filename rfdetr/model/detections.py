"""The detections of one picture, in its own pixels, with exits to other tools."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.data.categories import UNUSED, CategoryMap
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class Detections:
    """N detections of one picture, best first. Iterating gives (box, score, label, name)."""

    boxes: np.ndarray
    """[N, 4] float32: left, top, right, bottom in px of the original picture, clipped to it."""
    scores: np.ndarray
    """[N] float32 in 0..1."""
    labels: np.ndarray
    """[N] int64 class indexes 0..K-1."""
    size: tuple[int, int]
    """(height, width) of the original picture in px."""
    masks: np.ndarray | None = None
    """[N, height, width] bool, or None without a mask head."""
    categories: CategoryMap | None = None
    """Names and ids of the network's K classes, or None where it does not say them."""
    source: str | None = None
    """Path of the picture, where it came from a file."""
    image: np.ndarray | None = field(default=None, repr=False)
    """uint8 [height, width, 3] RGB, kept for `plot`."""

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    def __iter__(self) -> Any:
        """(box [4], score, label, name) of each detection."""
        return iter(zip(self.boxes, self.scores.tolist(), self.labels.tolist(), self.names, strict=True))

    @property
    def names(self) -> list[str]:
        """Class name of every detection; "class 3" when the network has no names."""
        names = self.categories.name_of if self.categories else "class {}".format
        return [names(label) for label in self.labels.tolist()]

    def filter(self, keep: np.ndarray) -> "Detections":
        """The detections that a boolean mask or an index array [M] selects."""
        masks = None if self.masks is None else self.masks[keep]
        return Detections(
            self.boxes[keep],
            self.scores[keep],
            self.labels[keep],
            self.size,
            masks,
            self.categories,
            self.source,
            self.image,
        )

    def to_supervision(self) -> Any:
        """As `supervision.Detections`. Raises UserError when that package is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise UserError(
                "the package supervision is not installed: pip install 'rf-detr-nas-companion[supervision]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """As entries of a COCO results file: bbox is left, top, width, height in px; masks are RLE.

        Category ids are those of the data that the network was trained on; 1..K for one that does not say
        them. Detections of an index that stands for no category are left out.
        """
        ids = self.categories.ids_of(self.labels) if self.categories else self.labels + 1
        results: list[dict[str, Any]] = []
        for i in np.flatnonzero(ids != UNUSED):
            left, top, right, bottom = map(float, self.boxes[i])
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": int(ids[i]),
                "bbox": [left, top, right - left, bottom - top],
                "score": float(self.scores[i]),
            }
            if self.masks is not None:
                entry["segmentation"] = encode_masks(self.masks[i : i + 1])[0]
            results.append(entry)
        return results

    def plot(self, target: Any = None) -> "Image.Image":
        """The picture with boxes, labels and masks drawn on it.

        target: a path to save it to, or a matplotlib axes to show it on; None only returns the Pillow image.
        Raises UserError when the picture was not kept or the file cannot be written.
        """
        drawn = self._draw()
        if isinstance(target, str | os.PathLike):
            from rfdetr.data.drawing import save_picture

            save_picture(drawn, Path(target))
        elif target is not None:
            target.imshow(np.asarray(drawn))
            target.set_axis_off()
        return drawn

    def _draw(self) -> "Image.Image":
        from rfdetr.data.drawing import draw_objects

        if self.image is None:
            raise UserError(
                "the picture was not kept: predict with keep_images=True, or set detections.image first"
            )
        # Worst first, so that the best detection is on top.
        order = np.arange(len(self))[::-1]
        names = self.names
        texts = [f"{names[i]} {self.scores[i]:.2f}" for i in order]
        masks = None if self.masks is None else self.masks[order]
        return draw_objects(self.image, self.boxes[order], self.labels[order].tolist(), texts, masks)


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """COCO run-length codes of bool masks [N, h, w], as they are written to JSON."""
    from pycocotools import mask as coco_mask

    if not len(masks):
        return []
    codes = coco_mask.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": list(code["size"]), "counts": code["counts"].decode("ascii")} for code in codes]
