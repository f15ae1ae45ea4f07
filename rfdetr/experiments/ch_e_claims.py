"""Chapter E: the verdict that needs the built family. The tables are in `paper.arithmetic.larger`."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Verdict, computed

if TYPE_CHECKING:
    import pandas as pd


def c177(family: "pd.DataFrame") -> Verdict:
    """Networks with one map at the patch stride. family: from `ch_e_larger_variants.family_counts`."""
    base = family[family.backbone == "dinov2-b"]
    params = (base.params_m - base.params_printed).abs().max()
    gflops = 100 * (base.gflops / base.gflops_printed - 1).abs().max()
    return Verdict(
        computed(len(base) and params <= 0.1 and gflops <= 1),
        {"parameters, largest difference, M": round(float(params), 2),
         "GFLOPs, largest difference, %": round(float(gflops), 2)},
        "Built with one feature map at the patch stride, the larger sizes have the printed parameters and"
        " GFLOPs; LW-DETR's higher-resolution features were not tested.",
    )  # fmt: skip
