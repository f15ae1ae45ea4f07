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
from rfdetr.data.coco import CocoDataset
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.inspection import leaks
from rfdetr.data.statistics import Statistics
from rfdetr.errors import UserError
from rfdetr.files import strict

# From random weights on a processor: token grids that learn within minutes. A larger grid costs with its
# square.
_SIDES = (10, 16)
_TOKENS_AN_OBJECT = 2
_PATCHES, _WINDOWS, _DEPTH = (12, 16), (1, 2), 3
_SPARE = 1.5  # queries per object on a full picture: one-to-one matching needs room for duplicates and misses
_FEWEST_QUERIES, _MOST_QUERIES = 20, 300


MOST_COMPARED = 20_000
"""Pictures up to which those of different splits are compared with each other; the time grows with the
square.
"""
_SHOWN = 3  # leaks that are printed


def small_side(dataset: DetectionDataset) -> float:
    """Side that one object in ten falls below: the root of its share of the picture, 0..1; 1 without
    objects. Crowd regions are no objects.
    """
    truth = dataset.coco
    area = {image["id"]: image["width"] * image["height"] for image in truth["images"]}
    shares = [
        max(a["bbox"][2] * a["bbox"][3], 0.0) / max(area[a["image_id"]], 1)
        for a in truth["annotations"]
        if not a.get("iscrowd")
    ]
    return float(np.sqrt(np.percentile(shares, 10))) if shares else 1.0


def numbers(splits: Mapping[str, DetectionDataset]) -> dict[str, Any]:
    """Statistics of every split as JSON values (`Statistics.to_dict`)."""
    return {name: strict(Statistics.of(dataset).to_dict()) for name, dataset in splits.items()}


def shared_pictures(splits: Mapping[str, DetectionDataset]) -> dict[str, Any]:
    """Pictures that two splits share, the same or nearly: {compared, same, near, examples}.

    compared: how many pictures were looked at; 0 for data that are made here, and for more than
    `MOST_COMPARED`.
    """
    files = {name: dataset for name, dataset in splits.items() if isinstance(dataset, CocoDataset)}
    count = sum(len(dataset) for dataset in files.values())
    if not files or count > MOST_COMPARED:
        return {"compared": 0, "pictures": count, "same": 0, "near": 0, "examples": []}
    found = leaks(files)
    near = sum("nearly" in problem.kind for problem in found)
    return {
        "compared": count,
        "pictures": count,
        "same": len(found) - near,
        "near": near,
        "examples": [problem.text for problem in found[:_SHOWN]],
    }


def shared_words(shared: Mapping[str, Any]) -> str:
    """What `shared_pictures` found, in a line; "" where there was nothing to compare."""
    if not shared["compared"]:
        many = shared["pictures"]
        return f"{many:,} pictures: splits not compared; `data check` does it" if many else ""
    if not shared["same"] + shared["near"]:
        return "no picture of one split is in another, and none resembles one there"
    parts = [f"{n} {word}" for n, word in ((shared["same"], "the same"), (shared["near"], "nearly")) if n]
    return (
        f"pictures that two splits share: {', '.join(parts)} ({'; '.join(shared['examples'])}; `data check`"
        " lists all): AP on val and test flatters by these"
    )


@dataclass(frozen=True)
class Proposal:
    """A training space, the most queries of the network, and a sentence for every bound."""

    space: SearchSpace
    reasons: tuple[str, ...]

    @property
    def queries(self) -> int:
        """Queries of the network."""
        return self.space.queries[-1]


def propose(high: float, most: float, small: float, given: Mapping[str, Any]) -> Proposal:
    """The training space of a network from random weights.

    high, most   95th percentile and maximum of the objects on a picture
    small        `small_side`
    given        what the user has fixed: resolutions, patch_sizes, windows (tuples; empty means free) and
                 queries (or None)

    Raises UserError for a resolution that is smaller than one patch in every window.
    """
    reasons = []
    queries = given.get("queries")
    if queries:
        reasons.append(f"{queries} queries: as asked for")
    else:
        wanted = max(_SPARE * high, most)
        queries = int(min(max(10 * np.ceil(wanted / 10), _FEWEST_QUERIES), _MOST_QUERIES))
        reasons.append(
            f"{queries} queries: {high:.0f} objects on a full picture (95th percentile), {most:.0f} at most"
        )
    patches = tuple(given.get("patch_sizes") or _PATCHES)
    windows = tuple(given.get("windows") or _WINDOWS)
    unit = max(patches) * max(windows)
    resolutions = tuple(given.get("resolutions") or ())
    if resolutions:
        if min(resolutions) < unit:
            raise UserError(
                f"--resolutions {min(resolutions)} is too small for a patch of {max(patches)} px in each of"
                f" {max(windows)} windows a side: give at least {unit}, or smaller --patch-sizes or --windows"
            )
        reasons.append(f"resolutions {_list(resolutions)} px: as asked for")
    else:
        side = int(np.clip(np.ceil(_TOKENS_AN_OBJECT / max(small, 1e-6)), *_SIDES))
        # A picture must have at least as many tokens as queries, or the largest query counts cannot be used.
        side = max(side, int(np.ceil(queries**0.5)))
        sides = sorted({max(4, round(side * part)) for part in (0.625, 0.8, 1.0)})
        resolutions = tuple(max(patches) * s for s in sides if max(patches) * s >= unit) or (unit,)
        why = (
            f"one object in ten is smaller than {small:.1%} of the picture's side and wants"
            f" {_TOKENS_AN_OBJECT} patches"
        )
        short = _TOKENS_AN_OBJECT / max(small, 1e-6) > _SIDES[1]
        limit = " (more would take too long on a processor)" if short else ""
        reasons.append(
            f"resolutions {_list(resolutions)} px: up to {side} patches of {max(patches)} px a side, since"
            f" {why}{limit}"
        )
    asked = bool(given.get("patch_sizes")) and bool(given.get("windows"))
    why = "as asked for" if asked else "what trades accuracy for time at equal pictures"
    reasons.append(f"patch sizes {_list(patches)} px and {_list(windows)} windows a side: {why}")
    reasons.append(f"{_DEPTH} decoder layers: every smaller number is in the network, too")
    return Proposal(SearchSpace(resolutions, patches, windows, (_DEPTH,), (queries,)), tuple(reasons))


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))
