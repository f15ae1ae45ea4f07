"""Mask logits at random points, without ever forming whole masks.

Bilinear sampling is linear, so sampling a mask equals sampling the pixel embedding and taking the dot
product. The points of an image are shared by all its queries, layers and groups; which of them count for a
mask is chosen per mask by uncertainty (PointRend, Kirillov et al. 2020). The points are a pure function of
the image's key.
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


@dataclass(frozen=True)
class PointPlan:
    """Points of a batch. count: points that a mask is trained on.

    points: [B, 4 * count, 2] x, y in 0..1: first `OVERSAMPLE * count` candidates (the first `count` of them
    also serve the matching), then `count` for the part that is drawn at random.
    """

    points: Tensor
    count: int

    @property
    def candidates(self) -> int:
        """Number of points among which the uncertain ones are looked for."""
        return OVERSAMPLE * self.count


def points_per_mask(height: int, width: int) -> int:
    """Number of points of a mask of height x width logits: one in sixteen, but at least one row's worth."""
    return max(height, height * width // 16)


def plan_points(
    keys: Sequence[tuple[int, ...]], count: int, device: torch.device, dtype: torch.dtype
) -> PointPlan:
    """Uniform points for one image per key, e.g. key (seed, step, slot): the same key gives the same points.

    An image keeps its points however the batch is cut into micro-batches or spread over processes.
    """
    total = (OVERSAMPLE + 1) * count
    drawn = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).random((total, 2)) for key in keys
    ]
    return PointPlan(torch.from_numpy(np.stack(drawn)).to(device, dtype), count)


def sample_features(prediction: Prediction, plan: PointPlan) -> Tensor:
    """Pixel embedding at the plan's points: [B, C, points], in the plan's dtype."""
    features = prediction.mask_features
    assert features is not None
    grid = (2 * plan.points - 1).unsqueeze(1)
    sampled = F.grid_sample(
        features.to(plan.points.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.squeeze(2)


def matching_cost(
    sampled: Tensor, queries: Tensor, bias: Tensor, truth: Tensor, mask_weight: float, dice_weight: float
) -> Tensor:
    """Mask cost of every query for every target: sampled [B, C, P], queries [B, N, C], truth [B, M, P] -> [B,
    N, M].

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
