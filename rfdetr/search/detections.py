"""Images in, flat detection tables out: the data side of a shared-prefix evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.data.categories import UNUSED
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.transforms import preprocess_batch
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.evaluation.coco import METRICS
from rfdetr.model.outputs import Prediction
from rfdetr.model.postprocess import cxcywh_to_xyxy, finite, select
from rfdetr.search import fast_ap
from rfdetr.search.matches import Matches

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

_PICTURES = 1 << 30  # bytes of pictures kept in memory
_INPUTS = 1 << 29  # bytes of resized pictures kept for the next unit of the same resolution


class Images:
    """The pictures of a dataset, read once if they fit in memory, and their ground truth.

    label_positions: [K] position in `truth.classes` of each of the model's class indexes; -1 where it means
    nothing.
    """

    def __init__(self, dataset: DetectionDataset, model: "RFDETR", masks: bool) -> None:
        self.dataset = dataset
        self.truth = fast_ap.GroundTruth(dataset.coco)
        labels = to_data_labels(model, dataset)
        assert labels is not None  # a network knows how many classes it has
        ids = np.where(labels == UNUSED, UNUSED, dataset.category_ids.ids_of(labels.clip(min=0)))
        known = np.isin(ids, self.truth.classes) & (ids != UNUSED)
        self.label_positions = np.where(known, np.searchsorted(self.truth.classes, ids), -1)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self._pictures: dict[int, np.ndarray] = {}
        self._kept_bytes = 0
        self._inputs: dict[tuple[int, int], Tensor] = {}
        self._resolution = 0
        self.sizes: dict[int, tuple[int, int]] = {}
        self.positions: dict[int, int] = {}
        self.masks = _truth_masks(dataset, self.truth) if masks else {}

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, which: Sequence[int], resolution: int) -> Tensor:
        """Network inputs [B, 3, R, R] of the images at the given indexes, on the model's device."""
        if resolution != self._resolution:
            self._inputs, self._resolution = {}, resolution
        key = which[0], len(which)
        images = self._inputs.get(key)
        if images is None:
            images = preprocess_batch([self._picture(i) for i in which], resolution)
            if sum(kept.nbytes for kept in self._inputs.values()) + images.nbytes <= _INPUTS:
                self._inputs[key] = images
        return images.to(self.device, self.dtype)

    def _picture(self, index: int) -> np.ndarray:
        if index in self._pictures:
            return self._pictures[index]
        picture, target = self.dataset[index]
        self.sizes[index] = target.size
        self.positions[index] = int(np.searchsorted(self.truth.images, target.image_id))
        if self._kept_bytes + picture.nbytes <= _PICTURES:
            self._pictures[index] = picture
            self._kept_bytes += picture.nbytes
        return picture


