"""What the data ask of a network: the search space proposed from objects per image and object sizes.

The paper relates the number of queries to the objects per image and the resolution to their sizes (Section 4
and the appendix on discovered architectures); the rules below turn that into numbers, and every bound says
why it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.arch import SearchSpace
from rfdetr.data.dataset import DetectionDataset

# From random weights on a processor: token grids that learn within minutes. A larger grid costs with its
# square.
_SIDES = (10, 16)
_TOKENS_AN_OBJECT = 2
_PATCHES, _WINDOWS, _DEPTH = (12, 16), (1, 2), 3
_SPARE = 1.5  # queries per object on a full picture: one-to-one matching needs room for duplicates and misses
_FEWEST_QUERIES, _MOST_QUERIES = 20, 300


@dataclass(frozen=True)
class Shape:
    """What matters for the knobs, over one split.

    images, objects; per_image: median, 95th and 99th percentile and maximum of the objects on a picture;
    side: 10th, 50th and 90th percentile of an object's side, the square root of its share of the picture,
    0..1
    """

    images: int
    objects: int
    per_image: tuple[float, float, float, float]
    side: tuple[float, float, float]

    @classmethod
    def of(cls, dataset: DetectionDataset) -> "Shape":
        """Read from the ground truth; no picture is opened. Crowd regions are no objects."""
        truth = dataset.coco
        area = {image["id"]: image["width"] * image["height"] for image in truth["images"]}
        counts = dict.fromkeys(area, 0)
        sides = []
        for annotation in truth["annotations"]:
            if annotation.get("iscrowd"):
                continue
            counts[annotation["image_id"]] += 1
            _, _, width, height = annotation["bbox"]
            sides.append((max(width * height, 0.0) / area[annotation["image_id"]]) ** 0.5)
        number = np.array(list(counts.values()) or [0], dtype=float)
        shares = np.array(sides or [1.0])
        median, high, highest = (float(np.percentile(number, p)) for p in (50, 95, 99))
        small, middle, large = (float(np.percentile(shares, p)) for p in (10, 50, 90))
        most = float(number.max())
        return cls(len(counts), len(sides), (median, high, highest, most), (small, middle, large))


@dataclass(frozen=True)
class Proposal:
    """A training space, the most queries of the network, and a sentence for every bound."""

    space: SearchSpace
    reasons: tuple[str, ...]

    @property
    def queries(self) -> int:
        """Queries of the network."""
        return self.space.queries[-1]


def propose(shape: Shape, given: Mapping[str, Any]) -> Proposal:
    """The training space of a network from random weights.

    given: what the user has fixed: resolutions, patch_sizes, windows (tuples; empty means free) and queries
    (or None).
    """
    reasons = []
    queries = given.get("queries")
    if queries:
        reasons.append(f"{queries} queries: as asked for")
    else:
        wanted = max(_SPARE * shape.per_image[1], shape.per_image[3])
        queries = int(min(max(10 * np.ceil(wanted / 10), _FEWEST_QUERIES), _MOST_QUERIES))
        reasons.append(
            f"{queries} queries: {shape.per_image[1]:.0f} objects on a full picture (95th percentile), "
            f"{shape.per_image[3]:.0f} at most"
        )
    patches = tuple(given.get("patch_sizes") or _PATCHES)
    windows = tuple(given.get("windows") or _WINDOWS)
    resolutions = tuple(given.get("resolutions") or ())
    if resolutions:
        reasons.append(f"resolutions {_list(resolutions)} px: as asked for")
    else:
        small = shape.side[0]
        side = int(np.clip(np.ceil(_TOKENS_AN_OBJECT / max(small, 1e-6)), *_SIDES))
        # A picture must have at least as many tokens as queries, or the largest query counts cannot be used.
        side = max(side, int(np.ceil(queries**0.5)))
        sides = sorted({max(4, round(side * part)) for part in (0.625, 0.8, 1.0)})
        resolutions = tuple(max(patches) * s for s in sides)
        why = (
            f"one object in ten is smaller than {small:.1%} of the picture's side and wants"
            f" {_TOKENS_AN_OBJECT} patches"
        )
        limit = " (more would take too long on a processor)" if _TOKENS_AN_OBJECT / small > _SIDES[1] else ""
        reasons.append(
            f"resolutions {_list(resolutions)} px: up to {side} patches of {max(patches)} px a side, since"
            f" {why}{limit}"
        )
    unit = max(patches) * max(windows)
    resolutions = tuple(r for r in resolutions if r >= unit) or (unit,)
    reasons.append(
        f"patch sizes {_list(patches)} px and {_list(windows)} windows a side: what trades accuracy for time"
        " at equal pictures"
    )
    reasons.append(f"{_DEPTH} decoder layers: every smaller number is in the network, too")
    return Proposal(SearchSpace(resolutions, patches, windows, (_DEPTH,), (queries,)), tuple(reasons))


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
