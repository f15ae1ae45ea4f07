"""Verdicts of chapter 06 on the claims of Section 4, Table 1 and v2 Appendix K."""

from typing import TYPE_CHECKING

from rfdetr.experiments.base.verdicts import Verdict
from rfdetr.paper import tables

if TYPE_CHECKING:
    import pandas as pd

T4 = "needs an NVIDIA T4 with TensorRT"
ENGINE_VARIANCE_MS = 0.1
"""What a rebuilt engine changes, by the paper's own statement (claim C109)."""

_ROUNDING = 1e-6


def verdicts(
    one: "pd.DataFrame",
    twenty: "pd.DataFrame",
    accuracy: "pd.DataFrame",
    overflow: "pd.DataFrame",
    t4: "pd.DataFrame | None" = None,
) -> list[Verdict]:
    """All verdicts of the chapter.

    one, twenty    `latency_protocol.table_1` and `table_20`
    accuracy       `latency_protocol.summarise` of the network, its file and its FP16 file (rounded), in this
                   order
    overflow       the same of the rescaled network, its plain and its safe FP16 file
    t4             rows of `rfdetr.benchmark.t4.run_t4`, if there are some
    """
    missing = _without_a_t4() if t4 is None else _on_a_t4(t4)
    return [*_from_tables(one, twenty), *_measured(accuracy, overflow), *missing]


def _from_tables(one: "pd.DataFrame", twenty: "pd.DataFrame") -> list[Verdict]:
    names = one["model"] + " " + one["size"]
    yolo = one["model"].str.startswith("YOLO")
    lost = dict(zip(names, one["ap_lost"].tolist(), strict=True))
    below = (one["ap_fp32"] < one["ap_reported"]) & (one["ap_fp16"] < one["ap_reported"])
    speeds = dict(zip(names, one["speed_up"].round(1).tolist(), strict=True))
    ratios = [float(v) for v in _claim("C062").values()]
    gains, longer = twenty["gain_ms"].tolist(), float(twenty["beyond_ms"].max())
    minutes = _claim("C163")["images"] * _claim("C163")["pause_ms"] / 60000
    lw = one[one["model"] == "LW-DETR"].iloc[0]
    gap = float(lw["latency_ms_reported"] - lw["latency_ms_fp16"])
    pause_gain = float(twenty.loc[twenty["model"] == "LW-DETR", "gain_ms"].iloc[0])
    return [
        Verdict(
            "C019",
            "contradicted" if pause_gain < gap / 2 else "consistent",
            {
                "LW-DETR M, reported minus buffered FP16, ms": round(gap, 1),
                "what a 200 ms pause changes, ms": pause_gain,
            },
            "Table arithmetic: removing the throttling by a pause changes a small part of the "
            "disagreement that it is said to explain.",
        ),
        Verdict(
            "C059",
            "consistent" if below[yolo].all() else "contradicted",
            {
                n: [float(a), float(b)]
                for n, a, b in zip(names[yolo], one[yolo]["ap_reported"], one[yolo]["ap_fp16"], strict=True)
            },
            "Table arithmetic; the AP itself needs the weights and a T4.",
        ),
        Verdict(
            "C060",
            "consistent" if min(one[yolo]["ap_lost"]) > max(one[~yolo]["ap_lost"]) else "contradicted",
            lost,
            "Table arithmetic: every YOLO row loses more than every other row.",
        ),
        Verdict(
            "C062",
            "consistent"
            if all(abs(a - b) <= 0.05 + _ROUNDING for a, b in zip(speeds.values(), ratios, strict=True))
            else "contradicted",
            speeds,
            "Table arithmetic; what FP16 costs on a processor says nothing about a GPU.",
        ),
        Verdict(
            "C161",
            "consistent" if longer <= ENGINE_VARIANCE_MS + _ROUNDING else "contradicted",
            {"largest change beyond 200 ms, ms": longer},
            "Table arithmetic: not larger than what rebuilding an engine is said to change.",
        ),
        Verdict(
            "C162",
            "consistent" if min(gains) >= 0 and abs(max(gains) - 0.3) < 0.05 else "contradicted",
            dict(zip(twenty["model"], gains, strict=True)),
            "Table arithmetic.",
        ),
        Verdict(
            "C163",
            "consistent" if abs(minutes - _claim("C163")["added_minutes"]) < 0.05 else "contradicted",
            {"added minutes": round(minutes, 1)},
            "Arithmetic: one pause for each image of COCO val2017.",
        ),
    ]