class Collector:
    """Gathers the detections of `count` sub-networks and computes their COCO numbers."""

    def __init__(self, images: Images, count: int, masks: bool) -> None:
        self.images, self.count, self.masks = images, count, masks
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._overlaps: list[np.ndarray] = []
        self._mask_areas: list[np.ndarray] = []
        self._mask_rows: list[np.ndarray] = []
        self._rows = 0
        self._seen: set[int] = set()
        self._width = int(np.bincount(images.truth.image, minlength=1).max(initial=0))

    def add(
        self, network: int, positions: Sequence[int], predictions: Sequence[Prediction], queries: int
    ) -> None:
        """Detections of a batch by the sub-networks network, network + 1, ...; one prediction for each.

        The best `queries` (query, class) pairs per image, as `postprocess` takes them.
        """
        images = self.images
        sizes = [images.sizes[i] for i in positions]
        where = np.array([images.positions[i] for i in positions])
        self._seen.update(where.tolist())
        logits, boxes = finite(
            torch.cat([p.logits for p in predictions]), torch.cat([p.boxes for p in predictions])
        )
        scores, kept, labels = select(logits, queries)
        scale = torch.tensor([[w, h, w, h] for h, w in sizes], device=boxes.device, dtype=torch.float32)
        boxes = cxcywh_to_xyxy(boxes.float().gather(1, kept[..., None].expand(-1, -1, 4)))
        boxes = boxes * scale.repeat(len(predictions), 1)[:, None]
        shape = len(predictions), len(sizes), kept.shape[1]
        place = np.broadcast_to(np.arange(network, network + shape[0])[:, None, None], shape)
        label = images.label_positions[labels.cpu().numpy().ravel()]
        part = (
            place.ravel(),
            np.broadcast_to(where[None, :, None], shape).ravel(),
            label,
            scores.cpu().numpy().astype(np.float64).ravel(),
            boxes.cpu().numpy().astype(np.float64).reshape(-1, 4),
        )
        known = label >= 0
        self._parts.append(tuple(values[known] for values in part))
        if self.masks:
            chosen = kept.reshape(shape)
            found = [
                self._measure(p, i, chosen[layer, i], sizes[i], int(where[i]))
                for layer, p in enumerate(predictions)
                for i in range(len(sizes))
            ]
            rows, areas = (np.concatenate(values) for values in zip(*found, strict=True))
            self._mask_rows.append(rows[known])
            self._mask_areas.append(areas[known])

    def _measure(
        self, prediction: Prediction, image: int, queries: Tensor, size: tuple[int, int], position: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row of `overlaps` and mask area (px) of each detection of one image; as `postprocess` makes the
        masks.
        """
        features, embedded, bias = prediction.mask_features, prediction.mask_queries, prediction.mask_bias
        assert features is not None and embedded is not None and bias is not None
        unique, inverse = queries.unique(return_inverse=True)
        logits = torch.einsum("qc,chw->qhw", embedded[image, unique], features[image]) + bias
        masks = F.interpolate(logits.float()[:, None], size=size, mode="bilinear", align_corners=False) > 0
        pixels = masks.flatten(1).float()
        areas = pixels.sum(1).cpu().numpy().astype(np.float64)
        overlaps = np.zeros((len(unique), self._width))
        truth = self.images.truth
        objects = self.images.masks.get(position)
        if objects is not None:
            objects = objects.to(pixels.device)
            # Counts of pixels are whole numbers, exact in float32 below 2^24.
            common = (pixels @ objects.T).cpu().numpy().astype(np.float64)
            object_areas = objects.sum(1).cpu().numpy().astype(np.float64)
            first = truth.first[position * len(truth.classes)]
            crowd = truth.crowd[first : first + len(objects)]
            union = np.where(crowd, areas[:, None], areas[:, None] + object_areas - common)
            np.divide(common, union, out=overlaps[:, : len(objects)], where=common > 0)
        self._overlaps.append(overlaps)
        self._rows += len(unique)
        index = inverse.cpu().numpy()
        return self._rows - len(unique) + index, areas[index]

    def numbers(self) -> list[dict[str, float]]:
        """COCO numbers of every sub-network: the twelve for boxes, then "mask_..." if masks were
        collected.
        """
        rows: list[dict[str, float]] = [{} for _ in range(self.count)]
        for prefix, table in self._tables().items():
            for row, values in zip(rows, fast_ap.evaluate(self.images.truth, table).tolist(), strict=True):
                row |= {prefix + name: value for name, value in zip(METRICS, values, strict=True)}
        return rows

    def matches(self) -> dict[str, Matches]:
        """The matched detections of boxes ("") and, if masks were collected, of masks ("mask_")."""
        looked_at = np.array(sorted(self._seen), dtype=np.int64)
        tables = self._tables().items()
        return {prefix: fast_ap.match(self.images.truth, table, looked_at) for prefix, table in tables}

    def _tables(self) -> dict[str, fast_ap.DetectionTable]:
        network, image, label, score, boxes = (
            np.concatenate(parts) for parts in zip(*self._parts, strict=True)
        )
        # The format of boxes in COCO files: left, top, width, height.
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        area, common = boxes[:, 2] * boxes[:, 3], (self.count, network, image, label, score)
        tables = {"": fast_ap.DetectionTable(*common, area, boxes=boxes)}
        if self.masks:
            areas, rows, overlaps = map(np.concatenate, (self._mask_areas, self._mask_rows, self._overlaps))
            tables["mask_"] = fast_ap.DetectionTable(*common, areas, rows=rows, overlaps=overlaps)
        return tables


def _truth_masks(dataset: DetectionDataset, truth: fast_ap.GroundTruth) -> dict[int, Tensor]:
    """Image position -> masks of its objects as float [M, pixels], in the order of `truth`."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dataset.coco
    coco.imgs = {image["id"]: image for image in dataset.coco["images"]}
    annotations = dataset.coco["annotations"]
    masks = {}
    for position in np.unique(truth.image).tolist():
        kept = truth.source[truth.image == position]
        stack = np.stack([coco.annToMask(annotations[i]) for i in kept])
        masks[position] = torch.from_numpy(stack.reshape(len(kept), -1)).float()
    return masks
