"""Claims about RF100-VL: Tables 4, 10, 14 and the latencies of 18, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, SIZES, ap, cell, joined, ms, unbeaten
from rfdetr.paper.verdicts import Remark, Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

YOLO = ("YOLOv8", "YOLOv11")
SPECIALISTS = ("LW-DETR", "D-FINE", "RT-DETR")
# The rows of Table 4 and their neighbours of Table 14, D-FINE size -> RT-DETR size.
_PAIRS = {"M": "M", "L": "R50", "XL": "R101"}
_NO_LIMIT_MS = 40.0


def ours(table: "pd.DataFrame", variant: str) -> dict[str, float]:
    """AP of RF-DETR by size, in the order of the sizes; `variant` as in the tables."""
    found = table[(table["model"] == "RF-DETR") & (table["variant"] == variant)]
    values = dict(zip(found["size"], found["ap"].tolist(), strict=True))
    return {size: values[size] for size in SIZES if size in values}


def difference(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """a minus b by size, for the sizes that both have, to one digit."""
    return {size: round(a[size] - b[size], 1) for size in a if size in b}


def c004(t4: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The printed margin over GroundingDINO, by the fine-tuned row."""
    other = ap(t4, "GroundingDINO", "T")
    tuned, plain = (ours(t4, v)["2XL"] - other for v in ("nas_fine_tuned", "nas"))
    return Verdict(
        agree(abs(tuned - values["margin"]) < HALF_DIGIT),
        {"fine-tuned": round(tuned, 1), "without": round(plain, 1)},
        "The margin is that of the fine-tuned 2XL.",
    )


