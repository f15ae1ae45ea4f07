"""Two-stage query selection: the encoder's own proposals become reference boxes of the decoder.

Source: Section 3, Figure 2 and Appendix B (queries are ranked by the class score of their token). G groups of
queries are selected independently in training (Group DETR); only group 0 is used at inference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfdetr.model.decoder import decode_boxes
from rfdetr.model.linear import linear, takes_onednn

PROPOSAL_SIZE = 0.05  # side of a token's proposal, in 0..1
VALID_RANGE = (0.01, 0.99)  # a proposal with any coordinate outside is not used


def grid_proposals(grid: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Proposals [n*n, 4] cxcywh of all tokens, zero where unusable, and the [n*n, 1] mask of usable
    tokens.
    """
    centre = (torch.arange(grid, dtype=dtype, device=device) + 0.5) / grid
    rows, columns = torch.meshgrid(centre, centre, indexing="ij")
    size = torch.full_like(rows, PROPOSAL_SIZE)
    proposals = torch.stack([columns, rows, size, size], dim=-1).reshape(-1, 4)
    low, high = VALID_RANGE
    usable = ((proposals > low) & (proposals < high)).all(dim=-1, keepdim=True)
    return proposals * usable, usable


class GroupLinear(nn.Module):
    """One linear layer per group. [G, T, in] -> [G, T, out]; uses as many groups as the input has."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(groups, outputs))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply group g's layer to x[g]."""
        groups = x.shape[0]
        if groups == 1:
            return linear(x, self.weight[0], self.bias[0])
        if takes_onednn(x[0], self.weight[0]):
            parts = zip(x, self.weight[:groups], self.bias[:groups], strict=True)
            return torch.stack([linear(*part) for part in parts])
        return torch.baddbmm(self.bias[:groups, None], x, self.weight[:groups].transpose(1, 2))

    def same_for_all(self, x: Tensor, groups: int) -> Tensor:
        """Apply the layers of the first groups to the same input: [1, T, in] -> [G, T, out]."""
        if groups == 1:
            return linear(x, self.weight[0], self.bias[0])
        weight, bias = self.weight[:groups].flatten(0, 1), self.bias[:groups].flatten()
        return linear(x[0], weight, bias).unflatten(-1, (groups, -1)).transpose(0, 1)


class GroupNorm(nn.Module):
    """LayerNorm (eps 1e-5) with one scale and shift per group. [G, T, C] -> [G, T, C]."""

    def __init__(self, groups: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, dim))
        self.bias = nn.Parameter(torch.zeros(groups, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension, then apply group g's scale and shift."""
        groups = x.shape[0]
        if groups == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight[0], self.bias[0])
        return F.layer_norm(x, x.shape[-1:]) * self.weight[:groups, None] + self.bias[:groups, None]


class QuerySelection(nn.Module):
    """Scores all tokens, keeps the best Q per group, predicts their boxes and builds the decoder's
    queries.
    """

    def __init__(self, dim: int, num_classes: int, queries: int, groups: int) -> None:
        super().__init__()
        self.projection = GroupLinear(groups, dim, dim)
        self.norm = GroupNorm(groups, dim)
        self.classes = GroupLinear(groups, dim, num_classes)
        last = GroupLinear(groups, dim, 4)
        nn.init.zeros_(last.weight)
        self.boxes = nn.ModuleList([GroupLinear(groups, dim, dim), GroupLinear(groups, dim, dim), last])

    def forward(self, memory: Tensor, queries: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """Memory [B, n, n, C] -> features [B, G*Q, C], logits [B, G*Q, K], boxes [B, G*Q, 4] of the kept
        tokens.

        Q is at most `queries` (fewer when the grid has fewer tokens); ranks are in order of decreasing score.
        """
        batch, grid, _, dim = memory.shape
        # In the weights' precision: under autocast the memory may be bfloat16, too coarse for coordinates.
        proposals, usable = grid_proposals(grid, self.projection.weight.dtype, memory.device)
        tokens = memory.reshape(batch, -1, dim) * usable
        x = self.norm(self.projection.same_for_all(tokens.reshape(1, -1, dim), groups))
        logits = self.classes(x).unflatten(1, (batch, -1))
        kept = logits.amax(-1).topk(min(queries, grid * grid), dim=-1).indices
        x = _take(x.unflatten(1, (batch, -1)), kept)
        deltas = x.flatten(1, 2)
        for layer in self.boxes[:-1]:
            deltas = F.relu(layer(deltas))
        deltas = self.boxes[-1](deltas).unflatten(1, (batch, -1))
        boxes = decode_boxes(deltas.to(proposals.dtype), proposals[kept])
        return _groups_last(x), _groups_last(_take(logits, kept)), _groups_last(boxes)


def _take(x: Tensor, kept: Tensor) -> Tensor:
    """x [G, B, T, D], kept [G, B, Q] -> [G, B, Q, D]."""
    return x.gather(2, kept.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1]))


def _groups_last(x: Tensor) -> Tensor:
    """[G, B, Q, D] -> [B, G*Q, D], group after group."""
    return x.transpose(0, 1).flatten(1, 2)
