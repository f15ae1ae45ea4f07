"""Mask logits at random points, without ever forming whole masks.

Bilinear sampling is linear, so sampling a mask equals sampling the pixel embedding and taking the dot
product. Points that lie all over an image are shared by all its queries, layers and groups; which of them
count for a mask is chosen per mask by uncertainty (PointRend, Kirillov et al. 2020). That is the published
rule. An object of one percent of the image then gets one or two of 144 points, and its mask learns to be
empty; so, unless the published rule is asked for, a part of the points lies in the object's own box. All
points are a pure function of the image's key and, relative to their boxes, the same for all its objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.model.outputs import Prediction

OVERSAMPLE = 3
UNCERTAIN = 0.75
OWN = 64
"""Most points in an object's own box; half of all points where these are fewer."""
MATCHED = 8
"""Points of every object's box at which the masks of all queries are compared in the matching."""
MARGIN = 1.2
"""Side of the area that an object's own points lie in, relative to its box."""


@dataclass(frozen=True)
class PointPlan:
    """Points of a batch. count: points that a mask is trained on, apart from those in its own box.

    points: [B, 4 * count, 2] x, y in 0..1, shared by the masks of an image: first `OVERSAMPLE * count`
    candidates (the first `count` of them also serve the matching), then `count` for the part that is drawn at
    random. own: [B, M, K, 2] in the box of every object, or None under the published rule.
    """

    points: Tensor
    count: int
    own: Tensor | None = None

    @property
    def candidates(self) -> int:
        """Number of points among which the uncertain ones are looked for."""
        return OVERSAMPLE * self.count

    def matching(self) -> Tensor:
        """Points at which the masks of all queries are compared: [B, count + M * MATCHED, 2]."""
        shared = self.points[:, : self.count]
        return shared if self.own is None else torch.cat([shared, self.own[:, :, :MATCHED].flatten(1, 2)], 1)

    def matched(self, objects: int) -> int:
        """How many of `matching`'s points are those of an image with so many objects."""
        return self.count if self.own is None else self.count + objects * min(MATCHED, self.own.shape[2])


def points_per_mask(height: int, width: int) -> int:
    """Number of points of a mask of height x width logits: one in sixteen, but at least one row's worth."""
    return max(height, height * width // 16)


def plan_points(
    keys: Sequence[tuple[int, ...]],
    count: int,
    device: torch.device,
    dtype: torch.dtype,
    boxes: Tensor | None = None,
) -> PointPlan:
    """Points for one image per key, e.g. key (seed, step, slot): the same key gives the same points.

    An image keeps its points however the batch is cut into micro-batches or spread over processes.
    boxes [B, M, 4] cxcywh in 0..1: up to half of the `count` points of a mask lie in its object's box; None:
    all of them all over the image.
    """
    inside = 0 if boxes is None else min(OWN, count // 2)
    total = (OVERSAMPLE + 1) * (count - inside)
    drawn = np.stack(
        [
            np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).random((total + inside, 2))
            for key in keys
        ]
    )
    points = torch.from_numpy(drawn).to(device, dtype)
    plan = PointPlan(points[:, :total], count - inside)
    if boxes is None or not inside:
        return plan
    half = boxes[..., 2:] * (MARGIN / 2)
    low, high = (boxes[..., :2] - half).clamp(0, 1), (boxes[..., :2] + half).clamp(0, 1)
    own = low.unsqueeze(2) + points[:, None, total:] * (high - low).unsqueeze(2)
    return PointPlan(plan.points, plan.count, own)


def sample_features(prediction: Prediction, points: Tensor) -> Tensor:
    """Pixel embedding at points [B, ..., 2]: [B, C, ...], in the points' dtype."""
    features = prediction.mask_features
    assert features is not None
    grid = (2 * points - 1).flatten(1, -2).unsqueeze(1)
    sampled = F.grid_sample(
        features.to(points.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.squeeze(2).unflatten(2, points.shape[1:-1])


def matching_cost(
    sampled: Sequence[Tensor],
    queries: Tensor,
    bias: Tensor,
    truth: Sequence[Tensor],
    mask_weight: float,
    dice_weight: float,
) -> Tensor:
    """Mask cost of every query for every target: per image sampled [C, P] and truth [M, P], queries [B, N, C]
    -> [B, N, M].

    Mean binary cross-entropy and dice over the P points, weighted. Image by image, to bound memory by N * P.
    """
    costs = []
    for features, embedding, wanted in zip(sampled, queries, truth, strict=True):
        logits = embedding @ features + bias
        wanted = wanted.transpose(0, 1)
        # -log p where the mask is, -log(1-p) elsewhere; the two differ by the logit.
        entropy = (F.softplus(logits).sum(-1, keepdim=True) - logits @ wanted) / logits.shape[-1]
        p = logits.sigmoid()
        dice = 1 - (2 * (p @ wanted) + 1) / (p.sum(-1, keepdim=True) + wanted.sum(0) + 1)
        costs.append(mask_weight * entropy + dice_weight * dice)
    return torch.stack(costs)


def choose_points(logits: Tensor, plan: PointPlan) -> Tensor:
    """Indexes [..., count] into the plan's points: the most uncertain candidates, the rest random. logits
    [..., points].
    """
    uncertain = int(UNCERTAIN * plan.count)
    nearest = logits[..., : plan.candidates].detach().abs().topk(uncertain, dim=-1, largest=False).indices
    random = torch.arange(plan.candidates, plan.candidates + plan.count - uncertain, device=logits.device)
    return torch.cat([nearest, random.expand(*logits.shape[:-1], -1)], dim=-1)


def point_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (mean over points) and dice loss of each mask: [..., P] -> two tensors [...]."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + truth.sum(-1) + 1)
    return entropy, dice
