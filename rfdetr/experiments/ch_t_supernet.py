"""A supernet of a hundred lines with five faults, and five checks that find them: an exercise.

Each method with a fault can be mended alone. `checks` tells what is still wrong; none of them trains.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.model.flex import resize_kernel

if TYPE_CHECKING:
    import pandas as pd

RESOLUTIONS, PATCHES, DEPTHS = (32, 48), (8, 16), (1, 2, 3)
_WIDTH, _CLASSES = 16, 4


class BrokenSupernet(nn.Module):
    """A classifier of tokens with three knobs: resolution, patch size, depth. Five methods have a fault.

    `forward` returns the predictions [B, tokens, K] of every layer up to `depth`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(_WIDTH, 3, 8, 8) / 14)
        self.norm: nn.Module = self.make_norm()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(_WIDTH, 2, 32, dropout=0.0, batch_first=True) for _ in DEPTHS
        )
        self.head = nn.Linear(_WIDTH, _CLASSES)

    def make_norm(self) -> nn.Module:
        """The normalisation of tokens [B, tokens, width]."""
        return _TokenBatchNorm(_WIDTH)

    def patch_kernel(self, patch: int) -> Tensor:
        """The kernel [width, 3, patch, patch] for a patch size."""
        self.kernel.data = resize_kernel(self.kernel.data, patch)
        return self.kernel

    def refine(self, tokens: Tensor, layer: int, depth: int) -> Tensor:
        """What one layer makes of the tokens, in a network of `depth` layers."""
        changed: Tensor = self.layers[layer](tokens)
        return tokens + changed / depth

    def forward(self, images: Tensor, patch: int, depth: int) -> list[Tensor]:
        """Predictions of every layer for images [B, 3, side, side]."""
        tokens = nn.functional.conv2d(images, self.patch_kernel(patch), stride=patch).flatten(2).mT
        tokens = self.norm(tokens)
        predictions = []
        for layer in range(depth):
            tokens = self.refine(tokens, layer, depth)
            predictions.append(self.head(tokens))
        return predictions

    def loss(self, predictions: list[Tensor], labels: Tensor) -> Tensor:
        """What a step minimises. labels [B, tokens]."""
        return nn.functional.cross_entropy(predictions[-1].flatten(0, 1), labels.flatten())

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Resolution and patch size of one training step."""
        largest = bool(rng.integers(2))
        return (RESOLUTIONS[-1], PATCHES[0]) if largest else (RESOLUTIONS[0], PATCHES[-1])


class _TokenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of the channels of tokens [B, tokens, width]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.mT).mT


def checks(net: BrokenSupernet) -> "pd.DataFrame":
    """What a supernet has to satisfy. Columns: check, passed, why (it matters)."""
    import pandas as pd

    rows = []
    for name, (check, why) in CHECKS.items():
        torch.manual_seed(0)
        rows.append((name, bool(check(net)), why))
    return pd.DataFrame(rows, columns=["check", "passed", "why"])


def _images(side: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side)


def _asked_twice(net: BrokenSupernet) -> bool:
    """The same question has the same answer after another one was asked."""
    images = _images(32)
    with torch.no_grad():
        first = net.eval()(images, 8, 2)[-1]
        net(images, 16, 2)
        again = net(images, 8, 2)[-1]
    return first.shape == again.shape and torch.allclose(first, again, atol=1e-5)


def _on_its_own(net: BrokenSupernet) -> bool:
    """In training an image has the same answer whatever shares its batch."""
    images = _images(32, 3)
    with torch.no_grad():
        together = net.train()(images, 8, 2)[-1][:1]
        other = net(torch.cat([images[:1], 5 * images[1:]]), 8, 2)[-1][:1]
    return torch.allclose(together, other, atol=1e-4)


def _cut(net: BrokenSupernet) -> bool:
    """A network cut to two layers says what the second layer of the whole says."""
    images = _images(32)
    with torch.no_grad():
        whole = net.eval()(images, 8, 3)
        cut = net(images, 8, 2)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(cut, whole, strict=False))


def _every_depth_learns(net: BrokenSupernet) -> bool:
    """The loss pulls at every layer's own prediction."""
    predictions = [torch.randn(2, 16, _CLASSES, requires_grad=True) for _ in DEPTHS]
    net.loss(predictions, torch.randint(0, _CLASSES, (2, 16))).backward()
    return all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in predictions)


def _every_setting_is_drawn(net: BrokenSupernet) -> bool:
    """In 400 draws every resolution with every patch size comes up, none far less than its share."""
    rng = np.random.default_rng(0)
    drawn = [net.draw(rng) for _ in range(400)]
    settings = [(side, patch) for side in RESOLUTIONS for patch in PATCHES]
    return min(drawn.count(setting) for setting in settings) > 50


CHECKS: dict[str, tuple[Any, str]] = {
    "asked twice, same answer": (_asked_twice, "resizes must not be chained: always from the stored kernel"),
    "an image on its own": (
        _on_its_own,
        "statistics of a batch mix sub-networks, and small batches are noise",
    ),
    "cut equals whole": (_cut, "else a cut network is one that nobody trained"),
    "every depth learns": (_every_depth_learns, "a layer without a loss is no place to stop"),
    "every setting is drawn": (_every_setting_is_drawn, "what is never drawn is ranked by chance"),
}
"""Name -> the check and why it matters."""
