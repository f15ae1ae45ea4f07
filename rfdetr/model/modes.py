"""Evaluation mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: Any) -> Iterator[None]:
    """Run a block with a module in evaluation mode. Afterwards every part of it is in the mode that it had: a
    frozen part in evaluation mode does not come back in training mode.

    Anything that is no module (a plain callable) has no mode.
    """
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            part.training = training


@contextmanager
def evaluating(module: Any, dtype: torch.dtype | None = None) -> Iterator[None]:
    """`evaluation_mode` without gradients, under autocast if a `dtype` is given."""
    cast: Any = nullcontext()
    if dtype is not None:
        cast = torch.autocast(next(module.parameters()).device.type, dtype)
    with evaluation_mode(module), torch.inference_mode(), cast:
        yield
