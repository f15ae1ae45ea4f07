"""Claims about Tables 6 and 19 (backbones), from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, cell
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

_ONE_RUN = " One run each; no spread over trainings is printed."


def c028(t19: "pd.DataFrame") -> Verdict:
    """DINOv2 over CAEv2 on the small data sets of Table 19."""
    gain = cell(t19, "ap", backbone="DINOv2") - cell(t19, "ap", backbone="CAEv2")
    return Verdict(agree(gain > 0), {"difference, AP": round(gain, 1)}, "Table 19, RF20-VL.")


def c102(t6: "pd.DataFrame") -> Verdict:
    """DINOv2 has the highest AP of the four backbones."""
    order = t6.sort_values("ap", ascending=False)
    return Verdict(
        agree(order["backbone"].iloc[0] == "DINOv2"),
        dict(zip(order["backbone"], order["ap"].tolist(), strict=True)),
        "Printed AP; two of the four are FP32 ONNX files.",
    )


def c103(t6: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The margin of the caption against that of the table below it."""
    margin = cell(t6, "ap", backbone="DINOv2") - cell(t6, "ap", backbone="CAEv2")
    return Verdict(
        agree(abs(margin - values["printed"]) < HALF_DIGIT),
        {"caption": values["printed"], "table": round(margin, 1)},
        "The caption and Section 4 state different margins; the table's is the latter.",
    )


def c104(t6: "pd.DataFrame") -> Verdict:
    """SAM2 Hiera: fewer parameters than SigLIPv2, much slower."""
    params = [cell(t6, "params_m", backbone=b) for b in ("SAM2 Hiera", "SigLIPv2")]
    times = [cell(t6, "latency_ms", backbone=b) for b in ("SAM2 Hiera", "SigLIPv2")]
    return Verdict(
        agree(params[0] < params[1] and times[0] > 1.5 * times[1]),
        {"parameters ratio": round(params[0] / params[1], 2), "latency ratio": round(times[0] / times[1], 2)},
        "Printed parameters and latencies.",
    )


def c160(t6: "pd.DataFrame", t19: "pd.DataFrame") -> Verdict:
    """The same order of the four backbones on RF20-VL, ties not counted as order."""
    pairs = [(a, b) for a in t6["backbone"] for b in t6["backbone"] if a < b]
    kept = {}
    for a, b in pairs:
        coco = cell(t6, "ap", backbone=a) - cell(t6, "ap", backbone=b)
        small = cell(t19, "ap", backbone=a) - cell(t19, "ap", backbone=b)
        kept[f"{a}, {b}"] = coco * small > 0
    lost = [name for name, holds in kept.items() if not holds]
    return Verdict(
        agree(not lost),
        {"pairs": len(pairs), "whose order is not repeated": lost},
        "The order of each pair in Table 6 against that in Table 19.",
    )
