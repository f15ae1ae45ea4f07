"""What a network found on every image of a test set, small enough to keep: intervals can be computed anew.

Only the order of the detections by score counts for average precision, so scores are not kept. A detection
takes 8 bytes (image, category, and one bit for each IoU threshold of what it found and of whether it counts).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rfdetr.evaluation.bootstrap import Found, Matches

_BITS = 1 << np.arange(10, dtype=np.int64)
FIELDS = ("category", "image", "hit", "counted")


def packed(matches: Matches) -> dict[str, np.ndarray]:
    """Arrays of one network, detections of one category after the other, best first; `objects` [K, I]."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for number, found in enumerate(matches.categories):
        parts["category"].append(np.full(len(found.image), number))
        parts["image"].append(found.image)
        parts["hit"].append(_BITS[: len(found.hit)] @ found.hit.astype(np.int64))
        parts["counted"].append(_BITS[: len(found.counted)] @ found.counted.astype(np.int64))
    arrays = {name: np.concatenate(values).astype(np.uint16) for name, values in parts.items()}
    return {**arrays, "objects": np.stack([f.objects for f in matches.categories]).astype(np.uint16)}


def unpacked(arrays: Mapping[str, np.ndarray]) -> Matches:
    """The matches again, ready to be resampled; images are numbered from 0."""
    objects = arrays["objects"].astype(float)
    found = []
    for number, row in enumerate(objects):
        mine = arrays["category"] == number
        hit, counted = (
            (arrays[name][mine].astype(np.int64) & _BITS[:, None]) > 0 for name in ("hit", "counted")
        )
        found.append(Found(row, arrays["image"][mine].astype(np.int64), hit, counted))
    return Matches.of(list(range(objects.shape[1])), "", found)


def joined(each: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several networks' arrays as one: `ends` tells where each ends, `objects-N` how many objects there are
    for network N, once for networks that were tested on the same ones.
    """
    arrays = {name: np.concatenate([one[name] for one in each]) for name in FIELDS}
    arrays["ends"] = np.cumsum([len(one["image"]) for one in each])
    places: dict[bytes, int] = {}
    which = []
    for number, one in enumerate(each):
        objects = one["objects"]
        key = objects.tobytes() + str(objects.shape).encode()
        if key not in places:
            places[key] = number
            arrays[f"objects-{number}"] = objects
        which.append(places[key])
    return {**arrays, "objects": np.array(which)}


def one_of(arrays: Mapping[str, np.ndarray], number: int) -> Matches:
    """The matches of one network of `joined`."""
    first, last = (0, *arrays["ends"].tolist())[number : number + 2]
    part = {name: arrays[name][first:last] for name in FIELDS}
    return unpacked({**part, "objects": arrays[f"objects-{int(arrays['objects'][number])}"]})
