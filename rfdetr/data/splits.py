"""Splits of a folder that gives none, or not all: stated, the same every time, without leaks.

The pictures are taken in the order of a hash of their content, which is the same on any machine, and dealt
out so that every split has its share of every class. Pictures that are nearly the same stay together.
Missing splits are taken from the one there is most of: val and test from train; train from val where there
are val and test alone. A folder with nothing but a val or a test split is left as it is: it is there to be
evaluated on.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfdetr.data.duplicates import groups, near_pairs, signatures
from rfdetr.data.formats.collection import Picture
from rfdetr.data.formats.inventory import SPLITS

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
"""Shares of a folder without splits; a folder with some splits is divided in the same proportions."""


def hash_split(sha256: str, shares: Mapping[str, float] = SHARES) -> str:
    """Split of a picture that is not there, from a hash (hex) alone."""
    position = int(sha256[:12], 16) / 16**12 * sum(shares.values())
    for split, share in shares.items():
        if position < share:
            return split
        position -= share
    return list(shares)[-1]


def to_make(
    given: Sequence[str], shares: Mapping[str, float] = SHARES
) -> tuple[str | None, dict[str, float]]:
    """(split that is divided, shares of what it becomes) for a folder with the splits `given`.

    (None, all shares) for a folder without splits; the shares are empty where nothing is to be made. A split
    with a share of 0 is not made.
    """
    if not given:
        return None, {split: share for split, share in shares.items() if share > 0}
    donor = "train" if "train" in given else "val"
    missing = [split for split in SPLITS if split not in given and shares.get(split, 0) > 0]
    if not missing or (len(given) == 1 and "train" not in given):
        return donor, {}
    return donor, {split: shares[split] for split in SPLITS if split in (donor, *missing)}


def assign_splits(
    pictures: Sequence[Picture], root: Path, shares: Mapping[str, float] = SHARES
) -> tuple[dict[str, int], str]:
    """Gives every picture of a folder its split; (pictures per split of the source, what was done).

    Pictures without a split are left out (and get a finding) where others have one. The text is empty when
    nothing was made.
    """
    given = Counter(p.split for p in pictures if p.split is not None and not p.missing)
    donor, parts = to_make(list(given), shares)
    for picture in pictures:
        if given and picture.split is None:
            picture.findings.append(("picture in no split (left out)", picture.file))
    if not parts:
        return dict(given), ""
    pool = [picture for picture in pictures if picture.split == donor]
    alike = divide(pool, root, parts)
    made = Counter(picture.split for picture in pool if not picture.missing)
    counts = ", ".join(f"{made[split]} {split}" for split in parts)
    kept = ", ".join(f"{split} ({count})" for split, count in sorted(given.items()) if split != donor)
    whole = f"the {given[donor]} pictures of {donor}" if donor else f"its {sum(made.values())} pictures"
    return dict(given), (
        f"{f'{kept} as given; ' if kept else ''}split made here from {whole}: {counts}"
        f" (by content and classes, the same every time{alike})"
    )


def divide(pictures: Sequence[Picture], root: Path, shares: Mapping[str, float]) -> str:
    """Gives each picture one of the splits of `shares`; returns what to say about near-identical ones."""
    present = [picture for picture in pictures if not picture.missing]
    for picture in pictures:
        if picture.missing:
            picture.split = hash_split(hashlib.sha256(picture.file.encode()).hexdigest(), shares)
    found = signatures([root / picture.file for picture in present])
    together = groups(len(present), near_pairs(found))
    several = sum(1 for group in together if len(group) > 1)
    text = f"; {several} group(s) of near-identical pictures stay together" if several else ""
    if len(together) < min(len(present), len(shares)):
        together = [[i] for i in range(len(present))]
        text = "; all its pictures are nearly alike, so the splits resemble each other"
    together.sort(key=lambda group: min(found.sha256[i] for i in group))
    classes = [Counter(name for i in group for name in _classes(present[i])) for group in together]
    for split, group in zip(places([len(g) for g in together], classes, shares), together, strict=True):
        for i in group:
            present[i].split = split
    return text


def _classes(picture: Picture) -> set[Any]:
    return {item.get("name", item.get("category_id")) for item in picture.objects}


def places(counts: Sequence[int], classes: Sequence[Counter[Any]], shares: Mapping[str, float]) -> list[str]:
    """A split for every group of pictures, so that the shares are met, of all pictures and of every class.

    counts: pictures of each group. classes: of each group, class -> pictures that show it. Iterative
    stratification: the rarest class is dealt out first, each of its groups to the split that lacks it most;
    of equal ones the first in order. Groups that would be more than half of a small split, which would then
    have little to say, go to the largest. Every split gets a group if there are as many.
    """
    largest = max(shares, key=lambda split: shares[split])
    total = sum(shares.values())
    part = {split: share / total for split, share in shares.items()}
    quota = {s: max(1, round(sum(counts) * part[s])) for s in shares if s != largest}
    room = {**quota, largest: max(1, sum(counts) - sum(quota.values()))}
    all_classes = sum(classes, Counter())
    wanted = {split: Counter({c: n * part[split] for c, n in all_classes.items()}) for split in shares}
    found: dict[int, str] = {}

    def put(i: int, by: Any) -> None:
        fits = [s for s in shares if s == largest or counts[i] == 1 or 2 * counts[i] <= quota[s]]
        fits = [s for s in fits if counts[i] <= room[s]] or [largest]
        chosen = max(fits, key=lambda s: (wanted[s][by] if by is not None else 0.0, room[s] / part[s]))
        found[i] = chosen
        room[chosen] -= counts[i]
        wanted[chosen].subtract(classes[i])
        all_classes.subtract(classes[i])

    while rest := {c: n for c, n in all_classes.items() if n > 0}:
        rarest = min(rest, key=lambda c: (rest[c], str(c)))
        for i in [i for i in range(len(counts)) if i not in found and classes[i][rarest]]:
            put(i, rarest)
    for i in range(len(counts)):
        if i not in found:
            put(i, None)
    _fill_empty(found, counts, list(shares), largest)
    return [found[i] for i in range(len(counts))]


def _fill_empty(found: dict[int, str], counts: Sequence[int], splits: Sequence[str], largest: str) -> None:
    """Gives an empty split the smallest group of the largest split, which keeps at least one."""
    for split in splits:
        left = [i for i in sorted(found) if found[i] == largest]
        if split not in found.values() and len(left) > 1:
            found[min(left, key=lambda i: counts[i])] = split
