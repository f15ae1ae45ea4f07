"""COCO-format folders: COCO 2017 itself, Roboflow exports, and what other formats are converted to.

Real annotation files have flaws. They are repaired where there is one sensible reading (a box that reaches
over the edge is clipped), left out where there is none (a box without area), and counted in `dataset.report`
either way. Only what would change the meaning of the data stops: an unknown category, two pictures with one
id, a missing file, boxes of another format.
"""

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfdetr.data.annotations import brief, read_annotations, read_categories
from rfdetr.data.categories import shortened
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.images import read_image
from rfdetr.data.listing import HEADER_LIMIT, list_pictures, wrong_size
from rfdetr.data.masks import box_polygon, clean_mask, decode_segmentation
from rfdetr.data.objects import UNUSABLE_MASK, clean_annotations
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError
from rfdetr.files import sha256_file

CACHE_BYTES = 2**29


class CocoDataset(DetectionDataset):
    """One split in COCO format.

    annotations: the JSON file. images: the folder that its file names are relative to. within: the folder
    that all pictures must lie in (default: the one that holds both). unreadable: "error" stops at the first
    missing or damaged picture; "skip" reads every picture once, leaves the bad ones out and reports them.
    masks: load instance masks; None does so if every object has one. cache_bytes: decoded pictures are kept
    in memory until they take this much (512 MiB; 0 keeps none). cache_side: pictures are reduced so that the
    longer side has at most this many pixels: more of them fit, and resizing is cheaper, but the network's
    input changes slightly; choose at least the largest resolution you train at, and leave it out in
    evaluation. Raises UserError as the module's text says, always naming the file.
    """

    report: DataReport

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        name: str = "coco",
        split: str = "train",
        *,
        within: str | os.PathLike[str] | None = None,
        unreadable: str = "error",
        masks: bool | None = None,
        cache_bytes: int = CACHE_BYTES,
        cache_side: int | None = None,
        flip: float = 0.5,
    ) -> None:
        if unreadable not in ("error", "skip"):
            raise UserError(f"unreadable must be 'error' or 'skip', got {unreadable!r}")
        self.path, self.folder = Path(annotations), Path(images)
        self.name, self.split, self.flip = name, split, flip
        self.report = DataReport(f"{name}/{split}")
        self.cache_side, self.cache_bytes = cache_side, cache_bytes
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0
        content = read_annotations(self.path)
        self.category_ids, categories = read_categories(self.path, content["categories"], self.report)
        self.decoded = unreadable == "skip"
        listing = list_pictures(
            self.path,
            self.folder,
            content["images"],
            self.report,
            within=None if within is None else Path(within),
            skip=self.decoded,
        )
        self._as_stored = listing.as_stored
        kept = clean_annotations(self.path, content["annotations"], listing, categories, self.report)
        self._coco = {
            "images": listing.images,
            "annotations": kept,
            "categories": self.category_ids.to_coco(),
        }
        self._sizes = [(image["height"], image["width"]) for image in listing.images]
        self._objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in kept:
            if not annotation["iscrowd"]:
                self._objects[annotation["image_id"]].append(annotation)
        self._masks = self._decide_masks(masks)
        self._note_objects()
        self._note_classes()

    def __len__(self) -> int:
        return len(self._coco["images"])

    @property
    def coco(self) -> dict[str, Any]:
        """Ground truth after the repairs that the report lists; crowd regions included."""
        return self._coco

    @property
    def has_masks(self) -> bool:
        """True when instance masks are loaded."""
        return self._masks

    @property
    def files(self) -> list[Path]:
        """The picture of every index."""
        return [self.folder / image["file_name"] for image in self._coco["images"]]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the annotation file, and of names and sizes in bytes of the pictures (small datasets)."""
        files: list[Any] = [(image["file_name"]) for image in self._coco["images"]]
        if len(files) <= HEADER_LIMIT:
            files = [(name, (self.folder / name).stat().st_size) for name in files]
        return digest(sha256_file(self.path), tuple(files), self._masks, self.cache_side)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Picture (reduced if `cache_side` says so) and target; `target.size` is the size of the whole
        picture as it is read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self!r}")
        entry = self._coco["images"][index]
        image = self._image(index)
        if self.cache_side is None and image.shape[:2] != self._sizes[index]:
            # A large dataset, whose headers are not read beforehand.
            self._fix_size(index, image.shape[0], image.shape[1])
        height, width = self._sizes[index]
        objects = self._objects.get(entry["id"], [])
        boxes = np.array([o["bbox"] for o in objects], dtype=np.float64).reshape(-1, 4)
        low = np.clip(boxes[:, :2], 0, [width, height])
        high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, [width, height])
        relative = np.concatenate([(low + high) / 2, high - low], axis=1) / [width, height, width, height]
        target = Target(
            labels=torch.tensor(
                [self.category_ids.index_of(o["category_id"]) for o in objects], dtype=torch.long
            ),
            boxes=torch.from_numpy(relative.astype(np.float32)),
            masks=self._decode_masks(objects, height, width, image.shape[:2]) if self._masks else None,
            image_id=entry["id"],
            size=(height, width),
        )
        return image, target

    def _fix_size(self, index: int, height: int, width: int) -> None:
        image = self._coco["images"][index]
        problem = wrong_size(image["file_name"], self._sizes[index], (height, width))
        self.report.add(*problem, file=image["file_name"])
        image["height"], image["width"] = height, width
        self._sizes[index] = (height, width)
        for annotation in self._objects.get(image["id"], []):
            mask, flaw = clean_mask(annotation.get("segmentation"), height, width)
            if mask is None and flaw:
                text = f"annotation {annotation['id']}: {flaw}"
                self.report.add(UNUSABLE_MASK, text, file=str(self.path), annotation=annotation["id"])
            annotation["segmentation"] = mask or box_polygon(annotation["bbox"])

    def _decide_masks(self, wanted: bool | None) -> bool:
        if wanted is False:
            return False
        objects = [annotation for found in self._objects.values() for annotation in found]
        without = [annotation["id"] for annotation in objects if "segmentation" not in annotation]
        if without:
            self.maskless = self._why_maskless(without[0], len(without), len(objects))
            if wanted:
                raise UserError(f"{self.maskless}: add a segmentation to it, or train boxes alone")
            return False
        if not objects and not wanted:
            return False
        for annotation in self._coco["annotations"]:
            if "segmentation" not in annotation:
                annotation["segmentation"] = box_polygon(annotation["bbox"])
                self.report.note("crowd regions without a mask (their box counts)")
        return True

    def _why_maskless(self, first: int, count: int, total: int) -> str:
        if count == total:
            return f"{self.path}: no object has a usable mask"
        flaws = [p.text for p in self.report.problems.get(UNUSABLE_MASK, []) if p.annotation == first]
        kind, text = "masks not used: some objects have none", f"annotation {first}, {count} of {total}"
        self.report.add(kind, text, file=str(self.path), annotation=first)
        reason = f" ({flaws[0]})" if flaws else ""
        which = f"{count} of {total} objects without a usable mask, the first is annotation {first}"
        return f"{self.path}: {which}{reason}"

    def _note_objects(self) -> None:
        crowds = sum(annotation["iscrowd"] for annotation in self._coco["annotations"])
        empty = sum(1 for image in self._coco["images"] if not self._objects.get(image["id"]))
        if crowds:
            self.report.note("crowd regions (count in evaluation, not in training)", crowds)
        if empty:
            self.report.note("images without objects (legal)", empty)
        if empty < len(self):
            return
        self.untrainable = f"{self.path} has no {'objects' if len(self) else 'images'}"
        if crowds:
            self.untrainable += (
                f": all {crowds} annotations are crowd regions (iscrowd 1), which are neither learned nor"
                " counted; set iscrowd to 0 for single objects"
            )
        train = self.split == "train"
        kind = "no object to learn from" if train else "no object: AP is undefined"
        self.report.add(kind, self.untrainable, file=str(self.path), stops=train)

    def _note_classes(self) -> None:
        used = {annotation["category_id"] for found in self._objects.values() for annotation in found}
        unused = [c["name"] for c in self._coco["categories"] if c["id"] not in used]
        if used and unused:
            self.report.note(f"classes without an object ({brief(shortened(unused))})", len(unused))

    def _image(self, index: int) -> np.ndarray:
        if index in self._cache:
            return self._cache[index].copy()
        entry = self._coco["images"][index]
        oriented = False if entry["id"] in self._as_stored else self._sizes[index]
        image = read_image(self.folder / entry["file_name"], oriented=oriented, max_side=self.cache_side)
        if self._cached_bytes + image.nbytes <= self.cache_bytes:
            self._cache[index] = image.copy()
            self._cached_bytes += image.nbytes
        return image

    def _decode_masks(
        self, objects: list[dict[str, Any]], height: int, width: int, shown: tuple[int, ...]
    ) -> torch.Tensor:
        masks = np.zeros((len(objects), *shown), dtype=bool)
        for mask, annotation in zip(masks, objects, strict=True):
            full = decode_segmentation(annotation["segmentation"], height, width)
            if full.shape != shown:
                rows = ((np.arange(shown[0]) + 0.5) * full.shape[0] / shown[0]).astype(int)
                columns = ((np.arange(shown[1]) + 0.5) * full.shape[1] / shown[1]).astype(int)
                full = full[rows[:, None], columns]
            mask[:] = full
        return torch.from_numpy(masks)
