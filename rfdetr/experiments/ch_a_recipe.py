"""Appendix A: every hyper-parameter in the paper, in the public code and here; learning rates and averaging
as curves.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rfdetr.arch import TRAINING_GRID
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.paper import tables
from rfdetr.training.config import TrainConfig
from rfdetr.training.ema import EMA
from rfdetr.training.optim import is_decayed, lr_factor, lr_of

NOT_STATED = "not stated"


def _ours(config: TrainConfig, model: ModelConfig) -> dict[str, Any]:
    """Values of this package's defaults under the labels of the table."""
    weights, costs = config.weights, config.costs
    return {
        "optimiser": f"AdamW, betas {config.betas}",
        "learning rate": config.lr,
        "encoder learning rate": config.encoder_lr,
        "component decay": config.component_decay,
        "layer-wise decay": config.layer_decay,
        "weight decay": config.weight_decay,
        "schedule": config.schedule,
        "warm-up": config.warmup_steps or "none",
        "gradient clipping": config.clip_norm,
        "batch": f"{config.batch_size} × {config.accumulate}",
        "averaging decay (EMA)": config.ema_decay,
        "averaging time (EMA)": config.ema_tau,
        "query groups": model.groups,
        "resolutions": f"{TRAINING_GRID.resolutions[0]} to {TRAINING_GRID.resolutions[-1]}, one per batch",
        "sampling": f"{config.sampling}, one architecture per step",
        "decoder layers in training": TRAINING_GRID.decoder_layers[0],
        "queries in training": TRAINING_GRID.queries[0],
        "augmentation": "horizontal flip, random crop" if config.augment else "none",
        "class loss weight": f"{weights.label:g} (with masks {weights.label_with_masks:g})",
        "box loss weights": f"L1 {weights.box:g}, GIoU {weights.giou:g}",
        "mask loss weights": f"cross-entropy {weights.mask:g}, dice {weights.dice:g}",
        "matching costs": ", ".join(
            f"{k} {v:g}" for k, v in vars(costs).items() if isinstance(v, int | float)
        ),
    }


# Label -> (name in the paper's recipe, keys of the public defaults).
_SOURCES: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "optimiser": (None, ()),
    "learning rate": ("learning_rate", ("lr",)),
    "encoder learning rate": (None, ("lr_encoder",)),
    "component decay": (None, ("lr_component_decay",)),
    "layer-wise decay": ("layer_wise_lr_decay", ("lr_vit_layer_decay",)),
    "weight decay": (None, ("weight_decay",)),
    "schedule": ("learning_rate_schedule", ("lr_drop",)),
    "warm-up": ("learning_rate_warm_up", ("warmup_epochs",)),
    "gradient clipping": ("gradient_clipping", ("clip_max_norm",)),
    "batch": ("batch_size", ("batch_size", "grad_accum_steps")),
    "averaging decay (EMA)": ("ema", ("ema_decay",)),
    "averaging time (EMA)": (None, ("ema_tau",)),
    "query groups": ("decoder_groups", ("group_detr",)),
    "resolutions": ("multi_scale_range", ("multi_scale", "expanded_scales")),
    "sampling": ("architecture_sampling", ()),
    "decoder layers in training": ("decoder_layers_in_training", ()),
    "queries in training": ("queries_in_training", ()),
    "augmentation": ("augmentations", ()),
    "class loss weight": (None, ("cls_loss_coef", "segmentation_cls_loss_coef")),
    "box loss weights": (None, ()),
    "mask loss weights": (None, ("segmentation_mask_ce_loss_coef", "segmentation_mask_dice_loss_coef")),
    "matching costs": (None, ()),
}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _range(value: Any) -> str:
    return f"{value[0]:g} to {value[1]:g} times the nominal one"


def recipe_table() -> pd.DataFrame:
    """Columns: setting, paper, where (in the paper), lw_detr (its value, where the paper gives it),
    public_code, ours.
    """
    recipe = tables.document("training_recipe")
    paper = {entry["name"]: entry for entry in recipe["training"]}
    public = recipe["published_code_defaults"]
    ours = _ours(TrainConfig(), preset_config("medium"))
    rows = []
    for setting, (name, keys) in _SOURCES.items():
        entry = paper[name] if name else {"value": NOT_STATED, "where": ""}
        show = _range if name == "multi_scale_range" else _text
        rows.append(
            {
                "setting": setting,
                "paper": show(entry["value"]),
                "where": entry["where"],
                "lw_detr": show(entry["lw_detr_value"]) if "lw_detr_value" in entry else None,
                "public_code": ", ".join(f"{key} {_text(public[key])}" for key in keys) or None,
                "ours": _text(ours[setting]),
            }
        )
    return pd.DataFrame(rows)


def not_stated() -> pd.DataFrame:
    """What neither version of the paper states. Column: setting."""
    return pd.DataFrame({"setting": tables.document("training_recipe")["not_stated"]})


