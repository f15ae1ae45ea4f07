"""Embedded detection and instance-segmentation scenes; nothing is downloaded.

Real handwritten digits (scikit-learn's `load_digits`, 1,797 images of 8 x 8) are enlarged and painted on
crops of two real photographs (`load_sample_images`), plain colours or gradients. A scene is a pure function
of (domain, split, seed, index, canvas). The splits share neither digit images nor photograph regions. Masks
are the visible ink, boxes enclose it. The domains differ in the ways in which the datasets of RF100-VL differ
(paper, Section 4): objects per image, object size, kind of classes, background, contrast, clutter.
"""

from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.painter import BASE_CANVAS, SPLITS, Domain, render
from rfdetr.errors import UserError

GENERATOR_VERSION = 1
"""Part of every fingerprint: raise it whenever a change alters a pixel or a box."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


_TEN = (_DIGITS, tuple(range(10)))
_ONE = (("digit",), (0,) * 10)
_PARITY = (("even", "odd"), (0, 1) * 5)
DOMAINS: dict[str, Domain] = {
    "digits": Domain("ten light digits on dimmed photographs", *_TEN, ink="light"),
    "colours": Domain("ten digits, lighter or darker than the photograph behind them", *_TEN),
    "parity": Domain("odd and even digits on plain paper", *_PARITY, (2, 10), (14, 30), "plain"),
    "crowd": Domain("up to 60 small digits, one class", *_ONE, (20, 60), (9, 13), "gradient", flip=0.5),
    "giants": Domain("one or two digits that fill the image", *_TEN, (1, 2), (44, 84)),
    "specks": Domain("few tiny digits, one class, on photographs", *_ONE, (0, 8), (9, 14), flip=0.5),
    "faint": Domain(
        "ten digits of low contrast", *_TEN, (1, 5), (20, 44), contrast=(0.12, 0.22), texture=0.25
    ),
    "clutter": Domain(
        "ten digits among strokes and photo patches", *_TEN, (1, 6), (18, 40), strokes=(3, 9), patches=(1, 4)
    ),
    "pick": Domain(
        "threes and eights; the other digits are no objects",
        ("three", "eight"),
        (-1, -1, -1, 0, -1, -1, -1, -1, 1, -1),
        (3, 9),
        (16, 32),
        "gradient",
    ),
}
"""Domains by name; "digits" is the base domain of the book's chapters."""


_STREAMS = ("digits", "colours", "parity", "crowd", "giants", "specks", "faint", "clutter", "pick")
# Position = the domain's random stream. Append new domains at the end: then no other domain's scenes change.


class Scenes(DetectionDataset):
    """Scenes of one domain and split, painted when asked for (see `scenes`)."""

    def __init__(self, domain: str, split: str, size: int, canvas: int, seed: int) -> None:
        self.domain, self.name, self.split = DOMAINS[domain], domain, split
        self.size, self.canvas, self.seed = size, canvas, seed
        self.category_ids = CategoryMap.from_names(self.domain.classes)
        self.flip = self.domain.flip
        self._stream = (_STREAMS.index(domain), SPLITS.index(split), seed)

    def __len__(self) -> int:
        return self.size

    def _objects(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Image, owner map, owner ids [M], labels [M], boxes [M, 4] xyxy in pixels of the objects of a
        scene.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"scene {index} of {self!r}")
        image, owner, labels = render(self.domain, self.split, (*self._stream, index), self.canvas)
        ids = np.flatnonzero(labels >= 0) + 1
        frames = ndimage.find_objects(owner, max_label=len(labels))
        boxes = np.array(
            [(f[1].start, f[0].start, f[1].stop, f[0].stop) for f in (frames[k - 1] for k in ids)],
            dtype=np.float32,
        ).reshape(-1, 4)
        return image, owner, ids, labels[ids - 1], boxes

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Image uint8 [canvas, canvas, 3] and its target with masks."""
        image, owner, ids, labels, boxes = self._objects(index)
        low, high = boxes[:, :2], boxes[:, 2:]
        target = Target(
            labels=torch.from_numpy(labels),
            boxes=torch.from_numpy(
                np.concatenate([(low + high) / 2, high - low], axis=1) / np.float32(self.canvas)
            ),
            masks=torch.from_numpy(owner[None] == ids[:, None, None].astype(np.int32)),
            image_id=index + 1,
            size=(self.canvas, self.canvas),
        )
        return image, target

    @cached_property
    def coco(self) -> dict[str, Any]:
        """Ground truth of all scenes (paints each of them once, about a millisecond per scene)."""
        from pycocotools import mask as rle

        annotations: list[dict[str, Any]] = []
        for index in range(self.size):
            _, owner, ids, labels, boxes = self._objects(index)
            stack = np.asfortranarray((owner[:, :, None] == ids.astype(np.int32)).astype(np.uint8))
            for label, box, code in zip(labels.tolist(), boxes.tolist(), rle.encode(stack), strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": self.category_ids.id_of(label),
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": int(rle.area(code)),
                        "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
                        "iscrowd": 0,
                    }
                )
        images = [
            {
                "id": i + 1,
                "file_name": f"{self.name}-{self.split}-{i}.png",
                "width": self.canvas,
                "height": self.canvas,
            }
            for i in range(self.size)
        ]
        return {"images": images, "annotations": annotations, "categories": self.category_ids.to_coco()}

    @property
    def fingerprint(self) -> str:
        """Digest of every parameter and of the generator's version."""
        values = tuple(asdict(self.domain).values())
        return digest(GENERATOR_VERSION, values, self._stream, self.size, self.canvas)

    @property
    def has_masks(self) -> bool:
        """Always: a mask is the visible ink."""
        return True


_DEFAULT_SIZE = {"train": 4000, "val": 200, "test": 200}


def scenes(
    domain: str = "digits",
    split: str = "train",
    size: int | None = None,
    canvas: int = BASE_CANVAS,
    seed: int = 0,
) -> Scenes:
    """Embedded dataset of `size` scenes (default 4000 for training, 200 otherwise) of `canvas` x `canvas`
    pixels.

    The same arguments give the same pixels on every machine with the same library versions. Raises UserError
    for an unknown domain or split, or a canvas under 32 px.
    """
    if domain not in DOMAINS:
        raise UserError(f"unknown scene domain {domain!r}: choose one of {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r} of the scenes: choose one of {', '.join(SPLITS)}")
    if canvas < 32:
        raise UserError(f"canvas of {canvas} px is too small for the scenes: use at least 32")
    size = _DEFAULT_SIZE[split] if size is None else size
    if size < 0 or seed < 0:
        raise UserError(f"size and seed of the scenes must not be negative, got size={size}, seed={seed}")
    return Scenes(domain, split, size, canvas, seed)
