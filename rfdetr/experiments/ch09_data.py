"""Data of the miniature benchmark: real sets with pictures of a bounded size in one file, and mixtures.

Source: Section 4.2 of the paper (RF100-VL: many small sets of many domains).
"""

import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.painter import SPLITS
from rfdetr.data.scenes import scenes
from rfdetr.experiments.base.painted import Painted
from rfdetr.experiments.base.parts import Place
from rfdetr.files import atomic_path

_QUALITY = 95  # of the JPEG files; colours are not subsampled


def pack(datasets: Sequence[DetectionDataset], path: Path) -> None:
    """Write splits of one set, with its pictures as they come, to a zip file that `Packed` reads."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for dataset in datasets:
            for index in range(len(dataset)):
                picture = io.BytesIO()
                Image.fromarray(dataset[index][0]).save(picture, "JPEG", quality=_QUALITY, subsampling=0)
                file.writestr(_entry(f"{dataset.split}/{index}.jpg"), picture.getvalue())
            about = {
                "name": dataset.name,
                "flip": dataset.flip,
                "fingerprint": dataset.fingerprint,
                "ids": dataset.category_ids.ids,
                "names": dataset.category_ids.names,
                "coco": _without_masks(dataset.coco),
            }
            file.writestr(_entry(f"{dataset.split}.json"), json.dumps(about), zipfile.ZIP_DEFLATED)


def _entry(name: str) -> zipfile.ZipInfo:
    """A file of a fixed date, so that the same content gives the same archive."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _without_masks(coco: dict[str, Any]) -> dict[str, Any]:
    kept = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [{k: a[k] for k in kept if k in a} for a in coco["annotations"]]
    return {**coco, "annotations": annotations}


class Packed(DetectionDataset):
    """One split of a file of `pack`, boxes only. Its decoded pictures stay in memory (77 KB each at 160
    px).
    """

    def __init__(self, path: Path, split: str) -> None:
        self.path, self.split = path, split
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read(f"{split}.json"))
        self.name, self.flip = about["name"], float(about["flip"])
        self.category_ids = CategoryMap(tuple(about["ids"]), tuple(about["names"]))
        self._coco, self._fingerprint = about["coco"], str(about["fingerprint"])
        self._objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in self._coco["annotations"]:
            if not annotation.get("iscrowd"):
                self._objects[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self._coco["images"])

    @cached_property
    def _pictures(self) -> list[np.ndarray]:
        with zipfile.ZipFile(self.path) as file:
            opened = (io.BytesIO(file.read(f"{self.split}/{index}.jpg")) for index in range(len(self)))
            return [np.asarray(Image.open(content).convert("RGB")) for content in opened]

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Picture of bounded size; the target's boxes are relative, its size is that of the source."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {self!r}")
        entry = self._coco["images"][index]
        height, width = entry["height"], entry["width"]
        objects = self._objects.get(entry["id"], [])
        boxes = np.array([o["bbox"] for o in objects], dtype=np.float64).reshape(-1, 4)
        low = np.clip(boxes[:, :2], 0, [width, height])
        high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, [width, height])
        relative = np.concatenate([(low + high) / 2, high - low], axis=1) / [width, height, width, height]
        target = Target(
            torch.tensor([self.category_ids.index_of(o["category_id"]) for o in objects], dtype=torch.long),
            torch.from_numpy(relative.astype(np.float32)),
            None,
            entry["id"],
            (height, width),
        )
        return self._pictures[index], target

    @property
    def coco(self) -> dict[str, Any]:
        """Ground truth in pixels of the source."""
        return self._coco

    @property
    def fingerprint(self) -> str:
        """Of the source, and of how the pictures were packed."""
        return digest(self._fingerprint, _QUALITY)

    @property
    def has_masks(self) -> bool:
        """Never: boxes alone are packed."""
        return False


