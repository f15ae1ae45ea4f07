"""COCO average precision of boxes and masks (pycocotools' definition).

The twelve numbers are read from the evaluator's precision and recall arrays here, not from its own summary,
so that another `max_dets` than 100 is possible (the authors used 500 in some runs), an empty case is NaN with
a note instead of -1, and both engines are summarised by the same code.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from rfdetr.arch import Arch
from rfdetr.data.categories import UNUSED, CategoryMap
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.transforms import collate
from rfdetr.errors import UserError
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.evaluation.engines import Detection, run_evaluator
from rfdetr.model.detections import encode_masks
from rfdetr.model.modes import evaluating
from rfdetr.model.postprocess import postprocess

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")
"""The twelve COCO numbers in COCO's order. "AR" is at `max_dets` (AR100 in the usual setting)."""


@dataclass(frozen=True)
class CocoNumbers:
    """The twelve numbers of one kind (boxes or masks), each in 0..1 or NaN, and AP per class name.

    note: says why numbers are NaN, empty otherwise.
    """

    iou_type: str
    values: dict[str, float]
    per_class: dict[str, float]
    max_dets: int
    images: int
    engine: str
    note: str = ""

    def __getitem__(self, metric: str) -> float:
        return self.values[metric]


@dataclass(frozen=True)
class CocoResult:
    """Evaluation of one network on one dataset. masks is None without a mask head or without mask ground
    truth.
    """

    boxes: CocoNumbers
    masks: CocoNumbers | None = None
    detections: list[Detection] = field(default_factory=list, repr=False)

    @property
    def ap(self) -> float:
        """Box AP, 0..1."""
        return self.boxes["AP"]

    def row(self) -> dict[str, float]:
        """Flat dict for a table: the twelve box numbers, then "mask_AP"... when there are masks."""
        row = dict(self.boxes.values)
        if self.masks is not None:
            row |= {f"mask_{name}": value for name, value in self.masks.values.items()}
        return row


def evaluate(
    model: nn.Module | Callable[..., Any],
    dataset: DetectionDataset,
    arch: Arch | str | None = None,
    *,
    resolution: int | None = None,
    batch_size: int = 16,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    max_dets: int = 100,
    masks: bool | None = None,
    engine: str = "pycocotools",
    progress: bool | Callable[[int, int], None] = False,
) -> CocoResult:
    """COCO average precision of a network on a dataset: preprocess, model, postprocess, match.

    model     a supernet (called as model(images, arch)), or anything that maps images [B, 3, R, R] to an
              `Output`: a sub-network, an exported file (`rfdetr.load_exported`). A module runs in evaluation
              mode, and every part of it is given back as it was
    arch      the sub-network, as a value or a text; None takes the default one. R is `resolution`, else that
              of the architecture
    device    default: that of the model's parameters.   dtype: of the images, for example torch.bfloat16
    masks     also evaluate masks; default: where both sides have them
    progress  True for a bar, or a callable (done, total)

    The model's classes and the dataset's are matched by name (`rfdetr.evaluation.classes`). Raises UserError
    when it lacks one of the dataset's.
    """
    if hasattr(model, "resolve") and not (arch is None and resolution):
        arch = model.resolve(arch)
    resolution = resolution or _resolution(model, arch)
    labels = to_data_labels(model, dataset)
    device = device or _device(model)
    want_masks = dataset.has_masks if masks is None else masks
    call = (lambda x: model(x, arch)) if arch is not None and hasattr(model, "subnet") else model
    detections: list[Detection] = []
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    with evaluating(model):
        for batch in _with_progress(batches, progress):
            images, targets = collate(dataset, batch, resolution)
            output = call(images.to(device=device, dtype=dtype))
            for target, found in zip(targets, postprocess(output, [t.size for t in targets]), strict=True):
                detections.append(_pack(found, target.image_id, want_masks, labels))
    found_masks = want_masks and bool(detections) and all("rles" in found for found in detections)
    if masks and not found_masks:
        raise UserError(
            "masks were asked for, but the model has no mask head: build it with segmentation=True"
        )
    kinds = ("bbox", "segm") if found_masks else ("bbox",)
    numbers = [
        evaluate_detections(dataset, detections, kind, max_dets=max_dets, engine=engine) for kind in kinds
    ]
    return CocoResult(numbers[0], numbers[1] if found_masks else None, detections)


