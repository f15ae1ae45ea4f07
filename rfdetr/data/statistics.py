"""What a dataset holds, in numbers: classes, objects per picture, sizes."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.data.dataset import DetectionDataset

SMALL = 32  # px: COCO's "small" objects have less than the square of this


@dataclass(frozen=True)
class Statistics:
    """Numbers of one split; crowd regions do not count as objects.

    per_class: objects per class name, in the classes' order. per_image: median, 95th and 99th percentile and
    maximum of the objects per picture. share: 5th percentile, median and 95th of the objects' boxes as a part
    of their pictures' areas. small: part of the objects below 32 x 32 px. sizes: (width, height) -> pictures.
    """

    images: int
    objects: int
    crowds: int
    per_class: dict[str, int]
    per_image: tuple[float, float, float, int]
    share: tuple[float, float, float]
    small: float
    sizes: dict[tuple[int, int], int]
    masks: bool

    @classmethod
    def of(cls, dataset: DetectionDataset) -> "Statistics":
        """Numbers of a dataset's ground truth; nan where there is no object."""
        truth = dataset.coco
        pictures = {image["id"]: image for image in truth["images"]}
        objects = [annotation for annotation in truth["annotations"] if not annotation.get("iscrowd")]
        counts = Counter(annotation["image_id"] for annotation in objects)
        per_image = np.array([counts[number] for number in pictures] or [0])
        extents = np.array([annotation["bbox"][2:] for annotation in objects], dtype=float).reshape(-1, 2)
        areas = extents.prod(axis=1)
        whole = np.array([_area(pictures[annotation["image_id"]]) for annotation in objects], dtype=float)
        classes = Counter(dataset.category_ids.index_of(annotation["category_id"]) for annotation in objects)
        median, high, higher = np.percentile(per_image, [50, 95, 99]).tolist()
        low, middle, large = np.percentile(areas / whole, [5, 50, 95]).tolist() if objects else (np.nan,) * 3
        return cls(
            images=len(pictures),
            objects=len(objects),
            crowds=len(truth["annotations"]) - len(objects),
            per_class=_named(dataset.class_names, classes),
            per_image=(median, high, higher, int(per_image.max())),
            share=(low, middle, large),
            small=float((areas < SMALL**2).mean()) if objects else np.nan,
            sizes=dict(Counter((p["width"], p["height"]) for p in pictures.values()).most_common()),
            masks=dataset.has_masks,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        sizes = {f"{width}x{height}": count for (width, height), count in self.sizes.items()}
        return {**self.__dict__, "sizes": sizes}

    def __str__(self) -> str:
        lines = [
            f"{self.images} images, {self.objects} objects, {len(self.per_class)} classes, masks:"
            f" {'one for every object' if self.masks else 'none'}",
            f"objects per class: {', '.join(f'{name} {count}' for name, count in self.per_class.items())}",
        ]
        if self.objects:
            median, high, higher, most = self.per_image
            low, middle, large = (f"{100 * share:.2g} %" for share in self.share)
            lines += [
                f"objects per image: median {median:g}, 95 % up to {high:g}, 99 % up to {higher:g}, at most"
                f" {most}",
                f"share of the image: median {middle}, 90 % between {low} and {large};"
                f" {100 * self.small:.0f} % below {SMALL}x{SMALL} px",
            ]
        if self.sizes:
            (width, height), count = next(iter(self.sizes.items()))
            other = len(self.sizes) - 1
            lines.append(f"image sizes: {width}x{height} ({count})" + (f" and {other} others" * bool(other)))
        return "\n".join(lines)


def _area(picture: dict[str, Any]) -> int:
    return picture["width"] * picture["height"]


def _named(names: tuple[str, ...], counts: Counter[int]) -> dict[str, int]:
    """Counts by name; a name of several classes is told apart by its index."""
    several = {name for name, number in Counter(names).items() if number > 1}
    return {
        f"{name} (class {index})" if name in several else name: counts[index]
        for index, name in enumerate(names)
    }
