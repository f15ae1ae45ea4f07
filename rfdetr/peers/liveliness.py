"""Random weights that behave like trained ones where it matters: activations of one size, scores of a spread.

Untouched random weights make a convolutional network's activations vanish, so that all tokens score alike and
no box passes a threshold: its selection would be decided by rounding, and its suppression would have nothing
to do. So batch normalisations get the statistics of one picture of noise, and a YOLO's scores a spread in
which about 0.4 % of all pairs of box and class are over 0.001 and 0.015 % over 0.25: some thousand and about
a hundred of 672,000. That is the order of magnitude of a trained network on a street scene, and an
assumption.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SHARES = {0.001: 0.0045, 0.25: 0.00015}
"""Score -> share of all pairs of box and class that are over it."""
LARGEST = 9.0
"""Logit that no score is over."""


def enliven(model: nn.Module, run: Callable[[Tensor], Any], size: tuple[int, int]) -> None:
    """Give every batch normalisation, frozen or not, the statistics of its own input for one picture of
    noise.

    run: how the network is called. The picture is smooth noise, the same at every call.
    """
    handles = [
        module.register_forward_pre_hook(_take_statistics)
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    try:
        with torch.no_grad():
            run(picture(size))
    finally:
        for handle in handles:
            handle.remove()


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    """[1, 3, H, W] smooth noise with values around 0 and deviation 1, like a normalised photograph."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 20, 20, generator=random)
    fine = torch.randn(1, 3, *size, generator=random)
    return nn.functional.interpolate(coarse, size=size, mode="bicubic") + 0.3 * fine


def _take_statistics(module: Any, inputs: tuple[Tensor, ...]) -> None:
    values = inputs[0].detach().transpose(0, 1).flatten(1)
    module.running_mean.copy_(values.mean(1))
    module.running_var.copy_(values.var(1).clamp(min=1e-6))


def spread_scores(layers: list[nn.Conv2d], run: Callable[[], Any]) -> None:
    """Scale the last layers of a YOLO's class branches, all alike, so that `SHARES` of the scores they give
    are over the thresholds.

    run: calls the network once.
    """
    seen: dict[int, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda _, __, out, i=i: seen.__setitem__(i, out.detach().flatten()))
        for i, layer in enumerate(layers)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    logits = torch.cat([seen[i] for i in sorted(seen)])
    (low, wanted_low), (high, wanted_high) = (
        (logits.topk(max(1, round(share * len(logits)))).values[-1].item(), math.log(score / (1 - score)))
        for score, share in SHARES.items()
    )
    scale = (wanted_high - wanted_low) / max(high - low, 1e-9)
    # Scores that are 1 to the last digit would be ties, which rounding and each runtime decide in their way.
    scale = min(scale, (LARGEST - wanted_high) / max(float(logits.max()) - high, 1e-9))
    with torch.no_grad():
        for layer in layers:
            layer.weight *= scale
            assert layer.bias is not None
            layer.bias.copy_((layer.bias - high) * scale + wanted_high)
