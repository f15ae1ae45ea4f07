"""Exponential moving average of the weights, with a decay that grows from zero."""

import math

import torch
from torch import Tensor, nn


class EMA:
    """Averaged copy of a model's weights.

    decay_t = decay * (1 - exp(-t / tau)) with t = 1, 2, ... counted in updates (public configuration: 0.993,
    100), so that the average forgets the random start quickly.
    """

    def __init__(self, model: nn.Module, decay: float = 0.993, tau: float = 100.0) -> None:
        self.decay, self.tau, self.updates = decay, tau, 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def decay_at(self, update: int) -> float:
        """Decay of the update-th update (1-based)."""
        return self.decay * (1 - math.exp(-update / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights; what is not floating point is copied."""
        self.updates += 1
        state = model.state_dict()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        averages = [self.weights[name] for name in floating]
        torch._foreach_lerp_(averages, [state[name] for name in floating], 1 - self.decay_at(self.updates))
        for name in state.keys() - set(floating):
            self.weights[name].copy_(state[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Averaged weights and the number of updates, for a checkpoint."""
        return {"weights": self.weights, "updates": self.updates}  # type: ignore[dict-item]

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`."""
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(tensor)
        self.updates = state["updates"]
