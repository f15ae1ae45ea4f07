"""Chapter 06: verdicts on latency and precision that need a measurement. The tables are in
`paper.arithmetic.latency`.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.latency import ENGINE_VARIANCE_MS
from rfdetr.paper.verdicts import Check, Verdict

if TYPE_CHECKING:
    import pandas as pd

T4 = "needs an NVIDIA T4 with TensorRT"
_ROUNDING = 1e-6
_PAUSE_MS = 200


def c020(t4_rows: "pd.DataFrame | None") -> Verdict:
    """Medians with pauses of 200 ms and more. t4_rows: of `rfdetr.benchmark.t4.run_t4`, or None."""
    if t4_rows is None:
        return Verdict(T4, {}, "A processor throttles otherwise or not at all.")
    buffered = t4_rows[t4_rows["protocol"] == "buffered"]
    medians = buffered.pivot_table(index=["model", "requested"], columns="pause_ms", values="latency_ms")
    longer = medians.loc[:, medians.columns.astype(float) >= _PAUSE_MS]
    change = float((longer.max(axis=1) - longer.min(axis=1)).max())
    return Verdict(
        "consistent" if change <= ENGINE_VARIANCE_MS + _ROUNDING else "contradicted",
        {"largest change between pauses of 200 ms and more, ms": round(change, 2)},
        "Longer pauses give the same number, so the protocol is repeatable there.",
    )


def c057(t4_rows: "pd.DataFrame | None") -> Verdict:
    """What the watcher of the GPU saw with pauses of 200 ms and more."""
    if t4_rows is None:
        return Verdict(T4, {}, "Power and clocks of a GPU have to be watched during the measurement.")
    buffered = t4_rows[t4_rows["protocol"] == "buffered"]
    states = sorted(set(buffered.loc[buffered["pause_ms"] >= _PAUSE_MS, "throttle"]))
    unseen = "not resolved" if "not monitored" in states else "consistent"
    return Verdict(
        "contradicted" if "throttled" in states else unseen,
        {"states with pauses of 200 ms and more": states},
        "Power, clocks and throttle reasons were read during the measurement.",
    )


def c058() -> Verdict:
    """D-FINE is what the claim is about."""
    return Verdict(
        "needs D-FINE's weights and COCO",
        {},
        "The overflow of this page was made on purpose; it shows the mechanism, not D-FINE.",
    )


def c061(accuracy: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The whole interval within the printed loss.

    accuracy: from `ch06_protocol.summarise` of the network, its file and its FP16 file (rounded), in this
    order.
    """
    half = accuracy.iloc[2]
    limit = values["max_drop"] / 100
    low, high = float(half["low"]), float(half["high"])
    word = "consistent" if max(abs(low), abs(high)) <= limit else "not resolved"
    return Verdict(
        "contradicted" if high < -limit else word,
        {
            "AP of FP16 minus FP32": round(float(half["difference"]), 4),
            "95 %": [round(low, 4), round(high, 4)],
        },
        "A miniature of this design on embedded scenes, FP16 emulated: every tensor rounded. Consistent only"
        " if the whole interval lies within the printed loss.",
    )


def c118(t4_rows: "pd.DataFrame | None") -> Verdict:
    """Both ways of running are needed."""
    if t4_rows is None:
        return Verdict("needs an NVIDIA GPU", {}, "CUDA graphs were not run here.")
    return Verdict("needs a run without CUDA graphs", {}, "The engines here were replayed as graphs.")


def check_fp16_tool(overflow: "pd.DataFrame") -> Check:
    """overflow: from `ch06_protocol.summarise` of the rescaled network, its plain and its safe FP16 file."""
    full, plain, safe = (overflow.iloc[i] for i in range(3))
    lost = bool(plain["high"] < 0 and plain["AP"] < 0.1 * full["AP"])
    kept = bool(abs(safe["difference"]) <= 0.01)
    return Check(
        "Where a plain FP16 file overflows and loses its AP, the file with the named operators in FP32 keeps"
        " it",
        lost and kept,
        {
            "FP32": round(float(full["AP"]), 3),
            "plain FP16": round(float(plain["AP"]), 3),
            "named operators in FP32": round(float(safe["AP"]), 3),
        },
        "On a network whose hidden units were rescaled by 2¹⁷ on purpose.",
    )
