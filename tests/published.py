"""Made-up state dicts in the published layout, for networks of any size."""

import math
import zlib
from dataclasses import replace

import torch

from rfdetr import RFDETR
from rfdetr.model import config
from rfdetr.model.published_names import UNUSED, names


def repeatable_weight(name, shape):
    """The weight rule of the reference outputs: values that depend on the published name alone, float64."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) >= 2:
        z = z / math.sqrt(shape[-1] if len(shape) == 3 else math.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z if name.endswith(("weight", "lambda1", "gamma")) else 0.1 * z
    return z.double()


def published_shapes(sizes):
    """Name -> shape of the published state dict of a network of these sizes."""
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in RFDETR(**sizes.to_dict()).state_dict().items()}
    shapes = {}
    for name, keys, how in names(sizes):
        shape = ours[name]
        part = {
            "same": shape,
            "rows": (shape[0] // len(keys), *shape[1:]),
            "stack": shape[1:],
            "groups": (shape[0] * shape[1], *shape[2:]) if how == "groups" else None,
        }[how]
        shapes.update(dict.fromkeys(keys, part))
    for name in UNUSED:
        shapes[name] = (1, sizes.embed_dim) if name.endswith("mask_token") else (0, 0)
    return shapes


def published_state(sizes, dtype=torch.float64):
    """A state dict under the weight rule."""
    return {
        name: repeatable_weight(name, shape).to(dtype)
        if math.prod(shape)
        else torch.zeros(shape, dtype=dtype)
        for name, shape in published_shapes(sizes).items()
    }


SMALL = {
    "embed_dim": 24,
    "depth": 2,
    "heads": 2,
    "hidden_dim": 32,
    "self_heads": 2,
    "cross_heads": 2,
    "points": 2,
    "ffn_dim": 32,
    "groups": 2,
}


def small_presets(patch):
    """Give all published configurations of the DINOv2-S family a narrow and flat backbone."""
    patch.setitem(config.BACKBONES, "dinov2-s", SMALL)
    flat = {name: replace(preset, feature_layers=(1, 2)) for name, preset in config.PRESETS.items()}
    patch.setattr(config, "PRESETS", flat)
