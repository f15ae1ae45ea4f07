"""The objects of a batch as padded tensors: one transfer to the device, no loop over images afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rfdetr.data.dataset import Target


@dataclass(frozen=True)
class PackedTargets:
    """Objects of B images, padded to M = the largest number of objects in one image (at least 1).

    counts: list of B object counts. labels [B, M] class indexes (0 where padded). boxes [B, M, 4] cxcywh in
    0..1 (a box that covers the image where padded, so that no division by zero arises). masks: all instance
    masks flattened one after the other, bool [total pixels], or None; offsets, heights, widths [B, M] say
    where each lies.
    """

    counts: tuple[int, ...]
    labels: Tensor
    boxes: Tensor
    masks: Tensor | None = None
    offsets: Tensor | None = None
    heights: Tensor | None = None
    widths: Tensor | None = None

    @property
    def total(self) -> int:
        """Number of objects in the batch."""
        return sum(self.counts)

    def sample_masks(self, images: Tensor, objects: Tensor, points: Tensor) -> Tensor:
        """Masks at points (nearest pixel). images, objects [...] pick masks, points [..., P, 2] are x, y in
        0..1.

        Returns float [..., P] of 0 and 1. Raises ValueError when the targets carry no masks.
        """
        if self.masks is None or self.offsets is None or self.heights is None or self.widths is None:
            raise ValueError("these targets have no masks")
        height = self.heights[images, objects].unsqueeze(-1)
        width = self.widths[images, objects].unsqueeze(-1)
        column = (points[..., 0] * width).long().clamp(min=0).minimum(width - 1)
        row = (points[..., 1] * height).long().clamp(min=0).minimum(height - 1)
        return self.masks[self.offsets[images, objects].unsqueeze(-1) + row * width + column].to(points.dtype)


def pack_targets(
    targets: Sequence[Target], device: torch.device, dtype: torch.dtype, masks: bool = False
) -> PackedTargets:
    """Pad the targets of a batch. With `masks`, every image with objects must carry instance masks.

    Raises ValueError when masks are wanted and an image has none, naming the image.
    """
    counts = tuple(len(target.labels) for target in targets)
    most = max(1, *counts) if counts else 1
    labels = torch.zeros(len(targets), most, dtype=torch.long)
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=dtype).repeat(len(targets), most, 1)
    for index, (target, count) in enumerate(zip(targets, counts, strict=True)):
        labels[index, :count] = target.labels
        boxes[index, :count] = target.boxes.to(dtype)
    packed = PackedTargets(counts, labels.to(device, non_blocking=True), boxes.to(device, non_blocking=True))
    return _with_masks(packed, targets, most, device) if masks else packed


def _with_masks(
    packed: PackedTargets, targets: Sequence[Target], most: int, device: torch.device
) -> PackedTargets:
    # The last mask pixel is a spare one for padded objects: offset there, size 1 x 1, value 0.
    pieces, start = [], 0
    offsets = torch.zeros(len(targets), most, dtype=torch.long)
    heights, widths = torch.ones_like(offsets), torch.ones_like(offsets)
    for index, target in enumerate(targets):
        count = len(target.labels)
        if not count:
            continue
        if target.masks is None:
            raise ValueError(
                f"image {target.image_id} has {count} objects but no masks: a mask head needs them"
            )
        height, width = target.masks.shape[-2:]
        heights[index, :count], widths[index, :count] = height, width
        offsets[index, :count] = start + torch.arange(count) * height * width
        pieces.append(target.masks.reshape(-1))
        start += pieces[-1].numel()
    for index, count in enumerate(packed.counts):
        offsets[index, count:] = start
    flat = torch.cat([*pieces, torch.zeros(1, dtype=torch.bool)]).to(torch.bool)
    return PackedTargets(
        packed.counts,
        packed.labels,
        packed.boxes,
        flat.to(device, non_blocking=True),
        offsets.to(device, non_blocking=True),
        heights.to(device, non_blocking=True),
        widths.to(device, non_blocking=True),
    )
