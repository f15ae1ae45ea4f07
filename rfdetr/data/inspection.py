"""The deep look that `data check` takes: every split opened, every picture decoded, every mask drawn, every
picture and every split compared with the others.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfdetr.data.categories import shortened
from rfdetr.data.checks import compare_splits
from rfdetr.data.coco import CocoDataset
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.duplicates import near_pairs, signatures
from rfdetr.data.folders import SPLITS, NotFoundError
from rfdetr.data.images import read_image
from rfdetr.data.masks import box_polygon, decode_segmentation
from rfdetr.data.registry import load_dataset
from rfdetr.data.report import DataReport, Problem
from rfdetr.data.scenes import DOMAINS
from rfdetr.data.statistics import Statistics
from rfdetr.errors import UserError
from rfdetr.files import sha256_file


@dataclass
class Inspection:
    """What was found in a dataset. statistics, reports: of every split that opens. errors: why the others do
    not. between: problems of the splits taken together. note: which splits were made here, and how.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    reports: dict[str, DataReport] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    between: DataReport = field(default_factory=lambda: DataReport("between the splits"))
    note: str = ""

    @property
    def problems(self) -> int:
        """How many, a split that does not open being one."""
        return len(self.errors) + self.between.total + sum(report.total for report in self.reports.values())

    @property
    def stopping(self) -> list[str]:
        """Why `train`, which opens train and val, will stop, in a few words each."""
        reasons = [f"{split} cannot be opened" for split in self.errors if split != "test"]
        for split, report in self.reports.items():
            reasons += [f"{split}: {problem.kind}" for problem in report.stopping if split != "test"]
        return list(dict.fromkeys([*reasons, *(problem.kind for problem in self.between.stopping)]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "splits": {
                split: {"statistics": self.statistics[split].to_dict(), "report": report.to_dict()}
                for split, report in self.reports.items()
            },
            "errors": self.errors,
            "between": self.between.to_dict(),
            "note": self.note,
            "stopping": self.stopping,
        }

    def describe(self, split: str) -> str:
        """All that was found in one split."""
        if split in self.errors:
            return f"{split}: cannot be opened: {self.errors[split]}"
        return f"{split}: {self.statistics[split]}\n{self.reports[split]}"


def inspect_dataset(
    data: str, splits: Sequence[str] = SPLITS, on_split: Callable[[str], None] | None = None
) -> Inspection:
    """Look at the given splits of a dataset by its name or folder; those that it does not have are left out.

    on_split: called with the description of every split as soon as it is looked at. Raises NotFoundError when
    there is none of them.
    """
    options: dict[str, Any] = {} if data in DOMAINS else {"unreadable": "skip"}
    found = Inspection()
    opened: dict[str, DetectionDataset] = {}
    absent: NotFoundError | None = None
    for split in splits:
        try:
            opened[split] = load_dataset(data, split, **options)
        except NotFoundError as error:
            absent = absent or error
            continue
        except UserError as error:
            found.errors[split] = str(error)
        else:
            found.note = opened[split].split_note
            found.reports[split] = inspect(opened[split])
            found.statistics[split] = Statistics.of(opened[split])
        if on_split is not None:
            on_split(found.describe(split))
    if absent is not None and not opened and not found.errors:
        raise absent
    if "train" in opened:
        for split in opened:
            for problem in compare_splits(opened["train"], opened[split]):
                found.between.put(problem)
    if unused := _unused(list(found.statistics.values())):
        found.between.note(f"classes without a single object ({shortened(unused)})", len(unused))
    for problem in leaks({split: data for split, data in opened.items() if isinstance(data, CocoDataset)}):
        found.between.put(problem)
    return found


def _unused(statistics: list[Statistics]) -> list[str]:
    """Names that all splits declare and that have no object in any."""
    counts: Counter[str] = Counter()
    for found in statistics:
        counts.update(found.classes)
    return [name for name, count in counts.items() if not count] if any(counts.values()) else []


def inspect(dataset: DetectionDataset) -> DataReport:
    """A dataset's report, with what opening it does not find out: damaged pictures, empty masks, twins."""
    if not isinstance(dataset, CocoDataset):
        return dataset.report or DataReport(repr(dataset))
    if not dataset.decoded:
        for file in dataset.files:
            try:
                read_image(file)
            except UserError as error:
                dataset.report.add("unreadable picture", str(error), file=str(file), stops=True)
    _inspect_masks(dataset)
    for one, other in _twins(dataset.files):
        text = f"{one.name}, {other.name}"
        dataset.report.add("the same picture under two names", text, file=str(other))
    return dataset.report


def leaks(datasets: Mapping[str, CocoDataset]) -> list[Problem]:
    """Pictures that two splits share, byte for byte or nearly: training data among those that judge it.

    Of the nearly same ones, each is named once, with the first that it resembles.
    """
    places = [(split, file) for split, dataset in datasets.items() for file in dataset.files]
    if len(datasets) < 2:
        return []
    compared = signatures([file for _, file in places])
    found = []
    resembling: set[int] = set()
    for i, j in near_pairs(compared):
        (split, file), (other_split, other) = places[i], places[j]
        if split == other_split:
            continue
        if compared.sha256[i] == compared.sha256[j]:
            text = f"{file.name} of {split} is {other.name} of {other_split}"
            found.append(Problem("the same picture in two splits", text, str(other)))
        elif j not in resembling:
            resembling.add(j)
            text = f"{other.name} of {other_split} resembles {file.name} of {split}"
            found.append(Problem("nearly the same picture in two splits", text, str(other)))
    return found


def _inspect_masks(dataset: CocoDataset) -> None:
    sizes = {image["id"]: (image["height"], image["width"]) for image in dataset.coco["images"]}
    boxes = total = 0
    for annotation in dataset.coco["annotations"]:
        mask: Any = annotation.get("segmentation")
        if mask is None or annotation["iscrowd"]:
            continue
        total += 1
        boxes += mask == box_polygon(annotation["bbox"])
        if not decode_segmentation(mask, *sizes[annotation["image_id"]]).any():
            number = annotation["id"]
            text = f"annotation {number}"
            dataset.report.add("mask without a pixel", text, file=str(dataset.path), annotation=number)
    if total and boxes == total:
        dataset.report.note("masks that only repeat their boxes", boxes)


def _twins(files: list[Path]) -> list[tuple[Path, Path]]:
    """(first, later one) of every picture that occurs before; only files of one size are compared."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        by_size[file.stat().st_size].append(file)
    pairs = []
    for alike in by_size.values():
        first: dict[str, Path] = {}
        for file in alike if len(alike) > 1 else []:
            earlier = first.setdefault(sha256_file(file), file)
            if earlier is not file:
                pairs.append((earlier, file))
    return pairs
