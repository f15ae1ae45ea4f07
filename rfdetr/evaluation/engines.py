"""The two COCO evaluation engines behind one call, and the formats that they read."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rfdetr.data.categories import UNUSED, CategoryMap
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.model.detections import encode_masks

ENGINES = ("pycocotools", "faster")
Detection = dict[str, Any]
"""Detections of one image: image_id, scores [N], labels [N] class indexes of the dataset, boxes [N, 4] xyxy
in pixels of the original image, and for masks either `masks` bool [N, h, w] or `rles` (a list of N COCO
run-length codes)."""


def run_evaluator(
    dataset: DetectionDataset,
    detections: Sequence[Detection],
    iou_type: str,
    max_dets: int,
    engine: str = "pycocotools",
    area_ranges: int = 4,
) -> Any:
    """The engine's own evaluator after matching and accumulation; None when the ground truth has no object.

    area_ranges: 4 for all, small, medium, large; 1 for all alone.
    """
    if iou_type not in ("bbox", "segm"):
        raise UserError(f"unknown kind of evaluation {iou_type!r}: use 'bbox' or 'segm'")
    if engine not in ENGINES:
        raise UserError(f"unknown evaluation engine {engine!r}: use one of {', '.join(ENGINES)}")
    if max_dets < 10:
        raise UserError(
            f"max_dets must be at least 10 (COCO also reports recall at 1 and 10), got {max_dets}"
        )
    if iou_type == "segm" and not dataset.has_masks:
        raise UserError(f"{dataset!r} has no instance masks to evaluate against: evaluate boxes")
    truth = dataset.coco
    if not any(not annotation.get("iscrowd") for annotation in truth["annotations"]):
        return None
    results = to_coco_results(detections, dataset.category_ids, iou_type)
    known = {image["id"] for image in truth["images"]}
    strange = next((r["image_id"] for r in results if r["image_id"] not in known), None)
    if strange is not None:
        raise UserError(
            f"detections of image id {strange}, which {dataset!r} does not have: evaluate the same split"
        )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _evaluator(truth, results, iou_type, engine)
        evaluator.params.maxDets = [1, 10, max_dets]
        evaluator.params.areaRng = evaluator.params.areaRng[:area_ranges]
        evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:area_ranges]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def to_coco_results(
    detections: Sequence[Detection], categories: CategoryMap, iou_type: str = "bbox"
) -> list[dict[str, Any]]:
    """COCO's results format: one dict per detection, original category ids, boxes xywh in pixels, masks as
    RLE.
    """
    results: list[dict[str, Any]] = []
    for found in detections:
        ids = categories.ids_of(_numpy(found["labels"]))
        scores = _numpy(found["scores"]).astype(np.float64)
        boxes = _numpy(found["boxes"]).astype(np.float64).reshape(-1, 4)
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        codes = None
        if iou_type == "segm":
            codes = found["rles"] if "rles" in found else encode_masks(_numpy(found["masks"]))
        for i in np.flatnonzero(ids != UNUSED).tolist():
            result = {
                "image_id": int(found["image_id"]),
                "category_id": int(ids[i]),
                "score": float(scores[i]),
                "bbox": boxes[i].tolist(),
            }
            if codes is not None:
                result["segmentation"] = codes[i]
            results.append(result)
    return results


def _evaluator(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str, engine: str) -> Any:
    if engine == "faster":
        from faster_coco_eval import COCO, COCOeval_faster

        # Deep copies: both packages write into the annotations they are given.
        ground, found = COCO(_copy(truth)), COCO(_as_dataset(truth, results, iou_type))
        return COCOeval_faster(ground, found, iou_type, print_function=lambda *_, **__: None)
    from pycocotools.coco import COCO as PyCOCO  # noqa: N811
    from pycocotools.cocoeval import COCOeval

    ground, found = PyCOCO(), PyCOCO()
    ground.dataset, found.dataset = _copy(truth), _as_dataset(truth, results, iou_type)
    ground.createIndex()
    found.createIndex()
    return COCOeval(ground, found, iou_type)


def _copy(truth: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [dict(image) for image in truth["images"]],
        "annotations": [_complete(number, a) for number, a in enumerate(truth["annotations"], start=1)],
        "categories": [dict(category) for category in truth["categories"]],
    }


def _complete(number: int, annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation with every field that the engines read.

    Numbered anew from 1: pycocotools marks a match by the annotation's id and takes id 0, which real files
    contain, for "no match".
    """
    width, height = annotation["bbox"][2:]
    return {"iscrowd": 0, "area": width * height, **annotation, "id": number}


def _as_dataset(truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> dict[str, Any]:
    """What `COCO.loadRes` makes of results, without its case of an empty list that raises."""
    from pycocotools import mask as rle

    annotations = []
    for number, result in enumerate(results, start=1):
        area = result["bbox"][2] * result["bbox"][3]
        if iou_type == "segm":
            area = float(rle.area(result["segmentation"]))
        annotations.append({**result, "id": number, "area": area, "iscrowd": 0})
    return {**_copy({**truth, "annotations": []}), "annotations": annotations}


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
