"""Claims about Table 2 and the detection rows of Table 12, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, ap, joined, ms, rows, similar, unbeaten
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

YOLO = ("YOLOv8", "YOLOv11")
LEAST_APART = 1.5
"""Latencies are very different from this factor on (claim C046 gives none)."""


def c002(t2: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Nano over D-FINE nano, to the printed digit."""
    margin = ap(t2, "RF-DETR", "N") - ap(t2, "D-FINE", "N")
    return Verdict(
        agree(abs(margin - values["margin"]) < HALF_DIGIT),
        {"difference, AP": round(margin, 1)},
        "The AP of both models is the paper's. D-FINE nano is the one size without Objects-365 pre-training,"
        " as the caption of Table 11 says.",
    )


def c003(t2: "pd.DataFrame") -> Verdict:
    """Similar latency of the two nano models."""
    ours, theirs = ms(t2, "RF-DETR", "N"), ms(t2, "D-FINE", "N")
    return Verdict(
        agree(similar(ours, theirs)),
        {"RF-DETR, ms": ours, "D-FINE, ms": theirs, "ratio": round(ours / theirs, 2)},
        "“Similar” is taken as within 10 %, the tolerance that Figure 1 states.",
    )


def c006(t2: "pd.DataFrame", t12: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Above 60 AP, and no other real-time row of the tables is."""
    every = joined(t2, t12)
    ours = ap(t2, "RF-DETR", "2XL")
    others = every[(every["model"] != "RF-DETR") & (every["latency_runtime"] == "tensorrt")]
    best = float(others["ap"].max())
    return Verdict(
        agree(ours > 60 > best and abs(ours - values["ap"]) < HALF_DIGIT),
        {"RF-DETR 2XL": ours, "best other real-time row": best},
        "True of the rows that the paper prints; being the first is a question to the literature.",
    )


def c015(t2: "pd.DataFrame") -> Verdict:
    """At least five points above D-FINE nano at similar latency."""
    margin = ap(t2, "RF-DETR", "N") - ap(t2, "D-FINE", "N")
    near = similar(ms(t2, "RF-DETR", "N"), ms(t2, "D-FINE", "N"))
    return Verdict(
        agree(margin >= 5 - HALF_DIGIT and near),
        {"difference, AP": round(margin, 1)},
        "Points of AP, not per cent.",
    )


def c021(t2: "pd.DataFrame", t12: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """No other real-time row may be above every RF-DETR row of similar latency."""
    better = unbeaten(joined(t2, t12), values["limit_ms"])
    return Verdict(
        agree(not better),
        {"rows above every RF-DETR of similar latency": better},
        "A row counts when no RF-DETR up to 10 % slower has its AP."
        if better
        else "Every other row is reached by an RF-DETR of similar latency.",
    )


def c046(t2: "pd.DataFrame", t12: "pd.DataFrame") -> Verdict:
    """Medium and large: nearly the same parameters, very different latency."""
    medium, large = rows(t2, model="RF-DETR", size="M"), rows(t12, model="RF-DETR", size="L")
    apart = abs(float(large["params_m"].iloc[0]) / float(medium["params_m"].iloc[0]) - 1)
    slower = float(large["latency_ms"].iloc[0]) / float(medium["latency_ms"].iloc[0])
    return Verdict(
        agree(apart < 0.05 and slower >= LEAST_APART),
        {"parameters apart, %": round(100 * apart, 1), "latency ratio": round(slower, 2)},
        "The two configurations differ in resolution alone (Table 7).",
    )


def c065(t2: "pd.DataFrame") -> Verdict:
    """More than five points above D-FINE nano and LW-DETR tiny."""
    nano = ap(t2, "RF-DETR", "N")
    over = {"D-FINE N": nano - ap(t2, "D-FINE", "N"), "LW-DETR T": nano - ap(t2, "LW-DETR", "T")}
    return Verdict(agree(min(over.values()) > 5), {k: round(v, 1) for k, v in over.items()}, "Printed AP.")


def c066(t2: "pd.DataFrame") -> Verdict:
    """The same for small and medium: above both by more than five points is what nano does."""
    over = {
        f"{size} over {other}": ap(t2, "RF-DETR", size) - ap(t2, other, size)
        for size in ("S", "M")
        for other in ("D-FINE", "LW-DETR")
    }
    return Verdict(
        agree(min(over.values()) > 0),
        {k: round(v, 1) for k, v in over.items()},
        f"The smallest of the four differences is {min(over.values()):+.1f} AP; the trend is taken to hold if"
        " all are positive.",
    )


def c067(t2: "pd.DataFrame") -> Verdict:
    """Nano within one point of both YOLO mediums."""
    nano = ap(t2, "RF-DETR", "N")
    over = {model: nano - ap(t2, model, "M") for model in YOLO}
    return Verdict(
        agree(max(abs(v) for v in over.values()) <= 1 + HALF_DIGIT),
        {k: round(v, 1) for k, v in over.items()},
        "“On par” is taken as within one point of AP.",
    )


def c068(t2: "pd.DataFrame") -> Verdict:
    """Well above the YOLO models of the same name: by more than five points."""
    over = {
        f"{size} over {model}": ap(t2, "RF-DETR", size) - ap(t2, model, size)
        for size in ("N", "S", "M")
        for model in YOLO
    }
    return Verdict(
        agree(min(over.values()) > 5),
        {"smallest": round(min(over.values()), 1), "largest": round(max(over.values()), 1)},
        "Sizes of the same name; YOLO's smaller networks have a tenth to a half of the parameters.",
    )


def c079(t2: "pd.DataFrame", t12: "pd.DataFrame") -> Verdict:
    """XL above GroundingDINO tiny."""
    ours, theirs = ap(t12, "RF-DETR", "XL"), ap(t2, "GroundingDINO", "T")
    return Verdict(agree(ours > theirs), {"XL": ours, "GroundingDINO T": theirs}, "Printed AP.")


def c119(t2: "pd.DataFrame", t12: "pd.DataFrame") -> Verdict:
    """LW-DETR against the line through D-FINE's sizes, over latency."""
    import numpy as np

    every = joined(t2, t12)
    fine = every[every["model"] == "D-FINE"].sort_values("latency_ms")
    light = every[every["model"] == "LW-DETR"].sort_values("latency_ms")
    light = light[light["latency_ms"].between(fine["latency_ms"].min(), fine["latency_ms"].max())]
    over = light["ap"].to_numpy() - np.interp(light["latency_ms"], fine["latency_ms"], fine["ap"])
    return Verdict(
        agree(len(over) and over.min() >= -1),
        {f"LW-DETR {size}": round(float(v), 1) for size, v in zip(light["size"], over, strict=True)},
        "AP above or below D-FINE's at the same printed latency, interpolated; “on the curve” is taken as not"
        " more than one point below. Without CUDA graphs no latency is printed.",
    )
