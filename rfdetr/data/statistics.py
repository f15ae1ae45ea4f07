"""Numbers of a dataset that matter for the choice of a network: objects per picture, object and picture
sizes, classes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rfdetr.data.coco import CocoDataset
from rfdetr.data.dataset import DetectionDataset, Subset
from rfdetr.data.images import read_header
from rfdetr.errors import UserError

SMALL_AREA = 32 * 32
"""Square pixels below which COCO calls an object small."""
TINY_SIDE = 4
"""Pixels below which a box side is hardly more than noise."""


@dataclass(frozen=True)
class Spread:
    """Smallest and largest value of many, their mean and quantiles (linear between values); NaN of none."""

    minimum: float
    mean: float
    median: float
    p95: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of some numbers."""
        array = np.asarray(list(values), dtype=np.float64)
        if not array.size:
            return cls(*[float("nan")] * 6)
        median, p95, p99 = np.quantile(array, [0.5, 0.95, 0.99])
        return cls(*map(float, (array.min(), array.mean(), median, p95, p99, array.max())))


@dataclass(frozen=True)
class Statistics:
    """Statistics of one or more splits.

    images, objects: how many there are; crowd regions are no objects. masks: objects with a mask. empty:
    images without objects. classes: name -> objects, in the order of the class list. ignored: name ->
    regions that are marked to be ignored; crowds: other crowd regions. per_image: objects per image. share:
    box area / image area. relative_side: square root of `share`. side: square root of the box area, px.
    small: objects below 32 x 32 px of area. tiny: objects less than 4 px wide or high. width, height: of the
    images, px. sizes: (width, height) -> images, the most common first. modes: Pillow's mode of the files ->
    images (empty for data that are made here).
    """

    images: int
    objects: int
    masks: int
    empty: int
    classes: dict[str, int]
    ignored: dict[str, int]
    crowds: int
    per_image: Spread
    share: Spread
    relative_side: Spread
    side: Spread
    small: int
    tiny: int
    width: Spread
    height: Spread
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: sizes as "640x480"."""
        return {**asdict(self), "sizes": {f"{w}x{h}": count for (w, h), count in self.sizes.items()}}

    @classmethod
    def of(cls, *datasets: DetectionDataset) -> "Statistics":
        """Statistics of splits of one dataset taken together. Reads headers of the picture files alone.

        Classes are taken together by name; a name of several classes of a split is told apart by the index.
        Raises UserError when no split is given.
        """
        if not datasets:
            raise UserError("statistics need at least one split")
        classes: Counter[str] = Counter()
        ignored: Counter[tuple[str, str, Any, Any]] = Counter()
        crowds = masks = 0
        boxes: list[tuple[float, float, float]] = []
        counts: list[int] = []
        sizes: Counter[tuple[int, int]] = Counter()
        modes: Counter[str] = Counter()
        declared: list[str] = []
        for dataset in datasets:
            names = _apart(dataset.class_names)
            declared += names
            content = dataset.coco
            area = {image["id"]: image["width"] * image["height"] for image in content["images"]}
            here: Counter[Any] = Counter()
            for entry in content["annotations"]:
                if "ignored" in entry:
                    # Each such region is there once for every class.
                    ignored[entry["ignored"], dataset.split, entry["image_id"], tuple(entry["bbox"])] = 1
                elif entry.get("iscrowd"):
                    crowds += 1
                else:
                    here[entry["image_id"]] += 1
                    classes[names[dataset.category_ids.index_of(entry["category_id"])]] += 1
                    boxes.append((entry["bbox"][2], entry["bbox"][3], area[entry["image_id"]]))
                    masks += bool(entry.get("segmentation")) and dataset.has_masks
            counts += [here[image["id"]] for image in content["images"]]
            sizes.update((image["width"], image["height"]) for image in content["images"])
            modes.update(_modes(dataset))
        box = np.asarray(boxes, dtype=np.float64).reshape(-1, 3)
        areas = box[:, 0] * box[:, 1]
        shares = areas / np.maximum(box[:, 2], 1)
        every_size = [size for size, count in sizes.items() for _ in range(count)]
        return cls(
            images=len(counts),
            objects=len(box),
            masks=int(masks),
            empty=counts.count(0),
            classes={name: classes[name] for name in dict.fromkeys(declared)},
            ignored=dict(Counter(key[0] for key in ignored)),
            crowds=crowds,
            per_image=Spread.of(counts),
            share=Spread.of(shares),
            relative_side=Spread.of(np.sqrt(shares)),
            side=Spread.of(np.sqrt(areas)),
            small=int((areas < SMALL_AREA).sum()),
            tiny=int((box[:, :2].min(axis=1) < TINY_SIDE).sum()) if len(box) else 0,
            width=Spread.of(width for width, _ in every_size),
            height=Spread.of(height for _, height in every_size),
            sizes=dict(sizes.most_common()),
            modes=dict(modes.most_common()),
        )

    def __str__(self) -> str:
        lines = [
            f"{self.images} images, {self.objects} objects, {len(self.classes)} classes, masks:"
            f" {'one for every object' if self.masks else 'none'}",
            f"objects per class: {', '.join(f'{name} {count}' for name, count in self.classes.items())}",
        ]
        if self.objects:
            spread, share = self.per_image, self.share
            lines += [
                f"objects per image: median {spread.median:g}, 95 % up to {spread.p95:g}, 99 % up to"
                f" {spread.p99:g}, at most {spread.maximum:g}",
                f"share of the image: median {share.median:.2%}, from {share.minimum:.2%} to"
                f" {share.maximum:.2%}; {self.small / self.objects:.0%} of the objects below 32x32 px",
            ]
        if self.sizes:
            (width, height), count = next(iter(self.sizes.items()))
            other = len(self.sizes) - 1
            lines.append(f"image sizes: {width}x{height} ({count})" + (f" and {other} others" * bool(other)))
        return "\n".join(lines)

    def table(self) -> str:
        """All of it, for reading."""
        lines = [
            f"{self.images} images, {self.objects} objects"
            f"{f', {self.masks} with a mask' if self.masks else ', no masks'}"
            f"{f', {self.empty} images without objects' if self.empty else ''}"
        ]
        if self.crowds or self.ignored:
            regions = [f"{name} {count}" for name, count in self.ignored.items()]
            regions += [f"crowds {self.crowds}"] if self.crowds else []
            lines.append(f"regions that count as no objects: {', '.join(regions)}")
        rows = [
            ("objects per image", self.per_image, 1.0, ""),
            ("object side (root of area)", self.side, 1.0, " px"),
            ("object side, % of image side", self.relative_side, 100.0, " %"),
            ("image width", self.width, 1.0, " px"),
            ("image height", self.height, 1.0, " px"),
        ]
        lines.append(f"{'':30s}{'min':>9s}{'mean':>9s}{'median':>9s}{'95 %':>9s}{'99 %':>9s}{'max':>9s}")
        for title, spread, factor, unit in rows:
            values = "".join(f"{value * factor:9.4g}" for value in asdict(spread).values())
            lines.append(f"{title:30s}{values}{unit}")
        lines.append(
            f"objects below 32 x 32 px: {self.small}; less than {TINY_SIDE} px wide or high: {self.tiny}"
        )
        shown = [f"{w}x{h}: {count}" for (w, h), count in list(self.sizes.items())[:5]]
        more = f", and {len(self.sizes) - 5} other sizes" if len(self.sizes) > 5 else ""
        lines.append(f"image sizes: {', '.join(shown)}{more}")
        if self.modes:
            lines.append(f"modes of the files: {', '.join(f'{m} {n}' for m, n in self.modes.items())}")
        lines.append("objects per class:")
        ordered = sorted(self.classes.items(), key=lambda pair: -pair[1])
        lines += [f"  {name:30s}{count:7d}  {count / max(self.objects, 1):6.1%}" for name, count in ordered]
        return "\n".join(lines)


def _apart(names: tuple[str, ...]) -> list[str]:
    """Class names; those of several classes with the class index."""
    several = {name for name, number in Counter(names).items() if number > 1}
    return [f"{name} (class {index})" if name in several else name for index, name in enumerate(names)]


def _modes(dataset: DetectionDataset) -> list[str]:
    base = dataset.base if isinstance(dataset, Subset) else dataset
    if not isinstance(base, CocoDataset):
        return []
    found = []
    for image in dataset.coco["images"]:
        try:
            found.append(read_header(base.folder / image["file_name"]).mode)
        except UserError:
            found.append("unreadable")
    return found
