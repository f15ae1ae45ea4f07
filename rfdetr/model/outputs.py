"""What a detector returns: predictions of every decoder layer and of the encoder.

Source: Figure 2 (every decoder layer and the encoder are supervised, so any of them can be the last).
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Prediction:
    """Predictions of one decoder layer, or the encoder's kept proposals.

    Q below is the number of queries; in training mode it is groups * queries, group after group.
    """

    logits: Tensor
    """[B, Q, K] class logits (sigmoid, no background class)."""
    boxes: Tensor
    """[B, Q, 4] centre x, centre y, width, height in 0..1 of the resized image."""
    mask_features: Tensor | None = None
    """[B, C, R/4, R/4] pixel embedding of this layer; None without a mask head."""
    mask_queries: Tensor | None = None
    """[B, Q, C] query embedding for masks."""
    mask_bias: Tensor | None = None
    """[1] scalar added to every mask logit."""

    @cached_property
    def masks(self) -> Tensor | None:
        """[B, Q, R/4, R/4] mask logits, computed when asked for; None without a mask head."""
        if self.mask_features is None or self.mask_queries is None or self.mask_bias is None:
            return None
        return torch.einsum("bchw,bqc->bqhw", self.mask_features, self.mask_queries) + self.mask_bias


@dataclass
class Output:
    """Everything that one forward pass predicts."""

    encoder: Prediction
    """First-stage predictions: the kept proposals, in rank order."""
    projector: Tensor
    """[B, hidden, n, n] the projector's map."""
    layers: list[Prediction] = field(default_factory=list)
    """One entry per decoder layer, first to last; empty when the decoder is cut to depth 0."""

    @property
    def last(self) -> Prediction:
        """The prediction that counts: of the last decoder layer, or of the encoder when there is none."""
        return self.layers[-1] if self.layers else self.encoder

    @property
    def logits(self) -> Tensor:
        """[B, Q, K] class logits of `last`."""
        return self.last.logits

    @property
    def boxes(self) -> Tensor:
        """[B, Q, 4] boxes of `last`, cxcywh in 0..1."""
        return self.last.boxes

    @property
    def masks(self) -> Tensor | None:
        """[B, Q, R/4, R/4] mask logits of `last`, or None."""
        return self.last.masks
