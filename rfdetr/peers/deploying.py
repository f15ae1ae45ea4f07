"""What is deployed of a peer: branches merged, heads that nothing reads removed. Outputs do not change.

transformers keeps RepVGG blocks as two branches, and runs D-FINE's encoder box head on all tokens where the
authors run it on the selected ones; published counts and latencies are of the deployed network.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfdetr.peers import libre
from rfdetr.peers.catalogue import is_libre, is_yolo

if TYPE_CHECKING:
    from collections.abc import Iterator


def deploy(entry: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """Change a network of `building.build` into the deployed one, in place; returns it."""
    if is_yolo(entry):
        return model.fuse(verbose=False)  # type: ignore[operator]
    if is_libre(entry):
        return libre.deployed(model)
    merge_branches(model)
    if entry["name"] == "D-FINE":
        whole: Any = model
        inner = whole.model
        head = SelectedOnly(inner.enc_score_head, inner.enc_bbox_head, whole.config.num_queries)
        inner.enc_score_head, inner.enc_bbox_head = head.scores, head
        _drop_unread_heads(model)
    return model


def merge_branches(model: nn.Module) -> int:
    """Replace every pair of a 3 x 3 and a 1 x 1 branch that are added by one 3 x 3 convolution; returns how
    many.
    """
    count = 0
    block: Any
    for block in model.modules():
        # LW-DETR's blocks of that name are two 3 x 3 convolutions one after the other.
        if not type(block).__name__.endswith("RepVggBlock") or isinstance(block.conv2, _Nothing):
            continue
        if block.conv2.conv.kernel_size == (1, 1):
            large, small = _fused(block.conv1), _fused(block.conv2)
            with torch.no_grad():
                large.weight += nn.functional.pad(small.weight, [1, 1, 1, 1])
                large.bias += small.bias  # type: ignore[operator]
            block.conv1, block.conv2 = large, _Nothing()
            count += 1
    return count


class _Nothing(nn.Module):
    """A branch that has been merged into the other."""

    def forward(self, x: Tensor) -> float:
        """Zero."""
        return 0.0


def _fused(layer: Any) -> nn.Conv2d:
    """A convolution with its batch normalisation (frozen or not) as one convolution."""
    conv, norm = layer.conv, layer.norm
    made = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    )
    with torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + getattr(norm, "eps", 1e-5))
        made.weight.copy_(conv.weight * scale[:, None, None, None])
        made.bias.copy_(norm.bias - norm.running_mean * scale)  # type: ignore[union-attr]
    return made.eval().to(conv.weight.device)


class SelectedOnly(nn.Module):
    """D-FINE's encoder box head, run on the tokens that will be selected; zeros for the others.

    The network asks for the scores of all tokens first, then for the boxes of all tokens, and then selects
    the best scores' boxes: so the selection is made when the scores are asked for.
    """

    def __init__(self, scores: nn.Module, boxes: nn.Module, queries: int) -> None:
        super().__init__()
        self.boxes, self.scores = boxes, _Scores(scores, queries)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, N, D] -> boxes [B, N, 4], right where the network will look."""
        index = self.scores.index[..., None]
        found = self.boxes(tokens.gather(1, index.expand(-1, -1, tokens.shape[-1])))
        empty = tokens.new_zeros(tokens.shape[0], tokens.shape[1], 4)
        return empty.scatter(1, index.expand(-1, -1, 4), found)


class _Scores(nn.Module):
    """A score head that remembers which tokens score best."""

    def __init__(self, head: nn.Module, queries: int) -> None:
        super().__init__()
        self.head, self.queries = head, queries
        self.index: Tensor = torch.empty(0)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, N, D] -> logits [B, N, K]."""
        logits = self.head(tokens)
        self.index = logits.max(-1).values.topk(self.queries, dim=1).indices
        return logits


def _drop_unread_heads(model: Any) -> None:
    """Class heads and quality estimators of all decoder layers but the last one that is read."""
    decoder = model.model.decoder
    for layers in _unread_lists(model, decoder):
        for index in range(decoder.eval_idx):
            layers[index] = nn.Identity()


def _unread_lists(model: Any, decoder: Any) -> "Iterator[nn.ModuleList]":
    seen = set()
    for layers in (model.class_embed, decoder.class_embed, decoder.lqe_layers):
        if id(layers) not in seen:
            seen.add(id(layers))
            yield layers
