"""Chapter A: verdicts on the recipe that a small computation decides. Stated settings are in
`paper.arithmetic.recipe`.
"""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Check, Verdict

if TYPE_CHECKING:
    import pandas as pd

EXACT = 1e-4
"""Relative difference of two gradients in single precision that are equal but for rounding."""


def c030(accumulation: "pd.DataFrame") -> Verdict:
    """Gradients of one batch and of its parts. accumulation: from `ch_a_recipe.accumulation`."""
    apart = dict(zip(accumulation.norm, accumulation.difference.tolist(), strict=True))
    layer, batch = apart["layer norm"], apart["batch norm"]
    return Verdict(
        "consistent" if layer <= EXACT < batch else "contradicted",
        {name: float(f"{value:.2g}") for name, value in apart.items()},
        "Relative difference between the gradient of a batch and that of its parts added up, for a projector"
        " with either norm.",
    )


def c052(padding: "pd.DataFrame") -> Verdict:
    """Padded pixels under both schemes. padding: from `ch_a_recipe.padding`."""
    share = dict(zip(padding.scheme, padding.padded.tolist(), strict=True))
    single, whole = share["per image"], share["per batch"]
    return Verdict(
        "consistent" if single > 0 and whole < single / 2 else "contradicted",
        {f"{name}, % padded": round(100 * value, 1) for name, value in share.items()},
        "Square images at the resolutions of the printed grid, padded to the largest of the batch; simulated"
        " draws.",
    )


def check_layer_decay(rates: "pd.DataFrame", layer_decay: float) -> Check:
    """rates: from `ch_a_recipe.learning_rates`; layer_decay of the configuration."""
    blocks = rates[rates.part.str.startswith("block")].sort_values("order").lr
    ratio = (blocks.shift(-1) / blocks).dropna()
    return Check(
        "The learning rate of each backbone block is the stated fraction of the next one's",
        bool(len(ratio) and ((ratio * layer_decay - 1).abs() < 1e-9).all()),
        {"ratio": round(1 / float(ratio.mean()), 4)},
        "Read back from the optimiser's groups.",
    )
