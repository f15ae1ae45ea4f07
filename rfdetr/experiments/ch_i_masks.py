"""Masks on the three real sets that have them: segmenters trained for the page with predictions, their
pictures in the repository.

Source: v2 Appendix M and Figure 8, whose second half shows masks. The detector that the miniature benchmark
starts from (`ch09_domains`) gets a mask head and is trained further with weight sharing on a few dozen
pictures of each set.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.registry import SHARES, load_dataset
from rfdetr.data.transforms import crop_to
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import PROFILES, Profile
from rfdetr.experiments.ch_i_predictions import Shown
from rfdetr.files import atomic_path, sha256_file
from rfdetr.model.detections import encode_masks
from rfdetr.model.weights import with_classes, with_mask_head

if TYPE_CHECKING:
    from rfdetr.experiments.base.kept import Kept
    from rfdetr.model.detector import RFDETR

SETS = {
    "kuih": "sweets on plates",
    "dsb2018_nuclei": "nuclei of cells under microscopes",
    "tomato_rugoso": "leaves, stems, flowers and fruit of tomatoes",
}
"""Real sets with masks, and what they show."""
SIDE = 128
"""px of the pictures in the repository."""
MODULES = (*fitting.MODULES, "rfdetr.data.registry")
_LEAST = 0.02  # score from which a detection is looked at
_QUALITY, _DIGITS = 78, 1  # of the JPEG files; of the polygons' corners, px


@dataclass(frozen=True)
class Masked:
    """How much is trained: steps, pictures per step, sub-networks that a step draws from, and those that are
    shown, by the words of the page.
    """

    steps: int
    batch_size: int
    training: SearchSpace
    shown: dict[str, Arch]


_CPU = Masked(
    240,
    8,
    SearchSpace((96, 128), (8, 16), (1,), (3,), (60,)),
    {"few tokens": Arch(96, 16, 1, 3, 36), "many tokens": Arch(128, 8, 1, 3, 60)},
)
_SMOKE = Masked(2, 2, SearchSpace((64,), (16,), (1,), (1,), (10,)), {"few tokens": Arch(64, 16, 1, 1, 10)})
MASKED = {"cpu": _CPU, "smoke": _SMOKE}
"""By profile; other profiles take that of cpu."""


class Centres(DetectionDataset):
    """The middle of every picture of a set with masks, `side` px each way, not resized; pictures without an
    object there are left out.

    For pictures whose objects would be a few pixels wide if the whole was made small.
    """

    def __init__(self, source: DetectionDataset, side: int = SIDE) -> None:
        self.name, self.split, self.flip = source.name, source.split, source.flip
        self.category_ids, self._fingerprint = source.category_ids, source.fingerprint
        cut = (self._middle(*source[index], side) for index in range(len(source)))
        self._items = [(pixels, target) for pixels, target in cut if len(target)]

    @staticmethod
    def _middle(pixels: np.ndarray, target: Target, side: int) -> tuple[np.ndarray, Target]:
        height, width = pixels.shape[:2]
        high, wide = min(side, height), min(side, width)
        pixels, target = crop_to(pixels, target, (height - high) // 2, (width - wide) // 2, high, wide)
        return pixels, replace(target, size=(high, wide))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Picture and objects of the middle."""
        return self._items[index]

    @property
    def coco(self) -> dict[str, Any]:
        """Ground truth in pixels of the middles, masks as run-length codes."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for pixels, target in self._items:
            height, width = pixels.shape[:2]
            images.append({"id": target.image_id, "height": height, "width": width})
            assert target.masks is not None
            codes = encode_masks(target.masks.numpy())
            for label, box, code in zip(target.labels, target.boxes.numpy(), codes, strict=True):
                size = box[2:] * [width, height]
                corner = box[:2] * [width, height] - size / 2
                head = {"id": len(annotations) + 1, "image_id": target.image_id, "iscrowd": 0}
                shape = {"bbox": [*corner.tolist(), *size.tolist()], "area": float(size.prod())}
                name = self.category_ids.id_of(int(label))
                annotations.append({**head, "category_id": name, **shape, "segmentation": code})
        return {"images": images, "annotations": annotations, "categories": self.category_ids.to_coco()}

    @property
    def fingerprint(self) -> str:
        """Of the source and the cut."""
        return digest(self._fingerprint, [target.size for _, target in self._items])

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True


def pack(splits: Sequence[DetectionDataset], path: Path) -> None:
    """Write splits with their pictures as they come, and their masks in pixels of these, as a COCO folder in
    a zip file. Polygons are made smaller with their pictures, run-length codes must be of their size.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for dataset in splits:
            coco: dict[str, Any] = {"images": [], "annotations": [], "categories": dataset.coco["categories"]}
            by_image: dict[int, list[dict[str, Any]]] = {}
            for annotation in dataset.coco["annotations"]:
                by_image.setdefault(annotation["image_id"], []).append(annotation)
            for index in range(len(dataset)):
                pixels, target = dataset[index]
                name, (height, width) = f"{index:03d}.jpg", pixels.shape[:2]
                coco["images"].append(
                    {"id": target.image_id, "file_name": name, "height": height, "width": width}
                )
                scale = (width / target.size[1], height / target.size[0])
                coco["annotations"] += [_small(a, scale) for a in by_image.get(target.image_id, [])]
                _write(file, f"{dataset.split}/{name}", _jpeg(pixels), zipfile.ZIP_STORED)
            content = json.dumps(coco, separators=(",", ":")).encode()
            _write(file, f"{dataset.split}/_annotations.coco.json", content, zipfile.ZIP_DEFLATED)


