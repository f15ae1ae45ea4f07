"""Transformer decoder whose reference boxes are the same for all layers.

Source: Figure 2 and Section 3 ("decoder layers" knob). Because references never change and the heads are
shared, layer d's output is exactly what a decoder cut to d layers would output.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.model.deformable import DeformableAttention
from rfdetr.model.linear import Linear, feed_forward, linear


class MLP(nn.Module):
    """Linear layers with ReLU between them; `sizes` are the widths from input to output.

    `zero_last`: the last layer starts at zero, so that boxes start at their anchors.
    """

    def __init__(self, *sizes: int, zero_last: bool = False) -> None:
        super().__init__()
        layers = [Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        if zero_last:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[..., sizes[0]] -> [..., sizes[-1]]."""
        for layer in self.layers[:-1]:
            x = layer(x, "relu")
        return self.layers[-1](x)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes from deltas relative to anchors, both [..., 4] cxcywh: centre = d_xy * a_wh + a_xy, size =
    exp(d_wh) * a_wh.
    """
    centre = deltas[..., :2] * anchors[..., 2:] + anchors[..., :2]
    return torch.cat([centre, deltas[..., 2:].exp() * anchors[..., 2:]], dim=-1)


def sine_embedding(boxes: Tensor, features: int) -> Tensor:
    """Sine embedding of boxes: [..., 4] cxcywh -> [..., 4 * features], blocks in the order y, x, w, h."""
    steps = torch.arange(features // 2, dtype=boxes.dtype, device=boxes.device)
    frequency = 2 * math.pi / 10000 ** (2 * steps / features)
    if boxes.is_cuda:
        # A list as an index is copied from the host, which the capture of a CUDA graph refuses.
        swapped = torch.cat([boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]], dim=-1)
    else:
        swapped = boxes[..., [1, 0, 2, 3]]
    angles = swapped[..., None] * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


class SelfAttention(nn.Module):
    """Self-attention with the position added to query and key, not to the value. [S, Q, C] -> [S, Q, C]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_bias = nn.Parameter(torch.zeros(3 * dim))
        self.output = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x, position: [S, Q, C]; every one of the S sequences attends to itself only."""
        dim = x.shape[-1]
        query, key = linear(x + position, self.in_weight[: 2 * dim], self.in_bias[: 2 * dim]).chunk(2, dim=-1)
        value = linear(x, self.in_weight[2 * dim :], self.in_bias[2 * dim :])
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        return self.output(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Post-norm layer: self-attention, deformable cross-attention, feed-forward network."""

    def __init__(self, dim: int, self_heads: int, cross_heads: int, points: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(dim, self_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attention = DeformableAttention(dim, cross_heads, points)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, ffn_dim)
        self.fc2 = Linear(ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, memory: Tensor, groups: int) -> Tensor:
        """x, position [B, G*Q, C], reference [B, G*Q, 4], memory [B, n, n, C] -> [B, G*Q, C].

        The groups see the same memory but never each other.
        """
        split = (x.shape[0] * groups, x.shape[1] // groups, x.shape[2])
        x = self.norm1(x + self.self_attention(x.reshape(split), position.reshape(split)).reshape(x.shape))
        x = self.norm2(x + self.cross_attention(x + position, reference, memory))
        return self.norm3(x + feed_forward(x, self.fc1, self.fc2, "relu"))


class Decoder(nn.Module):
    """A stack of decoder layers with one shared output norm."""

    def __init__(
        self, layers: int, dim: int, self_heads: int, cross_heads: int, points: int, ffn_dim: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, self_heads, cross_heads, points, ffn_dim) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.position = MLP(2 * dim, dim, dim)

    def forward(
        self, queries: Tensor, reference: Tensor, memory: Tensor, depth: int, groups: int
    ) -> list[Tensor]:
        """Normed output [B, G*Q, C] of each of the first `depth` layers; shapes as in `DecoderLayer`."""
        position = self.position(sine_embedding(reference, queries.shape[-1] // 2).to(queries.dtype))
        outputs = []
        for layer in self.layers[:depth]:
            queries = layer(queries, position, reference, memory, groups)
            outputs.append(self.norm(queries))
        return outputs
