"""Windowed DINOv2 vision transformer whose patch size, resolution and windows are chosen at each call.

Source: Section 3, Appendix A and Appendix L of the paper. Block indexes count from 0; feature indexes are
stage numbers, "after block i", and count from 1. A block is global exactly when its 0-based index is in the
list of feature indexes (so [3, 6, 9, 12] makes blocks 3, 6 and 9 global); every other block attends inside
windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.arch import Arch
from rfdetr.model.flex import merge_windows, partition_windows, resize_kernel, resize_positions
from rfdetr.model.linear import Linear, feed_forward, linear, scaled


class Attention(nn.Module):
    """Multi-head self-attention of [S, T, C] sequences with one fused projection for query, key and value."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """[S, T, C] -> [S, T, C], every channel multiplied by scale [C]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return linear(mixed.transpose(1, 2).flatten(2), *scaled(self.proj, scale))


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale on both residual branches."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, layer_scale: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.scale1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self.scale2 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor, merge: int = 1) -> Tensor:
        """[S, T, C] -> [S, T, C]. `merge` sequences attend together: 1 for windowed, windows^2 for global
        blocks.

        Only the attention sees the merged sequence; norms, MLP and residual act on single tokens.
        """
        normed = self.norm1(x)
        merged = normed.reshape(x.shape[0] // merge, -1, x.shape[2])
        x = x + self.attention(merged, self.scale1).reshape(x.shape)
        return x + feed_forward(self.norm2(x), self.fc1, self.fc2, "gelu", self.scale2)


class Backbone(nn.Module):
    """ViT with one stored patch kernel and one stored position grid that serve every sub-network.

    embed_dim, depth, heads, mlp_ratio: of the transformer. feature_layers: 1-based stages whose output is
    returned.
    base_patch: side of the stored kernel in px. position_grid: side of the stored position grid in tokens.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        heads: int,
        feature_layers: tuple[int, ...],
        base_patch: int,
        position_grid: int,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.feature_layers = feature_layers
        self.patch_kernel = nn.Parameter(torch.empty(embed_dim, 3, base_patch, base_patch))
        self.patch_bias = nn.Parameter(torch.zeros(embed_dim))
        self.class_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.positions = nn.Parameter(torch.empty(1, 1 + position_grid**2, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, heads, mlp_ratio, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.trunc_normal_(self.patch_kernel, std=self.patch_kernel[0].numel() ** -0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # Scales with the width, so that narrow networks learn from scratch too.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def is_global(self, block: int) -> bool:
        """Whether the 0-based block attends over the whole image."""
        return block in self.feature_layers

    def embed(self, images: Tensor, arch: Arch) -> Tensor:
        """[B, 3, R, R] -> [B * windows^2, 1 + (n/windows)^2, C]: every window starts with its own class
        token.
        """
        kernel = resize_kernel(self.patch_kernel, arch.patch_size)
        positions = resize_positions(self.positions, arch.grid)
        patches = F.conv2d(images, kernel, self.patch_bias, stride=arch.patch_size).permute(0, 2, 3, 1)
        patches = patches + positions[:, 1:].unflatten(1, (arch.grid, arch.grid))
        sequences = partition_windows(patches, arch.windows)
        class_token = (self.class_token + positions[:, :1]).expand(sequences.shape[0], -1, -1)
        return torch.cat([class_token, sequences], dim=1)

    def forward(self, images: Tensor, arch: Arch) -> list[Tensor]:
        """[B, 3, R, R] -> one [B, n, n, C] map per feature layer, through the one shared final LayerNorm."""
        tokens = self.embed(images, arch)
        maps = []
        for index, block in enumerate(self.blocks[: max(self.feature_layers)]):
            tokens = block(tokens, merge=arch.windows**2 if self.is_global(index) else 1)
            if index + 1 in self.feature_layers:
                maps.append(merge_windows(self.norm(tokens[:, 1:]), arch.windows, arch.grid, arch.grid))
        return maps
