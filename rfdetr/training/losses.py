"""Losses of every decoder layer and of the encoder's proposals, all layers in one pass.

Source: Appendix A of the paper and the public configuration: IoU-aware binary cross-entropy, L1, generalised
IoU, and for masks binary cross-entropy and dice on sampled points. Every layer and every group is matched on
its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.data.dataset import Target
from rfdetr.model.outputs import Output, Prediction
from rfdetr.training.boxes import overlaps
from rfdetr.training.masks import MaskLosses
from rfdetr.training.matcher import MatchCosts, Matches, match
from rfdetr.training.ranges import Range, read_ranges
from rfdetr.training.targets import PackedTargets, pack_targets


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in the total. label_with_masks replaces label for models with a mask head."""

    label: float = 1.0
    label_with_masks: float = 5.0
    box: float = 5.0
    giou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0

    def __post_init__(self) -> None:
        read_ranges(self, dict.fromkeys(vars(self), Range(least=0)), "weights.")


def label_losses(logits: Tensor, iou: Tensor, matches: Matches, labels: Tensor) -> Tensor:
    """IoU-aware binary cross-entropy, summed per layer: logits [L, B, N, K], iou [pairs] of the matched boxes
    -> [L].

    A matched query's class is taught t = p^0.25 * iou^0.75 (at least 0.01, no gradient); everything else is a
    negative weighted by p^2. labels [pairs] are the class indexes of the matched targets.
    """
    p = logits.sigmoid()
    per_layer = (p.square() * F.softplus(logits)).flatten(1).sum(1)
    if not matches.per_layer:
        return per_layer
    x = logits[matches.layer, matches.image, matches.query, labels]
    matched = x.sigmoid()
    t = (matched.detach() ** 0.25 * iou.detach().clamp(min=0) ** 0.75).clamp(min=0.01)
    instead = t * F.softplus(-x) + (1 - t) * F.softplus(x) - matched.square() * F.softplus(x)
    return per_layer + instead.view(-1, matches.per_layer).sum(1)


class Criterion:
    """Matching and losses of a forward pass in training mode.

    groups: groups of queries in the output. Computed in float32 (float64 for float64 predictions) whatever
    the precision of the model; call it outside autocast.
    """

    def __init__(
        self,
        groups: int,
        weights: LossWeights | None = None,
        costs: MatchCosts | None = None,
        points: int | None = None,
        mask_sampling: str = "boxes",
    ) -> None:
        """`points`: points per mask; None takes `points_per_mask` of the mask size. mask_sampling: "boxes"
        or, as published, "uniform" (`rfdetr.training.points`).
        """
        self.groups = groups
        self.weights = weights or LossWeights()
        self.costs = costs or MatchCosts()
        self.masks = MaskLosses(groups, self.costs, points, own=mask_sampling == "boxes")

    def __call__(
        self,
        output: Output,
        targets: Sequence[Target],
        normaliser: float | Tensor | None = None,
        keys: Sequence[tuple[int, ...]] | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name: `loss_ce`, `loss_bbox`, `loss_giou` (`loss_mask_ce`, `loss_mask_dice`) and `total`.

        The last decoder layer has bare names, earlier ones end in `_0`, `_1`, ..., the encoder's in `_enc`;
        each is divided by `normaliser`, by default max(1, objects in `targets` * groups). `total` is their
        weighted sum.
        keys: one per image, the source of its random mask points (default: position in the batch).
        """
        predictions = [*output.layers, output.encoder]
        with_masks = output.encoder.mask_features is not None
        logits = _stack([p.logits for p in predictions])
        boxes = _stack([p.boxes for p in predictions])
        packed = pack_targets(targets, logits.device, logits.dtype, masks=with_masks)
        if normaliser is None:
            normaliser = max(1, packed.total * self.groups)

        sampled, mask_cost = None, None
        if with_masks and packed.total:
            sampled = self.masks.sample(predictions, packed, keys, logits.dtype)
            mask_cost = self.masks.cost(predictions, packed, sampled)
        matches = match(logits, boxes, packed, self.groups, self.costs, mask_cost)

        losses = dict(
            zip(
                ("loss_ce", "loss_bbox", "loss_giou"),
                self._box_losses(logits, boxes, packed, matches),
                strict=True,
            )
        )
        if sampled is not None:
            losses["loss_mask_ce"], losses["loss_mask_dice"] = self.masks.losses(
                predictions, packed, matches, sampled
            )
        elif with_masks:
            nothing = torch.stack([_no_masks(p, logits.dtype) for p in predictions])
            losses["loss_mask_ce"], losses["loss_mask_dice"] = nothing, nothing
        weights = self.weights_by_name(with_masks)
        table = torch.stack(list(losses.values())) / normaliser
        total = (
            table * torch.tensor([[weights[n]] for n in losses], dtype=table.dtype, device=table.device)
        ).sum()
        rows = table.unbind(0)
        suffixes = [*(f"_{i}" for i in range(len(predictions) - 2)), "", "_enc"][-len(predictions) :]
        named = {
            n + s: value
            for n, row in zip(losses, rows, strict=True)
            for s, value in zip(suffixes, row.unbind(0), strict=True)
        }
        return {**named, "total": total}

    def weights_by_name(self, with_masks: bool) -> dict[str, float]:
        """Weight of each loss in the total, the same for all layers."""
        w = self.weights
        label = w.label_with_masks if with_masks else w.label
        return {
            "loss_ce": label,
            "loss_bbox": w.box,
            "loss_giou": w.giou,
            "loss_mask_ce": w.mask,
            "loss_mask_dice": w.dice,
        }

    def _box_losses(
        self, logits: Tensor, boxes: Tensor, packed: PackedTargets, matches: Matches
    ) -> tuple[Tensor, Tensor, Tensor]:
        predicted = boxes[matches.layer, matches.image, matches.query]
        wanted = packed.boxes[matches.image, matches.target]
        iou, giou = overlaps(predicted, wanted)
        labels = packed.labels[matches.image, matches.target]
        ce = label_losses(logits, iou, matches, labels)
        shape = (logits.shape[0], matches.per_layer)
        l1 = (predicted - wanted).abs().sum(-1).view(shape).sum(1)
        return ce, l1, (1 - giou).view(shape).sum(1)


def _stack(tensors: list[Tensor]) -> Tensor:
    """[L, ...] in float32, or float64 when the predictions are."""
    stacked = torch.stack(tensors)
    return stacked if stacked.dtype == torch.float64 else stacked.float()


def _no_masks(prediction: Prediction, dtype: torch.dtype) -> Tensor:
    """Zero that depends on the mask outputs: a batch without objects still gives every parameter a (zero)
    gradient.
    """
    parts = (prediction.mask_features, prediction.mask_queries, prediction.mask_bias)
    return torch.stack([part.flatten()[:0].to(dtype).sum() for part in parts if part is not None]).sum()
