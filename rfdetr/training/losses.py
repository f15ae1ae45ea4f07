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
from rfdetr.training import points as mask_points
from rfdetr.training.boxes import overlaps
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
    ) -> None:
        """`points`: points per mask; None takes `points_per_mask` of the mask size."""
        self.groups = groups
        self.weights = weights or LossWeights()
        self.costs = costs or MatchCosts()
        self.points = points

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

        plan, mask_cost = None, None
        sampled: list[Tensor] = []
        if with_masks and packed.total:
            plan, sampled, mask_cost = self._prepare_masks(predictions, packed, keys, logits.dtype)
        matches = match(logits, boxes, packed, self.groups, self.costs, mask_cost)

        losses = dict(
            zip(
                ("loss_ce", "loss_bbox", "loss_giou"),
                self._box_losses(logits, boxes, packed, matches),
                strict=True,
            )
        )
        if plan is not None:
            losses["loss_mask_ce"], losses["loss_mask_dice"] = self._mask_losses(
                predictions, packed, matches, plan, sampled
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

    def _prepare_masks(
        self,
        predictions: list[Prediction],
        packed: PackedTargets,
        keys: Sequence[tuple[int, ...]] | None,
        dtype: torch.dtype,
    ) -> tuple[mask_points.PointPlan, list[Tensor], Tensor]:
        """Random points, pixel embeddings at them for each layer, and the mask part of the matching cost."""
        features = predictions[0].mask_features
        assert features is not None
        count = self.points or mask_points.points_per_mask(*features.shape[-2:])
        batch, most = packed.labels.shape
        plan = mask_points.plan_points(keys or [(i,) for i in range(batch)], count, features.device, dtype)
        sampled = [mask_points.sample_features(p, plan) for p in predictions]
        with torch.no_grad():
            images = torch.arange(batch, device=features.device)[:, None].expand(batch, most)
            objects = torch.arange(most, device=features.device)[None].expand(batch, most)
            truth = packed.sample_masks(
                images, objects, plan.points[:, None, :count].expand(-1, most, -1, -1)
            )
            costs = [
                mask_points.matching_cost(
                    s[..., :count],
                    _given(p.mask_queries, dtype),
                    _given(p.mask_bias, dtype),
                    truth,
                    self.costs.mask,
                    self.costs.dice,
                )
                for p, s in zip(predictions, sampled, strict=True)
            ]
        return plan, sampled, torch.stack(costs)

    def _mask_losses(
        self,
        predictions: list[Prediction],
        packed: PackedTargets,
        matches: Matches,
        plan: mask_points.PointPlan,
        sampled: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        entropies, dices = [], []
        size = self.groups * packed.labels.shape[1]
        for layer, (prediction, features) in enumerate(zip(predictions, sampled, strict=True)):
            part = slice(layer * matches.per_layer, (layer + 1) * matches.per_layer)
            image, query, target = matches.image[part], matches.query[part], matches.target[part]
            # Matched queries of each image side by side, padded to the image with most of them: [B, size, C].
            slot = _position_in_image(image, len(packed.counts))
            chosen = query.new_zeros(len(packed.counts), size).index_put((image, slot), query)
            queries = _given(prediction.mask_queries, features.dtype)
            queries = queries.gather(1, chosen.unsqueeze(-1).expand(-1, -1, queries.shape[-1]))
            logits = (queries @ features + _given(prediction.mask_bias, features.dtype))[image, slot]
            picked = mask_points.choose_points(logits, plan)
            truth = packed.sample_masks(image, target, plan.points[image.unsqueeze(-1), picked])
            entropy, dice = mask_points.point_losses(logits.gather(-1, picked), truth)
            entropies.append(entropy.sum())
            dices.append(dice.sum())
        return torch.stack(entropies), torch.stack(dices)


def _stack(tensors: list[Tensor]) -> Tensor:
    """[L, ...] in float32, or float64 when the predictions are."""
    stacked = torch.stack(tensors)
    return stacked if stacked.dtype == torch.float64 else stacked.float()


def _given(tensor: Tensor | None, dtype: torch.dtype) -> Tensor:
    assert tensor is not None
    return tensor.to(dtype)


def _position_in_image(image: Tensor, images: int) -> Tensor:
    """Running number of each pair inside its image; `image` is sorted."""
    first = torch.searchsorted(image, torch.arange(images, device=image.device))
    return torch.arange(len(image), device=image.device) - first[image]


def _no_masks(prediction: Prediction, dtype: torch.dtype) -> Tensor:
    """Zero that depends on the mask outputs: a batch without objects still gives every parameter a (zero)
    gradient.
    """
    parts = (prediction.mask_features, prediction.mask_queries, prediction.mask_bias)
    return torch.stack([part.flatten()[:0].to(dtype).sum() for part in parts if part is not None]).sum()
