"""Looks at a real network: work units (encoder setting, block of images), computed once and kept.

A unit's matched detections are kept (`rfdetr.search.matches`; about 3 bytes per detection in a file, 15 in
memory while its setting is looked at), so the accuracy of a setting on k blocks comes from k files. Where
they are kept: in a folder, by one process; or in the storage of a queue, by many workers.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.files import write_json
from rfdetr.search.blocks import blocks
from rfdetr.search.grid import GridEvaluator, Pair, Triple, unit_name
from rfdetr.search.matches import Matches, average_precision, join, numbers
from rfdetr.search.multifidelity import Look
from rfdetr.search.queue import Progress, WorkQueue


class Keeper(Protocol):
    """Keeps what units gave, by name."""

    def compute(self, units: Mapping[str, list[Pair]], work: Callable[[str], dict[str, Any]]) -> None:
        """Have the units, each with its pairs, computed by whoever: returns when all are kept."""
        ...

    def value(self, unit: str) -> dict[str, Any]:
        """What a unit gave."""
        ...


class Looks:
    """The accuracies that looks at a network show.

    work      encoder triple -> its (decoder layers, queries), see `grid.units`
    levels    numbers of images, see `blocks.levels`; with one level, of all images, units are those of an
              exact search, with all COCO numbers and without matches
    metric    of the numbers; with several levels "AP" or "mask_AP"

    Raises UserError for another metric, or masks that are not evaluated.
    """

    def __init__(
        self,
        evaluator: GridEvaluator,
        work: Mapping[Triple, list[Pair]],
        levels: Sequence[int],
        keeper: Keeper,
        metric: str = "AP",
    ) -> None:
        self.few = len(levels) > 1
        kinds = {"AP": "", **({"mask_AP": "mask_"} if evaluator.masks else {})}
        if self.few and metric not in kinds:
            raise UserError(f"a search on few images goes by {' or '.join(kinds)}, not by {metric!r}")
        self.evaluator, self.work, self.keeper, self.metric = evaluator, work, keeper, metric
        self.prefix = kinds.get(metric, "")
        self.blocks = blocks(levels)
        self._units = {
            self._name(triple, images): (triple, images) for triple in work for images in self.blocks
        }

    def __call__(self, looks: Sequence[Look]) -> list[dict[Pair, float]]:
        """For each look (encoder triple, level) the accuracy of the triple's pairs on the level's images."""
        needed = {
            self._name(triple, images): self.work[triple]
            for triple, level in looks
            for images in self.blocks[: level + 1]
        }
        self.keeper.compute(needed, self._unit)
        if not self.few:
            rows = (self.whole(triple) for triple, _ in looks)
            return [{pair: row[self.metric] for pair, row in each.items()} for each in rows]
        objects = self.evaluator.images.truth.objects
        found = []
        for triple, level in looks:
            pairs, matches = self._joined(triple, level, self.prefix)
            values = average_precision(objects, matches).tolist()
            found.append(dict(zip(pairs, values, strict=True)))
        return found

    def whole(self, triple: Triple) -> dict[Pair, dict[str, float]]:
        """All COCO numbers of a setting whose blocks are all in, as `GridEvaluator.unit` gives them."""
        if not self.few:
            return _numbers(self.keeper.value(self._name(triple, self.blocks[0])))
        rows: dict[Pair, dict[str, float]] = {pair: {} for pair in self.work[triple]}
        for prefix in ("", "mask_") if self.evaluator.masks else ("",):
            pairs, matches = self._joined(triple, len(self.blocks) - 1, prefix)
            found = numbers(self.evaluator.images.truth.objects, matches).tolist()
            for pair, values in zip(pairs, found, strict=True):
                rows[pair] |= {prefix + name: value for name, value in zip(METRICS, values, strict=True)}
        return rows

    def _joined(self, triple: Triple, level: int, prefix: str) -> tuple[list[Pair], Matches]:
        values = [self.keeper.value(self._name(triple, images)) for images in self.blocks[: level + 1]]
        return _pairs(values[0]), join([_unpacked(value["matches"][prefix]) for value in values])

    def _name(self, triple: Triple, images: range) -> str:
        return f"{unit_name(triple)}-i{images.start}-{images.stop}" if self.few else unit_name(triple)

    def _unit(self, name: str) -> dict[str, Any]:
        triple, images = self._units[name]
        if not self.few:
            return self.evaluator.unit(triple, self.work[triple])
        pairs, matches, seconds = self.evaluator.block(triple, self.work[triple], images)
        packed = {prefix: _packed(found) for prefix, found in matches.items()}
        return {"pairs": [list(pair) for pair in pairs], "matches": packed, "seconds": seconds}


class Folder:
    """Keeps units in files, one each; what is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compute(self, units: Mapping[str, list[Pair]], work: Callable[[str], dict[str, Any]]) -> None:
        """Compute the units that are not there, or not with all their pairs."""
        for unit, pairs in units.items():
            found = self._read(unit)
            if found is None or not set(_pairs(found)) >= set(pairs):
                write_json(self.path / f"{unit}.json", work(unit))

    def value(self, unit: str) -> dict[str, Any]:
        """What a unit gave."""
        found = self._read(unit)
        if found is None:
            raise UserError(f"{self.path / unit}.json is gone: start the search again, it goes on")
        return found

    def _read(self, unit: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self.path / f"{unit}.json").read_text())
        except (FileNotFoundError, ValueError):  # absent, or cut by a full disk
            return None
        return found if isinstance(found, dict) and "pairs" in found else None


class Memory:
    """Keeps units as long as the search lasts."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def compute(self, units: Mapping[str, list[Pair]], work: Callable[[str], dict[str, Any]]) -> None:
        """Compute the units that are new."""
        for unit in units:
            if unit not in self._kept:
                self._kept[unit] = work(unit)

    def value(self, unit: str) -> dict[str, Any]:
        """What a unit gave."""
        return self._kept[unit]


class Shared:
    """Keeps units in the storage of a queue; all workers of the search compute them together.

    on_progress: called after every unit with the state over all workers
    """

    def __init__(self, queue: WorkQueue, on_progress: Callable[[Progress], None] | None = None) -> None:
        self.queue, self.on_progress = queue, on_progress

    def compute(self, units: Mapping[str, list[Pair]], work: Callable[[str], dict[str, Any]]) -> None:
        """Take part until all units are done."""
        self.queue.extend(units)
        self.queue.work(work, self.on_progress)

    def value(self, unit: str) -> dict[str, Any]:
        """What a unit gave."""
        value: dict[str, Any] = self.queue.value(unit)
        return value


def _pairs(value: Mapping[str, Any]) -> list[Pair]:
    return [(int(depth), int(queries)) for depth, queries in value["pairs"]]


def _numbers(value: Mapping[str, Any]) -> dict[Pair, dict[str, float]]:
    """The rows of a unit; JSON has no NaN, so what is undefined is kept as null."""
    rows = ({n: float("nan") if v is None else v for n, v in row.items()} for row in value["rows"])
    return dict(zip(_pairs(value), rows, strict=True))


def _packed(matches: Matches) -> str:
    file = io.BytesIO()
    matches.write(file)
    return base64.b64encode(file.getvalue()).decode()


def _unpacked(text: str) -> Matches:
    return Matches.load(io.BytesIO(base64.b64decode(text)))
