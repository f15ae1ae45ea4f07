"""AdamW with a learning rate per component and per ViT layer, and no decay where decay makes no sense.

Source: Appendix A (layer-wise decay 0.8 over the ViT, no warm-up, no schedule) and the public configuration
(component decay: encoder lr * 0.7^2, decoder lr * 0.7).

Learning rates are the public code's: it counts the ViT's layers as the last feature stage plus one, so block
i (from 0) of the ViT of nano to 2XL gets 0.8^(13 - i) and its embeddings 0.8^14; the closing norm 1. The
paper says 0.8 per layer and no more.

Weight decay spares norms, biases, LayerScale and everything that is an embedding: positions, class token,
patch projection (the public code spares that kernel too), learned queries. One difference is deliberate: the
public code decays LayerScale, and outside the ViT also the scales and biases of norms, other biases and
learned queries. Decay draws a scale towards 0, where its layer says nothing; at the default rates (1e-4 times
1e-4 per step) the two rules differ by a factor of 0.999 after 100,000 steps.
"""

import math
from typing import Any

import torch

from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.training.config import TrainConfig

_EMBEDDINGS = {
    "class_token",
    "positions",
    "patch_kernel",
    "patch_bias",
    "query_features",
    "reference_deltas",
}
_LAYER_SCALE = {"scale1", "scale2"}


def is_decayed(name: str) -> bool:
    """Whether weight decay acts on a parameter: matrices and kernels other than embeddings."""
    *path, last = name.split(".")
    norm = bool(path) and "norm" in path[-1]
    return not (norm or "bias" in last or last in _EMBEDDINGS or last in _LAYER_SCALE)


def lr_of(name: str, config: TrainConfig, model: ModelConfig) -> float:
    """Learning rate of a parameter of a network of the given sizes.

    ViT: encoder_lr * component_decay^2 * layer_decay^(layers above it, see the module's text), embeddings
    lowest, closing norm 1. Decoder: lr * component_decay. The rest (projector, query selection, heads): lr.
    """
    parts = name.split(".")
    if parts[0] == "backbone":
        layers = model.feature_layers[-1] + 1
        if parts[1] == "blocks":
            above = max(0, layers - int(parts[2]))  # blocks behind the last stage are never run
        else:
            above = 0 if parts[1] == "norm" else layers + 1
        return config.encoder_lr * config.component_decay**2 * config.layer_decay**above
    return config.lr * (config.component_decay if parts[0] == "decoder" else 1.0)


def parameter_groups(model: RFDETR, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups for an optimiser: every trainable parameter exactly once, equal (lr, weight decay) together."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = lr_of(name, config, model.config)
        decay = config.weight_decay if is_decayed(name) else 0.0
        group = groups.setdefault(
            (lr, decay), {"params": [], "names": [], "lr": lr, "base_lr": lr, "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(model: RFDETR, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; fused where torch has a fused kernel for the device."""
    device = next(model.parameters()).device
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=config.betas, fused=fused)


def same_groups(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> bool:
    """Whether a saved state has the optimiser's groups: the same parameters with the same rates and decay."""
    keys = ("names", "base_lr", "weight_decay")
    saved = [[group.get(key) for key in keys] for group in state["param_groups"]]
    return saved == [[group[key] for key in keys] for group in optimizer.param_groups]


def lr_factor(step: int, config: TrainConfig) -> float:
    """What the base learning rates are multiplied by at step `step` (0-based)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "none":
        return 1.0
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2


def set_lr(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> float:
    """Set the learning rates of a step; returns the factor."""
    factor = lr_factor(step, config)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return factor