def _small(annotation: dict[str, Any], scale: tuple[float, float]) -> dict[str, Any]:
    """An annotation in a picture of another size."""
    if isinstance(annotation["segmentation"], dict):
        assert scale == (1, 1)
        box = np.round(annotation["bbox"], _DIGITS).tolist()
        return {**annotation, "bbox": box}
    polygons = [
        np.round(np.reshape(polygon, (-1, 2)) * scale, _DIGITS).ravel().tolist()
        for polygon in annotation["segmentation"]
    ]
    box = np.round(np.reshape(annotation["bbox"], (2, 2)) * scale, _DIGITS).ravel().tolist()
    area = round(annotation["area"] * scale[0] * scale[1], 2)
    return {**annotation, "segmentation": polygons, "bbox": box, "area": area}


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _write(file: zipfile.ZipFile, name: str, content: bytes, how: int) -> None:
    # A fixed date, so that the same content gives the same archive.
    file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, how)


def file_of(name: str) -> str:
    """The file with the pictures of a set, in `results/test-pictures`."""
    return f"{name}-masks.zip"


def pictures(store: Store, name: str, root: Path | None = None) -> dict[str, DetectionDataset] | None:
    """Training and test pictures of a set by split, from the file in the repository; None where it is not
    there.
    """
    path = (root or kept.results_root()) / "test-pictures" / file_of(name)
    if not path.is_file():
        return None

    def build(work: Path) -> None:
        with zipfile.ZipFile(path) as file:
            file.extractall(work / name)

    folder = store.artifact("mask-pictures", {"file": sha256_file(path), "folder": name}, build) / name
    none = dict.fromkeys(SHARES, 0.0)
    return {split: load_dataset(folder, split, shares=none, masks=True) for split in ("train", "test")}


def trained(profile: Profile, seed: int, store: Store, base: "Kept", train: DetectionDataset) -> "RFDETR":
    """The benchmark's base with a mask head, trained further on `train`; made once per profile and seed."""
    sizes = masked(profile)

    def build(work: Path) -> None:
        import torch

        torch.manual_seed(seed)
        start, _ = with_classes(base.network(), categories=train.category_ids)
        start, _ = with_mask_head(start)
        place = Place(work, "masks", fitting.fastest_device())
        model, _ = fitting.fit(place, start, train, sizes.training, _recipe(sizes, seed))
        kept.write_network(model, work / "network.safetensors")

    key = {
        "base": sha256_file(base.folder / "network.safetensors"),
        "data": train.fingerprint,
        "recipe": {**_recipe(sizes, seed), "betas": list(_recipe(sizes, seed)["betas"])},
        "archs": [arch.id for arch in sizes.training.archs()],
    }
    return kept.read_network(store.artifact("masks", key, build, MODULES) / "network.safetensors")


def masked(profile: Profile) -> Masked:
    """The sizes of a profile."""
    return MASKED.get(profile.name, _CPU)


def _recipe(sizes: Masked, seed: int) -> dict[str, Any]:
    changes = {
        "steps": sizes.steps,
        "warmup_steps": max(1, sizes.steps // 10),
        "batch_size": sizes.batch_size,
    }
    return {**PROFILES["cpu"].recipe.train, **changes, "seed": seed, "augment": True}


def predicted(model: "RFDETR", test: DetectionDataset, profile: Profile) -> Shown:
    """What the sub-networks find in every test picture.

    After so short a training scores are low, and not alike between networks: of each as many detections are
    drawn as there are objects in all pictures, the best first.
    """
    pixels = [test[image][0] for image in range(len(test))]
    objects = sum(len(test[image][1]) for image in range(len(test)))
    found, thresholds = {}, {}
    for words, arch in masked(profile).shown.items():
        found[words] = model.predict(pixels, arch, threshold=_LEAST)
        scores = np.sort(np.concatenate([each.scores for each in found[words]]))[::-1]
        thresholds[words] = float(scores[min(objects, len(scores)) - 1]) if len(scores) else _LEAST
    return Shown(test.name, test, found, thresholds)
