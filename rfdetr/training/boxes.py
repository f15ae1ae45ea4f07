"""Overlap of boxes, batched. Boxes are cxcywh; any common unit."""

import torch
from torch import Tensor


def corners(boxes: Tensor) -> Tensor:
    """cxcywh [..., 4] -> x0, y0, x1, y1 [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of broadcast boxes [..., 4] cxcywh.

    Add a dimension to compare all with all: `overlaps(a[:, None], b[None])`. Boxes without area have IoU 0.
    """
    tiny = torch.finfo(a.dtype).tiny
    a, b = corners(a), corners(b)
    area = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = size[..., 0] * size[..., 1]
    union = area - intersection
    iou = intersection / union.clamp(min=tiny)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    hull_area = hull[..., 0] * hull[..., 1]
    return iou, iou - (hull_area - union) / hull_area.clamp(min=tiny)
