"""The identity of a network: one name for its sizes and weights, for caches and provenance."""

import hashlib
import json

import torch
from torch import nn

_NO_EFFECT = ("categories", "default_arch", "layer_scale")
"""Fields of `ModelConfig` that change no output: what classes are called, the choice of a default, an initial
value.
"""


def fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 of a network's sizes and of all its weights (names, shapes, dtypes, values): a key for
    whatever is computed from them. Two networks that call their classes differently have the same.
    """
    config = getattr(model, "config", None)
    sizes = {} if config is None else {k: v for k, v in config.to_dict().items() if k not in _NO_EFFECT}
    digest = hashlib.sha256(json.dumps(sizes, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.flatten().view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()
