"""One-to-one assignment of predictions to targets (set loss, Carion et al. 2020), for all layers and groups
at once.

The costs of every decoder layer, image and group come out of a few tensor operations and travel to the
processor in one transfer; only the assignment itself (Hungarian algorithm) runs per layer, image and group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rfdetr.training.boxes import overlaps
from rfdetr.training.ranges import Range, read_ranges
from rfdetr.training.targets import PackedTargets

# Costs beyond this are all equally hopeless; it also replaces NaN and infinity, which the assignment refuses.
WORST = 1e6


@dataclass(frozen=True)
class MatchCosts:
    """Weights of the matching cost. The mask terms count only for models with a mask head."""

    label: float = 2.0
    box: float = 5.0
    giou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        read_ranges(self, dict.fromkeys(vars(self), Range(least=0)), "costs.")
        Range(least=0, most=1).read("costs.alpha", self.alpha)


@dataclass(frozen=True)
class Matches:
    """Matched pairs, ordered by layer, then image, then group; each layer has `per_layer` of them.

    layer, image, query, target: LongTensor [layers * per_layer] on the device of the predictions. `query`
    counts through all groups (0..G*Q-1); `target` is the object's index in its image.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    per_layer: int


def label_cost(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal classification cost of every query for every target: [..., Q, K], labels [..., M] -> [..., Q, M].

    The gain from calling the class present minus that from calling it absent (Deformable DETR's matching
    cost).
    """
    wanted = logits.gather(-1, labels.unsqueeze(-2).expand(*logits.shape[:-1], labels.shape[-1]))
    p = wanted.sigmoid()
    present = alpha * (1 - p) ** gamma * F.softplus(-wanted)
    absent = (1 - alpha) * p**gamma * F.softplus(wanted)
    return present - absent


@torch.no_grad()
def pair_costs(
    logits: Tensor, boxes: Tensor, packed: PackedTargets, weights: MatchCosts, mask_cost: Tensor | None = None
) -> Tensor:
    """Cost of every query for every (padded) target: logits [L, B, N, K], boxes [L, B, N, 4] -> [L, B, N, M].

    mask_cost: [L, B, N, M], already weighted, or None. Not-a-number and infinite costs become `WORST`.
    """
    labels = packed.labels.expand(logits.shape[0], -1, -1)
    cost = weights.label * label_cost(logits, labels, weights.alpha, weights.gamma)
    targets = packed.boxes
    cost += weights.box * torch.cdist(boxes, targets.expand(logits.shape[0], -1, -1, -1), p=1)
    cost -= weights.giou * overlaps(boxes.unsqueeze(-2), targets.unsqueeze(-3))[1]
    if mask_cost is not None:
        cost += mask_cost
    return torch.nan_to_num(cost, nan=WORST, posinf=WORST, neginf=WORST).clamp_(-WORST, WORST)


def assign(costs: np.ndarray, counts: Sequence[int], groups: int) -> tuple[np.ndarray, int]:
    """Hungarian assignment of each layer, image and group on its own.

    costs [L, B, G*Q, M]; counts: objects per image. Returns int64 [4, pairs] (layer, image, query, target)
    and the number of pairs per layer. Images without objects give none; with more objects than queries every
    query is used.
    """
    layers, images, queries, _ = costs.shape
    size = queries // groups
    per_image = [groups * min(count, size) for count in counts]
    per_layer = sum(per_image)
    pairs = np.empty((4, layers * per_layer), dtype=np.int64)
    end = 0
    for layer in range(layers):
        for image in range(images):
            count = counts[image]
            if not count:
                continue
            by_group = costs[layer, image, :, :count].reshape(groups, size, count)
            pairs[:2, end : end + per_image[image]] = [[layer], [image]]
            for group in range(groups):
                rows, columns = linear_sum_assignment(by_group[group])
                start, end = end, end + len(rows)
                pairs[2, start:end] = rows + group * size
                pairs[3, start:end] = columns
    return pairs, per_layer


def match(
    logits: Tensor,
    boxes: Tensor,
    packed: PackedTargets,
    groups: int = 1,
    weights: MatchCosts | None = None,
    mask_cost: Tensor | None = None,
) -> Matches:
    """Match the predictions of L layers to the targets: logits [L, B, G*Q, K], boxes [L, B, G*Q, 4] cxcywh in
    0..1.

    Every layer and every group is matched on its own. Raises ValueError when the queries do not divide into
    groups.
    """
    if logits.shape[2] % groups:
        raise ValueError(f"{logits.shape[2]} queries do not divide into {groups} groups")
    if packed.total:
        costs = pair_costs(logits, boxes, packed, weights or MatchCosts(), mask_cost)
        pairs, per_layer = assign(costs.cpu().numpy(), packed.counts, groups)
    else:
        pairs, per_layer = np.empty((4, 0), dtype=np.int64), 0
    layer, image, query, target = torch.from_numpy(pairs).to(logits.device, non_blocking=True).unbind(0)
    return Matches(layer, image, query, target, per_layer)