def c005(t4: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Twenty times, to the nearest whole number."""
    own = t4[(t4["model"] == "RF-DETR") & (t4["size"] == "2XL")]["latency_ms"].iloc[0]
    ratio = ms(t4, "GroundingDINO", "T") / float(own)
    return Verdict(
        agree(round(ratio) == values["ratio"]),
        {"ratio": round(ratio, 1)},
        "GroundingDINO was timed in PyTorch, RF-DETR in TensorRT.",
    )


def c009(t2: "pd.DataFrame", t4: "pd.DataFrame", t12: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """No specialist row reaches GroundingDINO, on either benchmark."""
    found = {}
    for data, tables in (("COCO", (t2, t12)), ("RF100-VL", (t4, t14))):
        every = joined(*tables)
        best = float(every[every["model"].isin(("D-FINE", "RT-DETR"))]["ap"].max())
        found[data] = round(best - ap(tables[0], "GroundingDINO", "T"), 1)
    return Verdict(
        agree(max(found.values()) < 0),
        {f"best of D-FINE and RT-DETR minus GroundingDINO, {data}": v for data, v in found.items()},
        "The sentence names no data set. "
        + "; ".join(f"on {data} it {'holds' if v < 0 else 'does not hold'}" for data, v in found.items())
        + ".",
    )


def c010(t2: "pd.DataFrame", t4: "pd.DataFrame", t12: "pd.DataFrame", t14: "pd.DataFrame") -> Remark:
    """Agreement of the order on COCO with that on RF100-VL."""
    coco, small = (joined(*pair).assign(size=lambda d: d["size"].replace({"R18": "M", "T": "N"}))
                   for pair in ((t2, t12), (t4, t14)))  # fmt: skip
    names = ["model", "size"]
    real_time = coco[coco["model"].isin((*YOLO, *SPECIALISTS))]
    both = real_time.merge(small, on=names, suffixes=("_coco", "_small"))
    tau = both["ap_coco"].corr(both["ap_small"], method="kendall")
    return Remark(
        "Overfitting is an interpretation. What the tables show is how far the order of the earlier real-time"
        " detectors on COCO is kept on RF100-VL.",
        {"detectors": len(both), "Kendall's tau": round(float(tau), 2)},
    )


def c011(t2: "pd.DataFrame", t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """The best YOLOv8 is below the smallest LW-DETR on RF100-VL, and was above it on COCO."""
    every = joined(t4, t14)
    best = float(every[every["model"] == "YOLOv8"]["ap"].max())
    small = ap(t4, "LW-DETR", "N")
    coco = float(t2[t2["model"] == "YOLOv8"]["ap"].max()) - ap(t2, "LW-DETR", "T")
    return Verdict(
        agree(best < small and coco > 0),
        {"RF100-VL": round(best - small, 1), "COCO": round(coco, 1)},
        "Best YOLOv8 minus smallest LW-DETR. The paper's size-specific AP of the YOLO rows are anomalous"
        " (I52).",
    )


def c022(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """Every other real-time row is reached by an RF-DETR of similar latency."""
    every = joined(t4, t14)
    better = unbeaten(every, _NO_LIMIT_MS)
    plain = unbeaten(every[every["variant"] != "nas_fine_tuned"], _NO_LIMIT_MS)
    return Verdict(
        agree(not better),
        {"rows above": better, "rows above RF-DETR without fine-tuning": plain},
        "With fine-tuning; a row counts when no RF-DETR up to 10 % slower (or else the fastest) has its AP.",
    )


def c024(t18: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Searched against fixed (COCO) latency of the same size: are all within the tolerance?"""
    both = t18[t18["variant"].isin(["nas", "fixed_architecture"])]
    times = both.pivot(index="size", columns="variant", values="latency_ms")
    apart = (100 * (times["nas"] / times["fixed_architecture"] - 1)).round(0)
    within = bool((apart.abs() <= values["tolerance_percent"]).all())
    return Verdict(
        "tables agree" if within else "needs the target latencies, which are not printed",
        {f"{size}, %": float(apart[size]) for size in SIZES},
        "Searched models against the COCO models of the same name. If those were the targets, "
        + ("all lie within." if within else "not all lie within."),
    )


def c048(t4: "pd.DataFrame", t14: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Every gain of fine-tuning is positive and below one point."""
    every = joined(t4, t14)
    gains = difference(ours(every, "nas_fine_tuned"), ours(every, "nas"))
    same = all(abs(gains[s] - v) < HALF_DIGIT for s, v in zip(values["sizes"], values["v2"], strict=True))
    return Verdict(
        agree(same and min(gains.values()) > 0 and max(gains.values()) < 1),
        gains,
        "“Modest” is taken as positive and below one point.",
    )


def c082(t4: "pd.DataFrame") -> Verdict:
    """2XL above both open-vocabulary models, without fine-tuning."""
    own = ours(t4, "nas")["2XL"]
    over = {model: round(own - ap(t4, model, "T"), 1) for model in ("GroundingDINO", "LLMDet")}
    return Verdict(agree(min(over.values()) > 0), over, "Small objects are the exception: see I48.")


def c083(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """RT-DETR above D-FINE at AP50, pair by pair."""
    every = joined(t4, t14)
    over = {
        size: round(cell(every, "ap50", model="RT-DETR", size=other)
                    - cell(every, "ap50", model="D-FINE", size=size), 1)
        for size, other in _PAIRS.items()
    }  # fmt: skip
    return Verdict(agree(min(over.values()) > 0), over, "AP50 of the models next to each other in size.")


def c084(t14: "pd.DataFrame") -> Verdict:
    """2XL (DINOv2-B) above XL (DINOv2-S)."""
    own = ours(t14, "nas")
    gain = round(own["2XL"] - own["XL"], 1)
    return Verdict(agree(gain > 0), {"difference, AP": gain}, "2XL is also 1.6 times as slow as XL.")


def c085(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """The best YOLO row is below the worst DETR row."""
    every = joined(t4, t14)
    yolo = float(every[every["model"].isin(YOLO)]["ap"].max())
    detr = float(every[every["model"].isin((*SPECIALISTS, "RF-DETR"))]["ap"].min())
    return Verdict(agree(yolo < detr), {"best YOLO": yolo, "worst DETR": detr}, "Printed AP.")


def c086(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """From S to XL the YOLO families gain less than half a point."""
    every = joined(t4, t14)
    gain = {f"{model}, S to XL": round(ap(every, model, "XL") - ap(every, model, "S"), 1) for model in YOLO}
    first = {f"{model}, N to S": round(ap(every, model, "S") - ap(every, model, "N"), 1) for model in YOLO}
    return Verdict(
        agree(max(gain.values()) < 0.5),
        gain | first,
        "Taken from S upward, with half a point as the limit; N to S is printed beside it.",
    )


def c108(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """D-FINE below RT-DETR, pair by pair, in AP."""
    every = joined(t4, t14)
    over = {
        size: round(ap(every, "D-FINE", size) - ap(every, "RT-DETR", other), 1)
        for size, other in _PAIRS.items()
    }
    return Verdict(
        agree(max(over.values()) < 0), over, "D-FINE minus RT-DETR in AP; at AP50 the claim holds (C083)."
    )


def c143(t14: "pd.DataFrame", t14_v1: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The margin of the caption against the table of the same version."""
    found = {
        version: round(ours(table, "nas")["XL"] - ap(table, "D-FINE", "XL"), 1)
        for version, table in (("v1", t14_v1), ("v2", t14))
    }
    printed = round(values["v1"][0] - values["v1"][1], 1)
    return Verdict(
        agree(abs(found["v2"] - printed) < HALF_DIGIT),
        found | {"caption": printed},
        "The caption of v2 kept the margin of v1.",
    )


def c144(t14: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The printed gain of fine-tuning XL."""
    gain = ours(t14, "nas_fine_tuned")["XL"] - ours(t14, "nas")["XL"]
    printed = values["v2"][1] - values["v2"][0]
    return Verdict(agree(abs(gain - printed) < HALF_DIGIT), {"difference, AP": round(gain, 1)}, "Printed AP.")