def evaluate_detections(
    dataset: DetectionDataset,
    detections: Sequence[Detection],
    iou_type: str = "bbox",
    *,
    max_dets: int = 100,
    engine: str = "pycocotools",
) -> CocoNumbers:
    """The twelve numbers of given detections (see `Detection`) of a dataset's images.

    iou_type: "bbox" or "segm". Images without an entry count as images without detections; an entry of an
    image that the dataset does not have is a UserError. Labels are class indexes of the dataset; detections
    of an index that stands for nothing are left out.
    """
    evaluator = run_evaluator(dataset, detections, iou_type, max_dets, engine)
    names = dataset.category_ids
    count = len(dataset.coco["images"])
    if evaluator is None:
        nothing = dict.fromkeys(METRICS, math.nan)
        note = "no ground-truth objects: AP and AR are not defined"
        return CocoNumbers(
            iou_type, nothing, dict.fromkeys(names.names, math.nan), max_dets, count, engine, note
        )
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]  # [T, R, K, A, M], [T, K, A, M]
    values = _twelve(precision, recall)
    by_name = names_of_ids(names, evaluator.params.catIds)
    per_class = {name: _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(by_name)}
    missing = [name for name in METRICS if math.isnan(values[name])]
    note = f"no ground-truth objects of the size that {', '.join(missing)} are about" if missing else ""
    return CocoNumbers(iou_type, values, per_class, max_dets, count, engine, note)


def names_of_ids(categories: CategoryMap, ids: Sequence[int]) -> list[str]:
    """Names of category ids; a name that occurs more than once is told apart by its id."""
    by_id = dict(zip(categories.ids, categories.names, strict=True))
    repeated = len(set(categories.names)) != len(categories.names)
    return [
        f"{by_id[i]} ({i})" if repeated and categories.names.count(by_id[i]) > 1 else by_id[i] for i in ids
    ]


def _twelve(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    # Axes: thresholds 0.50:0.05:0.95; recall points; categories; areas all, s, m, l; detections 1, 10,
    # max_dets.
    values = [
        _mean(precision[:, :, :, 0, 2]),
        _mean(precision[0, :, :, 0, 2]),
        _mean(precision[5, :, :, 0, 2]),
    ]
    values += [_mean(precision[:, :, :, area, 2]) for area in (1, 2, 3)]
    values += [_mean(recall[:, :, 0, limit]) for limit in (0, 1, 2)]
    values += [_mean(recall[:, :, area, 2]) for area in (1, 2, 3)]
    return dict(zip(METRICS, values, strict=True))


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _pack(found: dict[str, Any], image_id: int, masks: bool, labels: np.ndarray | None) -> Detection:
    """Detections of one image with the dataset's class indexes; those of other classes are left out."""
    packed = {key: found[key].cpu().numpy() for key in ("scores", "labels", "boxes")}
    keep = slice(None)
    if labels is not None:
        packed["labels"] = labels[packed["labels"]]
        keep = packed["labels"] != UNUSED
        packed = {key: value[keep] for key, value in packed.items()}
    packed["image_id"] = image_id
    if masks and found.get("masks") is not None:
        packed["rles"] = encode_masks(found["masks"].cpu().numpy()[keep])
    return packed


def _resolution(model: Any, arch: Arch | str | None) -> int:
    for candidate in (arch, getattr(model, "arch", None)):
        if isinstance(candidate, Arch):
            return candidate.resolution
    if isinstance(side := getattr(model, "resolution", None), int):
        return side
    raise UserError("evaluate needs a resolution: give arch=..., or resolution=... for a plain callable")


def _device(model: Any) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return parameter.device if parameter is not None else torch.device("cpu")


def _with_progress(batches: list[range], progress: bool | Callable[[int, int], None]) -> Any:
    if progress is True:
        from tqdm import tqdm

        return tqdm(batches, desc="evaluate", unit="batch")
    if not progress:
        return batches
    return _reporting(batches, progress)


def _reporting(batches: list[range], report: Callable[[int, int], None]) -> Any:
    for number, batch in enumerate(batches, start=1):
        yield batch
        report(number, len(batches))
