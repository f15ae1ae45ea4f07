"""Projector: the chosen feature maps of the backbone become one map at the patch stride (level "P4").

Source: Section 3 (layer norm instead of batch norm, which makes gradient accumulation exact) and Figure 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.model.linear import linear, takes_onednn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a [B, C, h, w] map."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], stored channels last so that both permutations are free."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, channel LayerNorm, SiLU. [B, C_in, h, w] -> [B, C_out, h, w]."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(outputs, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, normalisation and activation."""
        return F.silu(self.norm(self._convolve(x)))

    def _convolve(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        # A 1x1 convolution is a product, and torch gives convolutions to oneDNN only with several threads.
        if self.conv.kernel_size == (1, 1) and takes_onednn(tokens, self.conv.weight):
            return linear(tokens, self.conv.weight.flatten(1)).permute(0, 3, 1, 2)
        return self.conv(x)


class Projector(nn.Module):
    """C2f block over the concatenated maps: [B, inputs, n, n] -> [B, outputs, n, n].

    1x1 convolution to two halves; three bottlenecks of two 3x3 convolutions, each fed by the one before; all
    halves concatenated and mixed by a 1x1 convolution; a closing channel LayerNorm.
    """

    def __init__(self, inputs: int, outputs: int, bottlenecks: int = 3) -> None:
        super().__init__()
        half = outputs // 2
        self.split = ConvNorm(inputs, 2 * half, 1)
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(ConvNorm(half, half, 3), ConvNorm(half, half, 3)) for _ in range(bottlenecks)
        )
        self.mix = ConvNorm((2 + bottlenecks) * half, outputs, 1)
        self.norm = ChannelNorm(outputs, eps=1e-6)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """List of [B, n, n, C] maps (channels last) -> [B, outputs, n, n]."""
        halves = list(self.split(torch.cat(maps, dim=-1).permute(0, 3, 1, 2)).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            halves.append(bottleneck(halves[-1]))
        return self.norm(self.mix(torch.cat(halves, dim=1)))
