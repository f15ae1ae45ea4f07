"""Operations and parameters of any sub-network in closed form, for one architecture or for thousands at once.

Source: the layer sizes of Figure 2; counting rules in the package's chapter on FLOPs. One multiply-accumulate
is two operations; convolutions and matrix products are counted, norms, activations and sampling are not (as
torch's `FlopCounterMode` does). Every formula takes whole numbers or NumPy arrays of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.model.config import ModelConfig

STAGES = (
    "embedding",
    "windowed attention",
    "global attention",
    "backbone MLP",
    "projector",
    "selection",
    "decoder position",
    "decoder self-attention",
    "decoder cross-attention",
    "decoder FFN",
    "heads",
    "masks",
)
"""Where operations are spent, in the order of the forward pass."""

CONVENTIONS = ("deployed", "published")
"""deployed: what the exported network computes. published: a plain call of the training code, which the print
fits.
"""


@dataclass(frozen=True)
class Knobs:
    """The five knobs, each a whole number or an array of them, and the sizes that follow."""

    resolution: Any
    patch_size: Any
    windows: Any
    decoder_layers: Any
    queries: Any

    @property
    def grid(self) -> Any:
        """Tokens per side, n."""
        return self.resolution // self.patch_size

    @property
    def sequence(self) -> Any:
        """Tokens of one window, its class token included."""
        return 1 + (self.grid // self.windows) ** 2

    @property
    def has_decoder(self) -> Any:
        """1 where there is a decoder, 0 where the proposals are the prediction."""
        return np.minimum(self.decoder_layers, 1)


def operations(config: ModelConfig, knobs: Knobs, convention: str = "deployed") -> dict[str, tuple[Any, Any]]:
    """Operations of one image by stage: (all but attention products, attention products).

    Attention products are query times key and weights times value. `convention`: see `CONVENTIONS`; the plain
    call also runs ViT blocks behind the last feature layer, predicts the boxes of all tokens, not only of the
    selected ones, applies class, box and mask heads to every decoder layer, and makes masks of the selected
    proposals. This is what the paper prints, within 0.1 %: attention included in Tables 2, 3, 12 and 13,
    without it in Table 5. (The public package of today selects the tokens first, and counts up to 0.4 % less
    in detection.)
    Units: operations (two per multiply-accumulate). Raises ValueError for an unknown convention.
    """
    published = _is_published(convention)
    n2, queries, depth = knobs.grid**2, knobs.queries, knobs.decoder_layers
    dim, hidden, classes = config.embed_dim, config.hidden_dim, config.num_classes
    tokens = knobs.windows**2 * knobs.sequence

    blocks = config.depth if published else max(config.feature_layers)
    wide = sum(block in config.feature_layers for block in range(blocks))
    narrow = blocks - wide
    projections = 8 * tokens * dim**2
    half = hidden // 2
    features = len(config.feature_layers) * dim
    box_mlp = 2 * (2 * hidden**2 + 4 * hidden)
    head = 2 * hidden * classes + box_mlp
    predicted = np.maximum(depth, 1) if published else 1
    has_decoder = knobs.has_decoder
    samples = config.cross_heads * config.points

    counts: dict[str, tuple[Any, Any]] = {
        "embedding": (2 * n2 * dim * 3 * knobs.patch_size**2, 0),
        "windowed attention": (narrow * projections, narrow * 4 * tokens * knobs.sequence * dim),
        "global attention": (wide * projections, wide * 4 * tokens**2 * dim),
        "backbone MLP": (blocks * 4 * tokens * dim * int(dim * config.mlp_ratio), 0),
        "projector": (2 * n2 * (features * 2 * half + 6 * 9 * half**2 + 5 * half * hidden), 0),
        "selection": (2 * n2 * hidden * (hidden + classes) + (n2 if published else queries) * box_mlp, 0),
        "decoder position": (has_decoder * 6 * queries * hidden**2, 0),
        "decoder self-attention": (depth * 8 * queries * hidden**2, depth * 4 * queries**2 * hidden),
        "decoder cross-attention": (
            depth * 2 * hidden * (n2 * hidden + queries * (hidden + 3 * samples)),
            0,
        ),
        "decoder FFN": (depth * 4 * queries * hidden * config.ffn_dim, 0),
        "heads": (has_decoder * predicted * queries * head, 0),
        "masks": (0, 0),
    }
    if config.segmentation:
        area = (knobs.resolution // 4) ** 2
        refine = depth * 2 * area * hidden * (9 + hidden)
        pixels = has_decoder * 2 * area * hidden**2
        masks = 2 * queries * (9 * hidden**2 + area * hidden)
        proposals = has_decoder * masks if published else 0
        counts["masks"] = (refine + predicted * (pixels + masks) + proposals, 0)
    return counts


def parameters(config: ModelConfig, knobs: Knobs, groups: int) -> dict[str, Any]:
    """Parameters (absolute numbers) by part of a network of exactly these knobs, with `groups` query groups.

    The parts add up to the network's parameters. Source: the layer sizes of Figure 2 and Tables 7 and 8.
    """
    dim, hidden, classes = config.embed_dim, config.hidden_dim, config.num_classes
    depth, has_decoder = knobs.decoder_layers, knobs.has_decoder
    mlp = int(dim * config.mlp_ratio)
    half, features = hidden // 2, len(config.feature_layers) * dim
    samples = config.cross_heads * config.points
    square = hidden**2 + hidden
    self_attention = 4 * square
    cross_attention = 2 * square + 3 * samples * (hidden + 1)
    ffn = 2 * hidden * config.ffn_dim + config.ffn_dim + hidden
    head = (hidden + 1) * classes + 2 * square + 4 * hidden + 4
    parts = {
        "patch embedding and positions": dim * (3 * knobs.patch_size**2 + 1) + dim * (knobs.grid**2 + 2),
        "backbone attention": config.depth * 4 * (dim**2 + dim),
        "backbone MLP": config.depth * (2 * dim * mlp + mlp + dim),
        "backbone norms and scales": config.depth * 6 * dim + 2 * dim,
        "projector": features * 2 * half
        + 4 * half
        + 6 * (9 * half**2 + 2 * half)
        + 5 * half * hidden
        + 4 * hidden,
        "selection": groups * (square + 2 * hidden + head),
        "query embeddings": has_decoder * groups * knobs.queries * (hidden + 4),
        "decoder": depth * (self_attention + cross_attention + ffn + 6 * hidden)
        + has_decoder * (3 * hidden**2 + 4 * hidden),
        "heads": has_decoder * head,
        "mask head": 0 * depth,
    }
    if config.segmentation:
        block = 9 * hidden + hidden + 2 * hidden + square
        parts["mask head"] = depth * block + has_decoder * square + 9 * hidden**2 + 8 * hidden + 1
    return parts


def _is_published(convention: str) -> bool:
    if convention not in CONVENTIONS:
        raise ValueError(
            f"unknown counting convention {convention!r}; choose one of {', '.join(CONVENTIONS)}"
        )
    return convention == "published"
