"""Made-up state dicts in the published layout, for networks of any size."""

import math
import zlib

import torch

from rfdetr import RFDETR
from rfdetr.model.published_names import UNUSED, names


def repeatable_weight(name, shape):
    """The weight rule of the reference outputs: values that depend on the published name alone, float64."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) >= 2:
        z = z / math.sqrt(shape[-1] if len(shape) == 3 else math.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z if name.endswith(("weight", "lambda1", "gamma")) else 0.1 * z
    return z.double()


def published_shapes(config):
    """Name -> shape of the published state dict of a network of these sizes."""
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in RFDETR(**config.to_dict()).state_dict().items()}
    shapes = {}
    for name, keys, how in names(config):
        shape = ours[name]
        part = {
            "same": shape,
            "rows": (shape[0] // len(keys), *shape[1:]),
            "stack": shape[1:],
            "groups": (shape[0] * shape[1], *shape[2:]) if how == "groups" else None,
        }[how]
        shapes.update(dict.fromkeys(keys, part))
    for name in UNUSED:
        shapes[name] = (1, config.embed_dim) if name.endswith("mask_token") else (0, 0)
    return shapes


def published_state(config, dtype=torch.float64):
    """A state dict under the weight rule."""
    return {
        name: repeatable_weight(name, shape).to(dtype)
        if math.prod(shape)
        else torch.zeros(shape, dtype=dtype)
        for name, shape in published_shapes(config).items()
    }