def learning_rates(config: TrainConfig | None = None, name: str = "medium") -> pd.DataFrame:
    """Learning rate of every part of a network, from the optimiser's own rule.

    Columns: part, order (from input to output), lr, relative (to the base learning rate), decayed_share (% of
    the part's parameters that weight decay acts on), params_m.
    """
    import torch

    from rfdetr.model.detector import RFDETR

    config = config or TrainConfig()
    sizes = preset_config(name)
    with torch.device("meta"):
        network = RFDETR(**sizes.to_dict())
    rows = [
        {
            "part": _part(parameter),
            "lr": lr_of(parameter, config, sizes),
            "params": tensor.numel(),
            "decayed": tensor.numel() if is_decayed(parameter) else 0,
        }
        for parameter, tensor in network.named_parameters()
    ]
    order = [
        "embeddings",
        *(f"block {i}" for i in range(sizes.depth)),
        "final norm",
        "projector",
        "selection",
        "decoder",
        "heads",
    ]
    df = pd.DataFrame(rows).groupby(["part", "lr"], as_index=False).sum()
    df = df.set_index("part").loc[order].reset_index()
    return pd.DataFrame(
        {
            "part": df.part,
            "order": range(len(df)),
            "lr": df.lr,
            "relative": df.lr / config.lr,
            "decayed_share": 100 * df.decayed / df.params,
            "params_m": df.params / 1e6,
        }
    )


def _part(parameter: str) -> str:
    first, *rest = parameter.split(".")
    if first == "backbone":
        if rest[0] == "blocks":
            return f"block {rest[1]}"
        return "final norm" if rest[0] == "norm" else "embeddings"
    if first in ("projector", "selection", "decoder"):
        return first
    return "heads"


def averaging(config: TrainConfig | None = None, updates: int = 1000) -> pd.DataFrame:
    """How the averaged weights forget. Columns: update, decay, memory (updates, 1 / (1 - decay)), start
    (share of the initial weights left), start_constant (the same if the decay did not grow).
    """
    import numpy as np
    import torch

    config = config or TrainConfig()
    assert config.ema_decay is not None
    ema = EMA(torch.nn.Linear(1, 1), config.ema_decay, config.ema_tau)
    steps = np.arange(1, updates + 1)
    decay = np.array([ema.decay_at(int(step)) for step in steps])
    return pd.DataFrame(
        {
            "update": steps,
            "decay": decay,
            "memory": 1 / (1 - decay),
            "start": np.cumprod(decay),
            "start_constant": config.ema_decay**steps,
        }
    )


def schedule(config: TrainConfig | None = None, steps: int = 1000) -> pd.DataFrame:
    """Factor of the learning rate over a run: none (the paper) beside the two usual ones. Columns: step,
    schedule, factor.
    """
    config = (config or TrainConfig()).replace(steps=steps)
    rows = [
        (step, kind, lr_factor(step, config.replace(schedule=kind)))
        for kind in ("none", "linear", "cosine")
        for step in range(0, steps, max(1, steps // 50))
    ]
    return pd.DataFrame(rows, columns=["step", "schedule", "factor"])


def accumulation(parts: int = 4, batch: int = 8, seed: int = 0) -> pd.DataFrame:
    """Gradient of a batch against that of its parts added up, for a projector with either norm.

    Columns: norm (layer norm: this package's projector; batch norm: the same with its norms replaced),
    difference (largest, relative to the largest gradient).
    """
    import torch
    from torch import nn

    from rfdetr.model.projector import ChannelNorm, Projector

    def gradient(model: nn.Module, pieces: int) -> torch.Tensor:
        model.zero_grad()
        for image, target in zip(images.chunk(pieces), targets.chunk(pieces), strict=True):
            ((model([image]) - target).square().mean() / pieces).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images, targets = torch.randn(batch, 6, 6, 16), torch.randn(batch, 16, 6, 6)
        for norm in ("layer norm", "batch norm"):
            model: nn.Module = Projector(16, 16)
            if norm == "batch norm":
                for parent in list(model.modules()):
                    for name, child in list(parent.named_children()):
                        if isinstance(child, ChannelNorm):
                            setattr(parent, name, nn.BatchNorm2d(child.normalized_shape[0]))
            whole, added = (gradient(model, pieces) for pieces in (1, parts))
            rows.append((norm, float((whole - added).abs().max() / whole.abs().max())))
    return pd.DataFrame(rows, columns=["norm", "difference"])


def padding(batch: int = 16, batches: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Part of the pixels of a batch that is padding, for square images at the printed grid's resolutions.

    Columns: scheme (per image: each draws its own resolution and is padded to the largest of the batch; per
    batch: one draw for all), padded.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = rng.choice(TRAINING_GRID.resolutions, size=(batches, batch)).astype(float)
    rows = []
    for scheme, sides in (("per image", drawn), ("per batch", np.repeat(drawn[:, :1], batch, axis=1))):
        used, whole = (sides**2).sum(), (batch * sides.max(axis=1) ** 2).sum()
        rows.append((scheme, float(1 - used / whole)))
    return pd.DataFrame(rows, columns=["scheme", "padded"])
