"""Overlap of boxes, batched. Boxes are cxcywh; any common unit."""

import torch
from torch import Tensor

from rfdetr.model.postprocess import cxcywh_to_xyxy


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of broadcast boxes [..., 4] cxcywh.

    Add a dimension to compare all with all: `overlaps(a[:, None], b[None])`. Boxes without area have IoU 0.
    """
    tiny = torch.finfo(a.dtype).tiny
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    area = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = size[..., 0] * size[..., 1]
    union = area - intersection
    iou = intersection / union.clamp(min=tiny)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    hull_area = hull[..., 0] * hull[..., 1]
    return iou, iou - (hull_area - union) / hull_area.clamp(min=tiny)
