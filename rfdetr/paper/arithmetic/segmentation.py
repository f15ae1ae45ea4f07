"""Claims about Tables 3 and 13, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, ap, joined, ms
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

OURS = "RF-DETR-Seg"
YOLO = ("YOLOv8", "YOLOv11")


def c016(t3: "pd.DataFrame", t13: "pd.DataFrame") -> Verdict:
    """Nano above YOLOv11 XL."""
    nano, yolo = ap(t3, OURS, "N"), ap(t13, "YOLOv11", "XL")
    return Verdict(agree(nano > yolo), {"nano": nano, "YOLOv11 XL": yolo}, "Printed mask AP.")


def c017(t3: "pd.DataFrame", t13: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Four times as fast as YOLOv11 XL."""
    ratio = ms(t13, "YOLOv11", "XL") / ms(t3, OURS, "N")
    return Verdict(
        agree(round(ratio) == values["ratio"]), {"ratio": round(ratio, 2)}, "Ratio of printed latencies."
    )


def c075(t3: "pd.DataFrame", t13: "pd.DataFrame") -> Verdict:
    """Nano above every YOLO size."""
    nano = ap(t3, OURS, "N")
    every = joined(t3, t13)
    best = float(every[every["model"].isin(YOLO)]["ap"].max())
    return Verdict(agree(nano > best), {"nano": nano, "best YOLO": best}, "Printed mask AP.")


def c076(t3: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The printed margin over FastInst."""
    margin = ap(t3, OURS, "N") - ap(t3, "FastInst", "R50")
    return Verdict(
        agree(abs(margin - values["margin"]) < HALF_DIGIT),
        {"difference, AP": round(margin, 1)},
        "Points of AP, not per cent.",
    )


def c077(t3: "pd.DataFrame") -> Verdict:
    """Almost ten times: a little less than ten, not more."""
    ratio = ms(t3, "FastInst", "R50") / ms(t3, OURS, "N")
    return Verdict(
        agree(9 <= ratio <= 10),
        {"ratio": round(ratio, 1)},
        f"The printed latencies have a ratio of {ratio:.1f}, and were measured in different runtimes"
        " (PyTorch and TensorRT).",
    )


def c078(t3: "pd.DataFrame") -> Verdict:
    """Medium within one point of MaskDINO at a tenth of its latency or less."""
    gap = ap(t3, "MaskDINO", "R50") - ap(t3, OURS, "M")
    ratio = ms(t3, "MaskDINO", "R50") / ms(t3, OURS, "M")
    return Verdict(
        agree(gap <= 1 + HALF_DIGIT and ratio >= 10),
        {"AP behind": round(gap, 1), "latency ratio": round(ratio, 1)},
        "“Approaches” is taken as within one point; MaskDINO was timed in PyTorch.",
    )


def c080(t3: "pd.DataFrame", t13: "pd.DataFrame") -> Verdict:
    """Large above MaskDINO."""
    large, other = ap(t13, OURS, "L"), ap(t3, "MaskDINO", "R50")
    return Verdict(agree(large > other), {"L": large, "MaskDINO": other}, "Printed mask AP.")


def c142(t13: "pd.DataFrame") -> Verdict:
    """From L to XL this family gains more than twice what the YOLO families gain."""
    gain = {model: ap(t13, model, "XL") - ap(t13, model, "L") for model in (OURS, *YOLO)}
    return Verdict(
        agree(gain[OURS] > 2 * max(gain[model] for model in YOLO)),
        {f"{model}, L to XL": round(v, 1) for model, v in gain.items()},
        "Over the two sizes that Table 13 has of all three. From N to XL the YOLO families gain more than ten"
        " points (Table 3).",
    )
