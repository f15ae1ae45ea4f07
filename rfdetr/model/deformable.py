"""Deformable cross-attention on one feature level, written with `grid_sample`.

Source: Figure 2; Deformable DETR (Zhu et al. 2021) for the operator.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.model.linear import Linear, own_precision


class DeformableAttention(nn.Module):
    """Every query, head and point samples the map at `reference + offset / points * reference size / 2`.

    Bilinear sampling, zeros outside, align_corners off; points are weighted by a softmax. Under autocast the
    coordinates and the sampling stay in float32: bfloat16 would move points by up to 0.1 token widths.
    """

    def __init__(self, dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = Linear(dim, heads * points * 2)
        self.weights = Linear(dim, heads * points)
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)
        self._initialise()

    def _initialise(self) -> None:
        # Each head looks in its own direction, each further point a step further out.
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        with torch.no_grad():
            self.offsets.bias.copy_((direction[:, None] * steps[None, :, None]).flatten())
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor) -> Tensor:
        """query [B, Q, C], reference [B, Q, 4] cxcywh in 0..1, memory [B, n, n, C] -> [B, Q, C]."""
        batch, count, dim = query.shape
        value = self.value(memory).unflatten(-1, (self.heads, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        with own_precision(self.offsets.weight):
            offsets = self.offsets(query.to(self.offsets.weight.dtype))
        offsets = offsets.unflatten(-1, (self.heads, self.points, 2))
        weights = self.weights(query).unflatten(-1, (self.heads, self.points)).softmax(-1)
        centre, size = reference[:, :, None, None, :2], reference[:, :, None, None, 2:]
        location = centre + offsets * (size * (0.5 / self.points))
        # Points before queries: the sum over points then runs along contiguous memory.
        grid = (2 * location - 1).permute(0, 2, 3, 1, 4).flatten(0, 1)
        wider = torch.promote_types(value.dtype, grid.dtype)
        sampled = F.grid_sample(
            value.to(wider), grid.to(wider), mode="bilinear", padding_mode="zeros", align_corners=False
        )
        weights = weights.permute(0, 2, 3, 1).reshape(batch * self.heads, 1, self.points, count)
        mixed = (sampled * weights.to(sampled.dtype)).sum(2).to(value.dtype)
        return self.output(mixed.reshape(batch, dim, count).transpose(1, 2))
