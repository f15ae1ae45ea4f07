"""One name for every dataset: an embedded scene domain, a registered public dataset, or the path of a
folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfdetr.data.conversion import Opened, Reading, look, open_split
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.download import obtain
from rfdetr.data.folders import coco_folder
from rfdetr.data.formats.inventory import SPLITS, canonical_split
from rfdetr.data.manifests import Manifest, load_manifest, manifest_names
from rfdetr.data.scenes import BASE_CANVAS, DOMAINS, scenes
from rfdetr.data.splits import SHARES
from rfdetr.data.statistics import Statistics
from rfdetr.errors import NotFoundError, UserError


def dataset_names() -> list[str]:
    """Names that `load_dataset` knows, besides paths."""
    return [*DOMAINS, *manifest_names()]


def load_dataset(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    *,
    size: int | None = None,
    canvas: int = BASE_CANVAS,
    seed: int = 0,
    download: bool = False,
    shares: Mapping[str, float] = SHARES,
    **options: Any,
) -> DetectionDataset:
    """Open one split ("train", "val", "test") of a dataset.

    name_or_path: a scene domain ("digits", ...; `canvas` px, `seed`), a registered dataset ("bccd",
    "raccoon", "coco2017", "rf100vl/<name>"), or a folder in a format that `rfdetr.data.formats` reads: COCO
    JSON, Pascal VOC, YOLO, CSV and others (converted once, below RFDETR_DATA; the pictures stay where they
    are). A folder of the working directory that is called like a registered name is meant when written with a
    slash ("./bccd").
    size: at most so many images. download: allow fetching large datasets. shares: of the splits that a folder
    lacks and that are made then (see `rfdetr.data.splits`; `dataset.split_note` says what was done); 0 makes
    none. options: of `CocoDataset` (cache_side, unreadable, masks, flip). Raises UserError naming what is
    known.
    """
    name, split = os.fspath(name_or_path), canonical_split(split)
    if name in DOMAINS:
        options.pop("unreadable", None)  # none of these pictures can be missing or damaged
        if options:
            raise UserError(
                f"the embedded scenes {name!r} take no {', '.join(options)}: these are options of folders"
            )
        return scenes(name, split, size=size, canvas=canvas, seed=seed)
    manifest, rest = registered(name)
    dataset: DetectionDataset
    if manifest is not None and manifest.kind == "parts":
        dataset = coco_folder(obtain(manifest, split, download), split, name, **options)
    else:
        root, opened = _recognised(name, manifest, rest, shares)
        label = name if manifest is not None else root.resolve().name
        dataset = open_split(opened, root, split, label, **options)
    return dataset if size is None else dataset.subset(size)


def available_splits(
    name_or_path: str | os.PathLike[str], shares: Mapping[str, float] = SHARES
) -> tuple[str, ...]:
    """Splits that `load_dataset` opens. Raises UserError when it opens none."""
    name = os.fspath(name_or_path)
    if name in DOMAINS:
        return SPLITS
    manifest, rest = registered(name)
    if manifest is not None and manifest.kind == "parts":
        return tuple(split for split in SPLITS if split in manifest.needs)
    _, opened = _recognised(name, manifest, rest, shares)
    return tuple(split for split in SPLITS if split in opened.files)


def describe(name_or_path: str | os.PathLike[str]) -> Opened:
    """What a registered dataset or a folder was recognised as. Raises UserError as `load_dataset`."""
    name = os.fspath(name_or_path)
    return _recognised(name, *registered(name), SHARES)[1]


def verify_counts(manifest: Manifest) -> str:
    """Compare pictures, objects of every class and splits with the manifest; one line that says so.

    Raises UserError naming what differs.
    """
    opened = describe(manifest.name)
    splits = [load_dataset(manifest.name, split) for split in opened.files]
    found = Statistics.of(*splits)
    given = {split: opened.given[split] for split in SPLITS if opened.given.get(split)}
    told = {canonical_split(name): int(count) for name, count in manifest.splits.items()}
    pairs = {
        "format": (opened.kind, manifest.converter),
        "pictures": (found.images, manifest.images),
        "objects": (found.classes, manifest.objects),
        "pictures of the source's splits": (given, {s: told[s] for s in SPLITS if s in told}),
    }
    for what, (here, there) in pairs.items():
        if here != there:
            raise UserError(f"{manifest.name}: {what}: {here}, the manifest gives {there}")
    return f"{found.images} pictures, {found.objects} objects and the source's splits as in the manifest"


def registered(name: str) -> tuple[Manifest | None, str]:
    """(manifest, rest of the name) of a registered dataset; (None, "") for a path."""
    first, _, rest = name.partition("/")
    if name.startswith((".", os.sep)) or first not in manifest_names():
        return None, ""
    manifest = load_manifest(first)
    if rest and manifest.kind != "manual":
        raise UserError(f"{first} is one dataset, not a collection: write {first!r}")
    return manifest, rest


def _recognised(
    name: str, manifest: Manifest | None, rest: str, shares: Mapping[str, float]
) -> tuple[Path, Opened]:
    if manifest is not None:
        root = obtain(manifest, "train") / rest
        subset = bool(manifest.subset)
        reading = Reading(manifest.classes, manifest.ignore, dict(manifest.rename), subset, dict(shares))
        return root, look(root, reading)
    root = Path(name)
    if root.is_file():
        raise UserError(f"{name} is a file: give the folder that holds it and the pictures")
    if not root.is_dir():
        raise NotFoundError(
            f"unknown dataset {name!r}: give the path of a folder, or one of {', '.join(dataset_names())}"
        )
    return root, look(root, Reading(shares=dict(shares)))
