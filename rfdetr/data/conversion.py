"""Folders of any known format -> COCO JSON in the cache, once; pictures stay where they are.

The name of a conversion is a digest of what decides it: the annotation files' content, the pictures' names
and sizes, the reading options and `CONVERTER`. One that is there is therefore right, and a folder that
changed is converted anew.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from rfdetr.data.coco import CocoDataset
from rfdetr.data.dataset import digest
from rfdetr.data.formats.collection import Match, Picture, restrict
from rfdetr.data.formats.inventory import SPLITS, Inventory
from rfdetr.data.formats.recognise import recognise
from rfdetr.data.report import DataReport
from rfdetr.data.splits import SHARES, assign_splits, to_make
from rfdetr.errors import NotFoundError, UserError
from rfdetr.files import sha256_file

CONVERTER = 3
"""Version of all readers together: raise it whenever one of them reads something differently."""


@dataclass(frozen=True)
class Reading:
    """How a folder is to be read. classes: these alone, in this order; empty: all. ignore: names of regions
    that are no objects. rename: other names for the source's. subset: the pictures are known to be a part of
    those that the annotations list. shares: of the splits that are missing.
    """

    classes: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rename: dict[str, str] = field(default_factory=dict)
    subset: bool = False
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))

    @property
    def plain(self) -> bool:
        """True when the source's own classes and pictures are taken."""
        return not (self.classes or self.ignore or self.rename or self.subset)


@dataclass(frozen=True)
class Opened:
    """A recognised folder. files: split -> (annotation file, folder that its picture names start from).

    kind: name of the format. note: which splits were made here, and how; empty if none. given: pictures per
    split as the source has them. source: what an error calls the annotations of a split.
    """

    kind: str
    files: dict[str, tuple[Path, Path]]
    note: str = ""
    given: dict[str, int] = field(default_factory=dict)
    source: str = ""


def data_home() -> Path:
    """Folder of fetched and converted datasets: RFDETR_DATA, else ~/.cache/rfdetr."""
    return Path(os.environ.get("RFDETR_DATA") or Path.home() / ".cache" / "rfdetr")


def look(root: str | os.PathLike[str], reading: Reading | None = None) -> Opened:
    """Recognise a folder and convert it if that is needed and not done yet.

    Raises UserError when the folder is in no known format, or its annotations cannot be read.
    """
    reading = reading or Reading()
    inventory = Inventory(root)
    match = recognise(inventory)
    if match.ready and reading.plain and not to_make(list(match.ready), reading.shares)[1]:
        files = {s: (inventory.path(a), inventory.path(i)) for s, (a, i) in match.ready.items()}
        return Opened(match.kind, files)
    folder = _converted(inventory, match, reading)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    files = {split: (folder / f"{split}.json", inventory.root) for split in about["splits"]}
    source = match.annotations[0] if len(match.annotations) == 1 else f"the {match.kind} annotations"
    return Opened(match.kind, files, about["note"], about["given"], f"{inventory.root} ({source})")


def open_split(opened: Opened, root: Path, split: str, name: str, **options: Any) -> CocoDataset:
    """One split of a recognised folder. Raises NotFoundError when there is none such, saying why."""
    if split not in opened.files:
        have = ", ".join(opened.files) or "no pictures with annotations"
        why = "they are kept for evaluation" if "train" not in opened.files else "too few pictures to divide"
        raise NotFoundError(
            f"{root} ({opened.kind}) has no split {split!r}, only {have}, and none was made: {why}. Put"
            f" annotated pictures into a folder {split!r}, or all of them into one folder without splits"
        )
    annotations, images = opened.files[split]
    try:
        dataset = CocoDataset(annotations, images, name, split, **{"within": root, **options})
    except UserError as error:
        if not opened.source:
            raise
        # The user's own files are named, not the conversion in the cache.
        raise UserError(str(error).replace(str(annotations), opened.source)) from error
    dataset.split_note = opened.note
    report = annotations.parent / f"{split}-report.json"
    if opened.source:
        for name in ("untrainable", "maskless"):
            setattr(dataset, name, getattr(dataset, name).replace(str(annotations), opened.source))
        dataset.report.rename(str(annotations), opened.source)
    if opened.source and report.is_file():
        dataset.report.merge(DataReport.from_json(report.read_text(encoding="utf-8")))
    return dataset


def _converted(inventory: Inventory, match: Match, reading: Reading) -> Path:
    key = _key(inventory, match, reading)
    target = data_home() / "converted" / f"{inventory.root.resolve().name}-{key}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # All processes of a training start at once: one converts, the others wait for it.
        with FileLock(target.parent / f".{target.name}.lock"):
            if not target.is_dir():
                _convert(inventory, match, reading, target)
    except OSError as error:
        raise UserError(
            f"{inventory.root} cannot be read, or its conversion not be written to {target.parent} ({error}):"
            " check permissions and disk, or name another folder in the environment variable RFDETR_DATA"
        ) from error
    return target