def _measured(accuracy: "pd.DataFrame", overflow: "pd.DataFrame") -> list[Verdict]:
    half, plain, safe = accuracy.iloc[2], overflow.iloc[1], overflow.iloc[2]
    limit = _claim("C061")["max_drop"] / 100
    within = max(abs(half["low"]), abs(half["high"])) <= limit
    lost = plain["high"] < 0 and plain["AP"] < 0.1 * overflow.iloc[0]["AP"]
    return [
        Verdict(
            "C061",
            "consistent" if within else "not resolved",
            {
                "AP of FP16 minus FP32": round(float(half["difference"]), 4),
                "95 % interval": [round(float(half["low"]), 4), round(float(half["high"]), 4)],
            },
            "A miniature network of this design on embedded scenes, FP16 emulated; consistent only "
            "if the whole interval lies within the printed loss.",
        ),
        Verdict(
            "C058",
            "consistent" if lost else "not resolved",
            {
                "FP32": round(float(overflow.iloc[0]["AP"]), 3),
                "plain FP16": round(float(plain["AP"]), 3),
                "FP16 with the named nodes in FP32": round(float(safe["AP"]), 3),
            },
            "Nearly all of the AP is lost by a plain conversion; shown on a network whose hidden "
            "units were rescaled on purpose, not on D-FINE.",
        ),
    ]


def _without_a_t4() -> list[Verdict]:
    return [
        Verdict("C020", T4, {}, "No GPU was at hand; a processor throttles otherwise or not at all."),
        Verdict(
            "C057", T4, {}, "Power and clocks of a GPU have to be watched during both ways of measuring."
        ),
        Verdict("C109", T4, {}, "The recipe builds three engines per network and prints their range."),
        Verdict("C118", "needs an NVIDIA GPU", {}, "CUDA graphs were not run here."),
    ]


def _on_a_t4(t4: "pd.DataFrame") -> list[Verdict]:
    buffered = t4[t4["protocol"] == "buffered"]
    medians = buffered.pivot_table(index=["model", "requested"], columns="pause_ms", values="latency_ms")
    longer = medians.loc[:, medians.columns.astype(float) >= 200]
    change = float((longer.max(axis=1) - longer.min(axis=1)).max())
    ranges = float((buffered["latency_high_ms"] - buffered["latency_low_ms"]).max())
    states = set(buffered.loc[buffered["pause_ms"] >= 200, "throttle"])
    unseen = "not resolved" if "not monitored" in states else "consistent"
    return [
        Verdict(
            "C020",
            "consistent" if change <= ENGINE_VARIANCE_MS + _ROUNDING else "contradicted",
            {"largest change of a median between pauses of 200 ms and more, ms": round(change, 2)},
            "Longer pauses give the same number, so the protocol is repeatable there.",
        ),
        Verdict(
            "C057",
            "contradicted" if "throttled" in states else unseen,
            {"states with pauses of 200 ms and more": sorted(states)},
            "Power, clocks and throttle reasons were read during the measurement.",
        ),
        Verdict(
            "C109",
            "consistent" if ranges <= ENGINE_VARIANCE_MS + _ROUNDING else "contradicted",
            {"largest range over rebuilt engines, ms": round(ranges, 2)},
            "Medians of engines that were built one after the other from one file.",
        ),
        Verdict("C118", "needs a run without CUDA graphs", {}, "The engines here were replayed as graphs."),
    ]


def _claim(name: str) -> dict:
    return next(c["values"] for c in tables.document("claims") if c["id"] == name)
