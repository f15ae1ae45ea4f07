"""Mask head: pixel embeddings at a quarter of the input resolution, dotted with query embeddings.

Source: Section 3 and Figure 2. Block d serves decoder layer d and is fed by block d-1, so cutting the decoder
cuts the head too. The encoder's predictions use the resized map itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.model.linear import Linear
from rfdetr.model.outputs import Prediction


class MaskBlock(nn.Module):
    """3x3 depth-wise convolution, channel LayerNorm, 1x1 linear, GELU, residual. [B, C, h, w] -> [B, C, h,
    w].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pointwise = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """One refinement step of the map."""
        mixed = self.pointwise(self.norm(self.depthwise(x).permute(0, 2, 3, 1)), "gelu")
        return x + mixed.permute(0, 3, 1, 2)


class MaskHead(nn.Module):
    """Mask embeddings of every decoder layer and of the encoder's proposals."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MaskBlock(dim) for _ in range(layers))
        self.pixel = nn.Conv2d(dim, dim, 1) if layers else None
        self.norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)
        self.query = Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(1))

    def resize(self, memory: Tensor, resolution: int) -> Tensor:
        """Projector map [B, C, n, n] -> [B, C, R/4, R/4], bilinear, align_corners off."""
        side = resolution // 4
        return F.interpolate(memory, size=(side, side), mode="bilinear", align_corners=False)

    def embed_queries(self, x: Tensor) -> Tensor:
        """Query embedding: [B, Q, C] -> [B, Q, C]."""
        return self.query(x + self.fc2(self.fc1(self.norm(x), "gelu")))

    def embed_pixels(self, features: Tensor) -> Tensor:
        """Pixel embedding of a block's output: [B, C, h, w] -> [B, C, h, w]."""
        return features if self.pixel is None else self.pixel(features)

    def add_masks(self, prediction: Prediction, features: Tensor, queries: Tensor) -> None:
        """Attach masks to a prediction: features [B, C, h, w], queries [B, Q, C] as the decoder gives
        them.
        """
        prediction.mask_features = features
        prediction.mask_queries = self.embed_queries(queries)
        # Masks are computed when asked for, maybe outside the caller's no_grad block.
        prediction.mask_bias = self.bias if torch.is_grad_enabled() else self.bias.detach()