class Mixture(DetectionDataset):
    """Several sets as one; classes of the same name are one class. repeats: how often each set occurs."""

    def __init__(self, parts: Sequence[DetectionDataset], repeats: Sequence[int] | None = None) -> None:
        self.parts = list(parts)
        self.name, self.split = "+".join(part.name for part in parts), parts[0].split
        names = dict.fromkeys(name for part in parts for name in part.class_names)
        self.category_ids = CategoryMap.from_names(names)
        # A flip must keep the classes of every set.
        self.flip = min(part.flip for part in parts)
        index = {name: i for i, name in enumerate(names)}
        self._labels = [torch.tensor([index[name] for name in part.class_names]) for part in parts]
        self._places = [
            (number, i)
            for number, (part, times) in enumerate(zip(parts, repeats or [1] * len(parts), strict=True))
            for _ in range(times)
            for i in range(len(part))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """As the set's own, with the mixture's classes and image ids."""
        number, place = self._places[index]
        picture, target = self.parts[number][place]
        labels = self._labels[number][target.labels]
        return picture, Target(labels, target.boxes, None, index + 1, target.size)

    @cached_property
    def coco(self) -> dict[str, Any]:
        """Ground truth of all, images numbered from 1 in the mixture's order."""
        by_image: list[dict[int, list[dict[str, Any]]]] = []
        for part in self.parts:
            found: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for annotation in part.coco["annotations"]:
                found[annotation["image_id"]].append(annotation)
            by_image.append(found)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, (number, place) in enumerate(self._places):
            part = self.parts[number]
            image = part.coco["images"][place]
            images.append({**image, "id": index + 1})
            for annotation in by_image[number].get(image["id"], []):
                label = int(self._labels[number][part.category_ids.index_of(annotation["category_id"])])
                changes = {"category_id": self.category_ids.id_of(label), "image_id": index + 1}
                kept = {k: v for k, v in annotation.items() if k != "segmentation"}
                annotations.append({**kept, **changes, "id": len(annotations) + 1})
        return {"images": images, "annotations": annotations, "categories": self.category_ids.to_coco()}

    @property
    def fingerprint(self) -> str:
        """Of all parts."""
        return digest(tuple(part.fingerprint for part in self.parts), tuple(self._places))

    @property
    def has_masks(self) -> bool:
        """Never: boxes alone are used."""
        return False


def embedded(place: Place, domain: str, split: str, size: int, canvas: int) -> Painted:
    """Scenes of one domain, painted once for all parts and processes."""
    return Painted(scenes(domain, split, size=size, canvas=canvas), place.folder.parent / "painted")


def data_part(place: Place, domain: str, side: int) -> dict[str, Any]:
    """Pack a registered set with pictures whose longer side has at most `side` pixels.

    Needs the set itself, from a mirror folder (RFDETR_MIRROR) or its source. Returns what the paper relates
    to the knobs: pictures and objects per split, classes, objects per image, sizes of objects.
    """
    from rfdetr.data.registry import load_dataset

    splits = [load_dataset(domain, split, cache_side=side, masks=False) for split in SPLITS]
    pack(splits, place.file(".zip"))
    return {"domain": domain, "side": side, **facts([Packed(place.file(".zip"), split) for split in SPLITS])}


def facts(splits: Sequence[DetectionDataset]) -> dict[str, Any]:
    """Pictures and objects per split, classes, and over all splits objects per image (mean, most) and the
    median of the square root of their relative area.
    """
    sizes, counts = [], []
    for dataset in splits:
        images = {image["id"]: image for image in dataset.coco["images"]}
        objects = [a for a in dataset.coco["annotations"] if not a.get("iscrowd")]
        counts += np.bincount(
            np.searchsorted(sorted(images), [a["image_id"] for a in objects]), minlength=len(images)
        ).tolist()
        for a in objects:
            image = images[a["image_id"]]
            sizes.append(np.sqrt(a["bbox"][2] * a["bbox"][3] / (image["width"] * image["height"])))
    return {
        "images": {dataset.split: len(dataset) for dataset in splits},
        "classes": splits[0].num_classes,
        "objects": len(sizes),
        "objects_per_image": float(np.mean(counts)),
        "most_objects": int(max(counts)),
        "median_size": float(np.median(sizes)) if sizes else None,
    }
