"""Chapter 10: verdicts on Table 5 that need counting; printed steps are in `paper.arithmetic.ablation`."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.verdicts import Verdict, computed

if TYPE_CHECKING:
    import pandas as pd


def c027(backbones: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Depths with which the printed parameters come out. backbones: from `ch10_ablation.backbone_depths`."""
    depth = dict(zip(backbones.backbone, backbones.layers.tolist(), strict=True))
    patch = dict(zip(backbones.backbone, backbones.patch_size.tolist(), strict=True))
    fits = bool((backbones.difference.abs() < 0.1).all())
    holds = depth["CAEv2"] == values["caev2_layers"] and depth["DINOv2"] == values["dinov2_layers"]
    return Verdict(
        computed(fits and holds and patch["CAEv2"] == values["caev2_patch"]),
        {f"{name}, layers": layers for name, layers in depth.items()},
        "Built with these depths, LW-DETR M and the base of Table 5 have the printed parameters.",
    )


def c098(steps: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """One decoder layer more, counted. steps: from `ch10_ablation.step_counts`."""
    by = steps.set_index("step")
    added = float(by.params_m[8] - by.params_m[7])
    printed = values["params_m"][1] - values["params_m"][0]
    return Verdict(
        computed(abs(added - printed) < 0.051),
        {"parameters, M": round(added, 2), "GFLOPs": round(float(by.gflops[8] - by.gflops[7]), 1)},
        "The parameters are counted; AP and latency are the paper's.",
    )
