"""COCO-format folders: COCO 2017 itself, Roboflow exports, and what `convert_voc` writes.

Real annotation files have flaws. They are repaired where there is one sensible reading (a box that reaches
over the edge is clipped), left out where there is none (a box without area), and counted in `dataset.report`
either way. Only what would change the meaning of the data stops: an unknown category, two pictures with one
id, a missing file.
"""

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfdetr.data.annotations import clean_box, decode_segmentation, read_annotations, usable_mask
from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.images import read_header, read_image
from rfdetr.data.report import DataReport
from rfdetr.errors import UserError
from rfdetr.files import sha256_file

HEADER_LIMIT = 5000
"""Datasets of at most this many images have every file's header read when they are opened (sizes are
verified).
"""
CACHE_BYTES = 2**29


class CocoDataset(DetectionDataset):
    """One split in COCO format.

    annotations: the JSON file. images: the folder that its file names are relative to. unreadable: "error"
    stops at the first missing or damaged picture; "skip" reads every picture once, leaves the bad ones out
    and reports them.
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
        self.category_ids = CategoryMap.from_coco(content["categories"])
        images_list = self._images(content["images"], unreadable)
        if unreadable == "skip":
            images_list = [image for image in images_list if self._readable(image)]
        self._sizes = [(image["height"], image["width"]) for image in images_list]
        kept = self._annotations(content["annotations"], images_list, {i["id"] for i in content["images"]})
        self._coco = {"images": images_list, "annotations": kept, "categories": content["categories"]}
        self._objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in kept:
            if annotation.get("iscrowd"):
                self.report.note("crowd regions (count in evaluation, not in training)")
            else:
                self._objects[annotation["image_id"]].append(annotation)
        self._masks = self._decide_masks(masks)
        empty = sum(1 for image in images_list if not self._objects.get(image["id"]))
        if empty:
            self.report.note("images without objects (legal)", empty)

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

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the annotation file, and of names and sizes in bytes of the pictures (small datasets)."""
        files: list[Any] = [(image["file_name"]) for image in self._coco["images"]]
        if len(files) <= HEADER_LIMIT:
            files = [(name, (self.folder / name).stat().st_size) for name in files]
        return digest(sha256_file(self.path), tuple(files), self._masks, self.cache_side)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Picture (reduced if `cache_side` says so) and target; `target.size` is the file's own size."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self!r}")
        entry = self._coco["images"][index]
        image = self._image(index)
        height, width = self._sizes[index]
        if self.cache_side is None and image.shape[:2] != (height, width):
            # A large dataset, whose headers are not read beforehand.
            height, width = image.shape[:2]
            self._fix_size(index, height, width)
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

    def check(self) -> DataReport:
        """Decode every picture once; damaged ones and wrong sizes are added to the report, which is
        returned.
        """
        for image in self._coco["images"]:
            self._readable(image)
        return self.report

    def _images(self, entries: list[dict[str, Any]], unreadable: str) -> list[dict[str, Any]]:
        present = {}
        for folder in {(self.folder / str(entry.get("file_name", ""))).parent for entry in entries}:
            if folder.is_dir():
                present.update({Path(item.path): item for item in os.scandir(folder)})
        kept: dict[int, dict[str, Any]] = {}
        missing = []
        for entry in entries:
            number, file_name = entry.get("id"), entry.get("file_name")
            if number is None or file_name is None:
                raise UserError(f"{self.path}: an image entry has no id or no file_name: {str(entry)[:80]}")
            if number in kept:
                if kept[number]["file_name"] != file_name:
                    raise UserError(
                        f"{self.path}: image id {number} stands for {kept[number]['file_name']} and for"
                        f" {file_name}: whose annotations are they? Give every image its own id"
                    )
                self.report.add("image listed twice (used once)", file_name)
            elif self.folder / file_name not in present:
                missing.append(file_name)
            else:
                kept[number] = dict(entry)
        if missing and (unreadable == "error" or not kept):
            raise UserError(
                f"{self.path}: {len(missing)} of {len(entries)} pictures are not in {self.folder}, the"
                " first is "
                f"{missing[0]}: restore them, give the right folder, or open the dataset with"
                ' unreadable="skip"'
            )
        for file_name in missing:
            self.report.add("missing picture (left out)", file_name)
        images = list(kept.values())
        self._complete_sizes(images)
        return images

    def _complete_sizes(self, images: list[dict[str, Any]]) -> None:
        verify = len(images) <= HEADER_LIMIT
        for image in images:
            known = bool(image.get("height")) and bool(image.get("width"))
            if known and not verify:
                continue
            try:
                header = read_header(self.folder / image["file_name"])
            except UserError:
                # Damaged: found again, and handled by the chosen policy, when the picture is read.
                image.setdefault("height", 0), image.setdefault("width", 0)
                continue
            told = (image["height"], image["width"]) if known else None
            height, width = header.size if header.turned(told) is False else header.shown
            if known and (image["height"], image["width"]) != (height, width):
                self._report_size(image, height, width)
            image["height"], image["width"] = height, width

    def _report_size(self, image: dict[str, Any], height: int, width: int) -> None:
        told = f"{image['width']}x{image['height']}"
        self.report.add(
            "wrong image size in the annotations (corrected)",
            f"{image['file_name']}: {told}, is {width}x{height}",
        )

    def _fix_size(self, index: int, height: int, width: int) -> None:
        image = self._coco["images"][index]
        self._report_size(image, height, width)
        image["height"], image["width"] = height, width
        self._sizes[index] = (height, width)

    def _readable(self, image: dict[str, Any]) -> bool:
        try:
            read_image(self.folder / image["file_name"])
        except UserError as error:
            self.report.add("unreadable picture", str(error))
            return False
        return True

    def _annotations(
        self, entries: list[dict[str, Any]], images: list[dict[str, Any]], listed: set[int]
    ) -> list[dict[str, Any]]:
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        kept, ids = [], set()
        for position, entry in enumerate(entries):
            label = f"annotation {entry.get('id', f'number {position}')}"
            if entry.get("category_id") not in self.category_ids:
                raise UserError(
                    f"{self.path}: {label} has the unknown category id {entry.get('category_id')} (known:"
                    f" {', '.join(map(str, self.category_ids.ids[:10]))}"
                    f"{', ...' if len(self.category_ids) > 10 else ''}):"
                    " add it to the file's categories or remove the annotation"
                )
            if entry.get("image_id") not in sizes:
                if entry.get("image_id") not in listed:
                    self.report.add("annotation of an unknown image (left out)", label)
                continue  # its picture was left out, and is reported already
            box = clean_box(entry, label, *sizes[entry["image_id"]], self.report)
            if box is None:
                continue
            if entry.get("id") in ids:
                self.report.add("annotation id used twice (kept)", label)
            ids.add(entry.get("id"))
            kept.append({**entry, "bbox": box})
        return kept

    def _decide_masks(self, wanted: bool | None) -> bool:
        if wanted is False:
            return False
        sizes = dict(zip((image["id"] for image in self._coco["images"]), self._sizes, strict=True))
        total, bad = 0, []
        for image_id, objects in self._objects.items():
            for annotation in objects:
                total += 1
                if not usable_mask(annotation.get("segmentation"), *sizes[image_id]):
                    bad.append(annotation.get("id"))
        if not bad or not total:
            return bool(total) or bool(wanted)
        if wanted:
            raise UserError(
                f"{self.path}: annotation {bad[0]} (one of {len(bad)} of {total}) has no usable mask: "
                "add a segmentation to it, or train boxes alone"
            )
        if len(bad) < total:
            self.report.add(
                "masks not used: some objects have none", f"annotation {bad[0]}, {len(bad)} of {total}"
            )
        return False

    def _image(self, index: int) -> np.ndarray:
        if index in self._cache:
            return self._cache[index].copy()
        file = self.folder / self._coco["images"][index]["file_name"]
        image = read_image(file, oriented=self._sizes[index], max_side=self.cache_side)
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
