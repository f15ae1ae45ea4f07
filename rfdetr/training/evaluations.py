"""AP on the validation set during a training: the curve, its plateau, and the best weights."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.evaluation.engines import Detection
from rfdetr.files import strict, write_atomic
from rfdetr.model.detector import RFDETR
from rfdetr.training.log import Row

FILLED = "filled_masks"
"""Column of a network with a mask head: share of the detections whose mask has a pixel."""


class Evaluations:
    """Evaluations of a few architectures on `val`, kept in evaluations.jsonl and evaluations.csv.

    A training's score at a step is the mean AP of these architectures (of masks where there is a mask head).
    """

    def __init__(self, folder: Path, val: DetectionDataset | None, archs: Sequence[Arch]) -> None:
        self.folder, self.val, self.archs = folder, val, tuple(dict.fromkeys(archs))
        self.rows: list[Row] = []

    def read(self, step: int) -> None:
        """Take over what an earlier process evaluated up to `step`."""
        path = self.folder / "evaluations.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= step]

    @property
    def last_step(self) -> int:
        """Step of the last evaluation; -1 when there was none."""
        return max((row["step"] for row in self.rows), default=-1)

    def add(self, model: RFDETR, step: int, progress: bool = False) -> None:
        """Evaluate `model`, which is in evaluation mode, and write the files."""
        from rfdetr.evaluation.coco import evaluate

        assert self.val is not None
        self.rows = [row for row in self.rows if row["step"] != step]
        for arch in self.archs:
            result = evaluate(model, self.val, arch, progress=progress)
            row: Row = {"step": step, "arch": arch.id, **result.row()}
            if result.masks is not None:
                row[FILLED] = filled_share(result.detections)
            self.rows.append(strict(row))
        write_atomic(self.folder / "evaluations.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
        write_atomic(self.folder / "evaluations.csv", _table(self.rows))

    def at(self, step: int) -> list[Row]:
        """Rows of one step."""
        return [row for row in self.rows if row["step"] == step]

    def scores(self) -> dict[int, float]:
        """Step -> score, in order; 0 where AP is not defined."""
        return {step: _score(self.at(step)) for step in sorted({row["step"] for row in self.rows})}

    @property
    def best_step(self) -> int:
        """The first step with the highest score; -1 without evaluations."""
        scores = self.scores()
        return max(scores, key=lambda step: (scores[step], -step), default=-1)

    def stalled(self, patience: int) -> bool:
        """Whether the last `patience` evaluations brought no better score; never with patience 0."""
        after = sum(1 for step in self.scores() if step > self.best_step)
        return patience > 0 and after >= patience


def filled_share(detections: Sequence[Detection]) -> float:
    """Share of the detected masks that have a pixel; 1 when there are no masks."""
    from pycocotools import mask as rle

    # One by one: pycocotools fails on lists of more than 255.
    filled = [rle.area(code) > 0 for found in detections for code in found.get("rles", ())]
    return sum(filled) / len(filled) if filled else 1.0


def empty_masks(name: str) -> str:
    """What to say about an architecture none of whose masks has a pixel."""
    return (
        f"{name}: no mask has a pixel, so mask AP is 0: train longer, at a larger resolution, or with more"
        " points per mask (mask_points)"
    )


def _score(rows: list[Row]) -> float:
    values = [row.get("mask_AP", row["AP"]) for row in rows]
    return sum(v if v is not None and math.isfinite(v) else 0.0 for v in values) / len(values)


def _table(rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
