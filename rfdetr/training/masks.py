"""Losses of masks and their part of the matching cost, on sampled points (`rfdetr.training.points`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rfdetr.model.outputs import Prediction
from rfdetr.training import points
from rfdetr.training.matcher import MatchCosts, Matches
from rfdetr.training.targets import PackedTargets


@dataclass(frozen=True)
class Sampled:
    """Points of a batch and, for every layer, the pixel embedding at them: shared [B, C, P]; own
    [B, C, M, K], an empty list without own points.
    """

    plan: points.PointPlan
    shared: list[Tensor]
    own: list[Tensor]


class MaskLosses:
    """What masks add to the criterion of a network with `groups` query groups.

    count: points per mask; None takes `points_per_mask` of the mask size. own: whether a part of them lies in
    the object's own box.
    """

    def __init__(self, groups: int, costs: MatchCosts, count: int | None, own: bool) -> None:
        self.groups, self.costs, self.count, self.own = groups, costs, count, own

    def sample(
        self,
        predictions: list[Prediction],
        packed: PackedTargets,
        keys: Sequence[tuple[int, ...]] | None,
        dtype: torch.dtype,
    ) -> Sampled:
        """Points of every image, and every layer's pixel embedding there."""
        features = predictions[0].mask_features
        assert features is not None
        count = self.count or points.points_per_mask(*features.shape[-2:])
        keys = keys or [(i,) for i in range(len(packed.counts))]
        boxes = packed.boxes if self.own else None
        plan = points.plan_points(keys, count, features.device, dtype, boxes)
        shared = [points.sample_features(p, plan.points) for p in predictions]
        own = [] if plan.own is None else [points.sample_features(p, plan.own) for p in predictions]
        return Sampled(plan, shared, own)

    @torch.no_grad()
    def cost(self, predictions: list[Prediction], packed: PackedTargets, sampled: Sampled) -> Tensor:
        """Mask part of the matching cost: [L, B, N, M]."""
        plan = sampled.plan
        batch, most = packed.labels.shape
        where = plan.matching()
        images = torch.arange(batch, device=where.device)[:, None].expand(batch, most)
        objects = torch.arange(most, device=where.device)[None].expand(batch, most)
        truth = packed.sample_masks(images, objects, where[:, None].expand(-1, most, -1, -1))
        # Only an image's own points: those of padded objects depend on the other images of the batch.
        ends = [plan.matched(count) for count in packed.counts]
        costs = []
        for layer, prediction in enumerate(predictions):
            features = sampled.shared[layer][..., : plan.count]
            if sampled.own:
                features = torch.cat([features, sampled.own[layer][..., : points.MATCHED].flatten(2)], -1)
            costs.append(
                points.matching_cost(
                    [part[:, :end] for part, end in zip(features, ends, strict=True)],
                    _given(prediction.mask_queries, where.dtype),
                    _given(prediction.mask_bias, where.dtype),
                    [part[:, :end] for part, end in zip(truth, ends, strict=True)],
                    self.costs.mask,
                    self.costs.dice,
                )
            )
        return torch.stack(costs)

    def losses(
        self, predictions: list[Prediction], packed: PackedTargets, matches: Matches, sampled: Sampled
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and dice of the matched masks, summed per layer: two tensors [L]."""
        plan, entropies, dices = sampled.plan, [], []
        for layer, prediction in enumerate(predictions):
            part = slice(layer * matches.per_layer, (layer + 1) * matches.per_layer)
            image, query, target = matches.image[part], matches.query[part], matches.target[part]
            embedding = _given(prediction.mask_queries, plan.points.dtype)
            bias = _given(prediction.mask_bias, plan.points.dtype)
            logits = self._shared_logits(embedding, sampled.shared[layer], image, query, packed) + bias
            picked = points.choose_points(logits, plan)
            logits, where = logits.gather(-1, picked), plan.points[image.unsqueeze(-1), picked]
            if plan.own is not None:
                inside = self._own_logits(embedding, sampled.own[layer], image, query, target) + bias
                logits = torch.cat([logits, inside], -1)
                where = torch.cat([where, plan.own[image, target]], 1)
            truth = packed.sample_masks(image, target, where)
            entropy, dice = points.point_losses(logits, truth)
            entropies.append(entropy.sum())
            dices.append(dice.sum())
        return torch.stack(entropies), torch.stack(dices)

    def _shared_logits(
        self, embedding: Tensor, features: Tensor, image: Tensor, query: Tensor, packed: PackedTargets
    ) -> Tensor:
        """Matched masks at all shared points of their image: [pairs, P]."""
        # Matched queries of each image side by side, padded to the image with most of them: [B, size, C].
        batch, size = len(packed.counts), self.groups * packed.labels.shape[1]
        slot = _position_in_image(image, batch)
        chosen = query.new_zeros(batch, size).index_put((image, slot), query)
        queries = embedding.gather(1, chosen.unsqueeze(-1).expand(-1, -1, embedding.shape[-1]))
        return (queries @ features)[image, slot]

    def _own_logits(
        self, embedding: Tensor, features: Tensor, image: Tensor, query: Tensor, target: Tensor
    ) -> Tensor:
        """Matched masks at the points in their object's box: [pairs, K]."""
        # An object has at most one query of every group: [B, M, G, C].
        batch, dim, most, _ = features.shape
        group = query // (embedding.shape[1] // self.groups)
        chosen = query.new_zeros(batch, most, self.groups).index_put((image, target, group), query)
        queries = embedding.gather(1, chosen.flatten(1).unsqueeze(-1).expand(-1, -1, dim))
        logits = queries.unflatten(1, (most, self.groups)) @ features.permute(0, 2, 1, 3)
        return logits[image, target, group]


def _given(tensor: Tensor | None, dtype: torch.dtype) -> Tensor:
    assert tensor is not None
    return tensor.to(dtype)


def _position_in_image(image: Tensor, images: int) -> Tensor:
    """Running number of each pair inside its image; `image` is sorted."""
    first = torch.searchsorted(image, torch.arange(images, device=image.device))
    return torch.arange(len(image), device=image.device) - first[image]
