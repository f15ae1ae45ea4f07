"""Claims about Tables 1 and 20 and Section 4, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, cell
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

ENGINE_VARIANCE_MS = 0.1
"""What a rebuilt engine changes, by the paper's own statement (claim C109)."""
_ROUNDING = 1e-6


def one_row_each(t1: "pd.DataFrame") -> "pd.DataFrame":
    """Table 1 with one row per detector: AP and latency `_reported`, `_fp32`, `_fp16`; speed_up, ap_lost."""
    import pandas as pd

    wide = t1.pivot(index=["model", "size"], columns="setting", values=["ap", "latency_ms"])
    names = [f"{column[0]}_{column[1]}".replace("buffering_", "") for column in wide.columns.tolist()]
    wide.columns = pd.Index(names)
    wide["ap_naive_fp16"] = t1.dropna(subset="ap_naive_fp16").set_index(["model", "size"])["ap_naive_fp16"]
    order = t1[["model", "size"]].drop_duplicates()
    frame = order.merge(wide.reset_index(), on=["model", "size"])
    frame["speed_up"] = frame["latency_ms_fp32"] / frame["latency_ms_fp16"]
    frame["ap_lost"] = (frame["ap_fp32"] - frame["ap_fp16"]).round(1)
    return frame


def with_gains(t20: "pd.DataFrame") -> "pd.DataFrame":
    """Table 20 with `gain_ms`, what a 200 ms pause changes, and `beyond_ms`, the largest change beyond it."""
    at_200 = t20["latency_ms_buffer_200ms"]
    longer = t20[["latency_ms_buffer_400ms", "latency_ms_buffer_800ms"]]
    return t20.assign(
        gain_ms=(t20["latency_ms_buffer_0ms"] - at_200).round(1),
        beyond_ms=longer.sub(at_200, axis=0).abs().max(axis=1).round(1),
    )


def c019(t1: "pd.DataFrame", t20: "pd.DataFrame") -> Verdict:
    """What a pause changes, against the disagreement that throttling is said to explain: at least half."""
    one = one_row_each(t1)
    reported, ours = (cell(one, f"latency_ms_{at}", model="LW-DETR") for at in ("reported", "fp16"))
    gap, gain = reported - ours, cell(with_gains(t20), "gain_ms", model="LW-DETR")
    return Verdict(
        agree(gain >= gap / 2),
        {"LW-DETR M, reported minus buffered FP16, ms": round(gap, 1), "a 200 ms pause changes, ms": gain},
        "Not supported by the paper's own tables, for the one detector that its text names, if other"
        " laboratories' GPUs throttled as this one did without a pause."
        if gain < gap / 2
        else "The pause changes most of the disagreement.",
    )


def c059(t1: "pd.DataFrame") -> Verdict:
    """Both YOLO rows stay below their reported AP at either precision."""
    one = one_row_each(t1)
    yolo = one[one["model"].str.startswith("YOLO")]
    below = (yolo["ap_fp32"] < yolo["ap_reported"]) & (yolo["ap_fp16"] < yolo["ap_reported"])
    return Verdict(
        agree(below.all()),
        {f"{r.model}, reported and FP16": [r.ap_reported, r.ap_fp16] for r in yolo.itertuples()},
        "Printed AP.",
    )


def c060(t1: "pd.DataFrame") -> Verdict:
    """Every YOLO row loses more than every other row."""
    one = one_row_each(t1)
    yolo = one["model"].str.startswith("YOLO")
    return Verdict(
        agree(one.loc[yolo, "ap_lost"].min() > one.loc[~yolo, "ap_lost"].max()),
        dict(zip(one["model"], one["ap_lost"].tolist(), strict=True)),
        "AP from FP32 to FP16, as printed.",
    )


def c062(t1: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The printed speed-ups against the ratios of the printed latencies."""
    one = one_row_each(t1)
    found = dict(zip(one["model"], one["speed_up"].round(1).tolist(), strict=True))
    pairs = zip(found.values(), values.values(), strict=True)
    return Verdict(
        agree(all(abs(a - b) <= HALF_DIGIT for a, b in pairs)),
        found,
        "Ratios of the paper's latencies; what FP16 costs on a processor says nothing about a GPU.",
    )


def c161(t20: "pd.DataFrame") -> Verdict:
    """Beyond 200 ms no change larger than what a rebuilt engine is said to make."""
    most = float(with_gains(t20)["beyond_ms"].max())
    return Verdict(
        agree(most <= ENGINE_VARIANCE_MS + _ROUNDING),
        {"largest change beyond 200 ms, ms": most},
        "Not larger than what rebuilding an engine is said to change.",
    )


def c162(t20: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The range of what a 200 ms pause changes."""
    gains = with_gains(t20)["gain_ms"].tolist()
    printed = values["delta_ms"]
    return Verdict(
        agree(abs(min(gains) - min(printed)) < HALF_DIGIT and abs(max(gains) - max(printed)) < HALF_DIGIT),
        dict(zip(t20["model"], gains, strict=True)),
        "Differences of Table 20.",
    )


def c163(values: dict[str, Any]) -> Verdict:
    """One pause for each image of COCO val2017."""
    minutes = values["images"] * values["pause_ms"] / 60000
    return Verdict(
        agree(abs(minutes - values["added_minutes"]) < HALF_DIGIT),
        {"added minutes": round(minutes, 1)},
        "One pause for each image of COCO val2017.",
    )


def c109(t1: "pd.DataFrame", t2: "pd.DataFrame", t20: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The same detector in three tables that were timed alike: apart by no more than the stated 0.1 ms."""
    apart = {}
    for row in t20.to_dict("records"):
        model, size = row["model"], row["size"]
        times = [
            cell(t1, "latency_ms", model=model, setting="buffering_fp16"),
            cell(t2, "latency_ms", model=model, size=size),
            float(row["latency_ms_buffer_200ms"]),
        ]
        apart[f"{model} {size}"] = round(max(times) - min(times), 1)
    return Verdict(
        agree(max(apart.values()) <= values["variance_ms"] + _ROUNDING),
        apart,
        "Tables 1, 2 and 20: COCO, FP16, a pause of 200 ms, so only the engine should differ. The recipe for"
        " a T4 builds three engines per network and prints their range.",
    )