def _key(inventory: Inventory, match: Match, reading: Reading) -> str:
    parts = hashlib.sha256()
    for path in match.annotations:
        stat = inventory.path(path).stat()
        found = _sha256(str(inventory.path(path)), stat.st_size, stat.st_mtime_ns)
        parts.update(f"{path} {found}\n".encode())
    for path in inventory.dead:
        parts.update(f"{path} leads nowhere\n".encode())
    for path in inventory.pictures:
        parts.update(f"{path} {inventory.path(path).stat().st_size}\n".encode())
    return digest(CONVERTER, match.kind, parts.hexdigest(), repr(sorted(asdict(reading).items())))


@lru_cache(maxsize=1 << 17)
def _sha256(path: str, size: int, changed: int) -> str:
    """Hash of a file of this size and time of change, read once in a process."""
    return sha256_file(path)


def _convert(inventory: Inventory, match: Match, reading: Reading, target: Path) -> None:
    collection = match.read()
    for path in inventory.dead:
        collection.report.add("link to nothing (left out)", path)
    if reading.subset:
        listed = len(collection.pictures)
        collection.pictures = [picture for picture in collection.pictures if not picture.missing]
        collection.report.note("listed pictures outside the subset", listed - len(collection.pictures))
    if reading.classes or reading.ignore or reading.rename:
        where = str(inventory.root)
        collection = restrict(collection, reading.classes, reading.ignore, reading.rename, where)
    if not any(not picture.missing for picture in collection.pictures):
        raise UserError(
            f"{inventory.root}: the {match.kind} annotations name {len(collection.pictures)} pictures, and"
            f" none of them is there ({inventory.describe(inventory.pictures, 'pictures')}): give the folder"
            " that holds annotations and pictures"
        )
    given, note = assign_splits(collection.pictures, inventory.root, reading.shares)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        staged = Path(temporary) / "data"
        staged.mkdir()
        by_split = {s: [p for p in collection.pictures if p.split == s] for s in SPLITS}
        splits = {s: len(found) for s, found in by_split.items() if any(not p.missing for p in found)}
        general = collection.report
        for picture in collection.pictures:
            if picture.split is None:
                _tell(picture, general)
        for split in splits:
            report = DataReport()
            # What concerns the folder as a whole is told once, with its first split.
            report.merge(general)
            general = DataReport()
            for picture in by_split[split]:
                _tell(picture, report)
            content = _content(by_split[split], collection.categories)
            (staged / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
            (staged / f"{split}-report.json").write_text(json.dumps(report.to_dict()), encoding="utf-8")
        about = {"kind": match.kind, "note": note, "given": given, "splits": splits}
        (staged / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        staged.rename(target)


def _tell(picture: Picture, report: DataReport) -> None:
    for problem, example in picture.findings:
        report.add(problem, example)
    for fact in picture.notes:
        report.note(fact)


def _content(pictures: list[Picture], categories: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO content of one split; ids of a COCO source are kept, others are numbered."""
    ids = {category.get("name"): category["id"] for category in categories}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        number = picture.entry.get("id", len(images) + 1)
        size = {"height": picture.size[0], "width": picture.size[1]} if picture.size else {}
        images.append({**picture.entry, **size, "id": number, "file_name": picture.file})
        for item in picture.objects:
            entry = {"id": len(annotations) + 1, "iscrowd": 0, **item, "image_id": number}
            if "name" in entry:
                entry["category_id"] = ids[entry.pop("name")]
            annotations.append(entry)
    return {"images": images, "annotations": annotations, "categories": categories}


def write_folder(
    datasets: Mapping[str, CocoDataset],
    destination: Path,
    masks: Mapping[str, Mapping[int, Any]] | None = None,
) -> None:
    """Write splits as one COCO-format folder: train, valid and test with pictures and annotations.

    masks: split -> annotation id -> segmentation that takes the place of its own. Pictures are hard-linked
    where that is possible, else copied. The folder appears whole or not at all. Raises UserError when it
    exists already.
    """
    if destination.exists():
        raise UserError(f"{destination} exists already: choose a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as temporary:
        staged = Path(temporary) / "data"
        for split, dataset in datasets.items():
            _write_split(dataset, staged / {"val": "valid"}.get(split, split), (masks or {}).get(split, {}))
        staged.rename(destination)


def _write_split(dataset: CocoDataset, folder: Path, masks: Mapping[int, Any]) -> None:
    folder.mkdir(parents=True)
    content = dataset.coco
    names = Counter(Path(image["file_name"]).name for image in content["images"])
    images = []
    for image in content["images"]:
        name = Path(image["file_name"]).name
        if names[name] > 1:  # of one name in two folders
            name = image["file_name"].replace("/", "_")
        _place(dataset.folder / image["file_name"], folder / name)
        images.append({**image, "file_name": name})
    annotations = [
        {k: v for k, v in entry.items() if k != "source"}
        | ({"segmentation": masks[entry["id"]]} if entry["id"] in masks else {})
        for entry in content["annotations"]
    ]
    text = json.dumps({**content, "images": images, "annotations": annotations})
    (folder / "_annotations.coco.json").write_text(text, encoding="utf-8")


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
