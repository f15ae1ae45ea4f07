"""One name for every dataset: an embedded scene domain, a registered public dataset, or the path of a
folder.
"""

import os
from pathlib import Path
from typing import Any

from rfdetr.data.dataset import DetectionDataset, digest
from rfdetr.data.download import data_home, obtain
from rfdetr.data.folders import NotFoundError, canonical_split, coco_folder, find_splits
from rfdetr.data.manifests import load_manifest, manifest_names
from rfdetr.data.scenes import BASE_CANVAS, DOMAINS, scenes
from rfdetr.data.voc import convert_voc, find_voc
from rfdetr.errors import UserError


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
    **options: Any,
) -> DetectionDataset:
    """Open one split ("train", "val", "test") of a dataset.

    name_or_path: a scene domain ("digits", ...; `canvas` px, `seed`), a registered dataset ("bccd",
    "raccoon", "coco2017", "rf100vl/<name>"), or a folder in COCO format or Pascal VOC (converted once, below
    RFDETR_DATA). A folder of the working directory that is called like a registered name is meant when
    written with a slash ("./bccd").
    size: at most so many images. download: allow fetching large datasets. options: of `CocoDataset`
    (cache_side, unreadable, masks, flip). Raises UserError naming what is known.
    """
    name, split = os.fspath(name_or_path), canonical_split(split)
    if name in DOMAINS:
        if options:
            raise UserError(
                f"the embedded scenes {name!r} take no {', '.join(options)}: these are options of folders"
            )
        return scenes(name, split, size=size, canvas=canvas, seed=seed)
    first, _, rest = name.partition("/")
    if first in manifest_names() and not name.startswith((".", os.sep)):
        manifest = load_manifest(first)
        if rest and manifest.kind != "manual":
            raise UserError(f"{first} is one dataset, not a collection: write {first!r}")
        folder = obtain(manifest, split, download) / rest
    else:
        folder = Path(name)
        if not folder.is_dir():
            raise NotFoundError(
                f"unknown dataset {name!r}: give the path of a folder, or one of {', '.join(dataset_names())}"
            )
    dataset = _open(folder, split, name if first in manifest_names() else None, options)
    return dataset if size is None else dataset.subset(size)


def _open(folder: Path, split: str, name: str | None, options: dict[str, Any]) -> DetectionDataset:
    if not find_splits(folder) and find_voc(folder) is not None:
        folder, name = _converted(folder), name or folder.resolve().name
    return coco_folder(folder, split, name, **options)


def _converted(folder: Path) -> Path:
    """COCO-format copy of a VOC folder, made anew when a file of it was added, removed or changed."""
    files = tuple(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    target = data_home() / "voc" / f"{folder.resolve().name}-{digest(str(folder.resolve()), files)}"
    if not target.is_dir():
        convert_voc(folder, target)
    return target
