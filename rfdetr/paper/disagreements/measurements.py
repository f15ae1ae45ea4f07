"""Disagreements about latencies and regressions (I58 to I63, I65, I66)."""

from typing import TYPE_CHECKING

from rfdetr.paper.arithmetic.cells import cell, ms, rows
from rfdetr.paper.arithmetic.characteristics import SIGNIFICANT, recomputed
from rfdetr.paper.arithmetic.latency import ENGINE_VARIANCE_MS, with_gains
from rfdetr.paper.disagreements.recount import Recount, listed

if TYPE_CHECKING:
    import pandas as pd

_TINY = 1e-6


def _spread(found: dict[str, float]) -> float:
    return max(found.values()) - min(found.values())


def _shown(found: dict[str, float]) -> str:
    return ", ".join(f"{where} {value:g}" for where, value in found.items()) + " ms"


def i58(t1: "pd.DataFrame", t2: "pd.DataFrame", t4: "pd.DataFrame", t20: "pd.DataFrame") -> Recount:
    """YOLOv11 M in four tables."""
    found = {
        "Table 1": cell(t1, "latency_ms", model="YOLOv11", setting="buffering_fp16"),
        "Table 2": ms(t2, "YOLOv11", "M"),
        "Table 4": ms(t4, "YOLOv11", "M"),
        "Table 20": cell(t20, "latency_ms_buffer_200ms", model="YOLOv11"),
    }
    return Recount(
        _spread(found) > ENGINE_VARIANCE_MS + _TINY, f"{_shown(found)}; stated {ENGINE_VARIANCE_MS:g} ms"
    )


def i59(t2: "pd.DataFrame", t4: "pd.DataFrame") -> Recount:
    """D-FINE M and LW-DETR M in Tables 2 and 4."""
    found = {model: (ms(t2, model, "M"), ms(t4, model, "M")) for model in ("D-FINE", "LW-DETR")}
    return Recount(
        max(abs(a - b) for a, b in found.values()) > ENGINE_VARIANCE_MS + _TINY,
        "; ".join(f"{model} {a:g} and {b:g} ms" for model, (a, b) in found.items()),
    )


def i60(t2: "pd.DataFrame", t18: "pd.DataFrame") -> Recount:
    """2XL in Tables 2 and 18."""
    two = ms(t2, "RF-DETR", "2XL")
    fixed = cell(t18, "latency_ms", variant="fixed_architecture", size="2XL")
    return Recount(two != fixed, f"{two:g} and {fixed:g} ms")


def i61(t1: "pd.DataFrame", t20: "pd.DataFrame") -> Recount:
    """What the pause changes, and the disagreement that throttling is said to explain."""
    gains = with_gains(t20)
    relative = 100 * gains["gain_ms"] / gains["latency_ms_buffer_200ms"]
    reported, buffered = (
        cell(t1, "latency_ms", model="LW-DETR", setting=s) for s in ("reported", "buffering_fp16")
    )
    gap = 100 * (1 - buffered / reported)
    return Recount(
        float(relative.max()) < gap / 2,
        f"a pause changes {listed(gains['gain_ms'].tolist())} ms, at most {relative.max():.0f} %; LW-DETR"
        f" {reported:g} to {buffered:g} ms is {gap:.0f} %",
    )


def i62(t20: "pd.DataFrame") -> Recount:
    """Latencies beyond a pause of 200 ms."""
    gains = with_gains(t20).set_index("model")
    moved = gains[gains["beyond_ms"] > 0]
    return Recount(
        len(moved) > 0,
        "; ".join(f"{model} changes by {value:g} ms" for model, value in moved["beyond_ms"].items())
        or "none changes",
    )


def i63(t5: "pd.DataFrame") -> Recount:
    """What the fourth decoder layer brings in Table 5."""
    gain = cell(t5, "ap", step=8) - cell(t5, "ap", step=7)
    times = [cell(t5, "latency_ms", step=step) for step in (7, 8)]
    percent = 100 * (times[1] / times[0] - 1)
    return Recount(
        gain < 1 and percent < 5,
        f"{gain:+.1f} AP and {times[0]:g} to {times[1]:g} ms ({percent:.0f} %), against 2 mAP and 10 %",
    )


_STRONG = (
    ("Number of Classes", "Number of Decoder Layers"),
    ("Average Objects per Image", "Number of Queries"),
    ("Number of Spatial Locations", "Number of Windows"),
)


def i65(t17: "pd.DataFrame") -> Recount:
    """t, R² and p of the three relations that are called strong."""
    again = recomputed(t17)
    found = [rows(again, first_variable=a, second_variable=b).iloc[0] for a, b in _STRONG]
    return Recount(
        any(float(row["p_again"]) > SIGNIFICANT for row in found),
        "; ".join(
            f"{row['first_variable']}: t = {row['t']:.2f}, R² = {row['r_squared_again']:.3f},"
            f" p = {row['p_again']:.3f}"
            for row in found
        ),
    )


def i66(t17: "pd.DataFrame") -> Recount:
    """Queries against objects per image."""
    row = rows(recomputed(t17), first_variable=_STRONG[1][0], second_variable=_STRONG[1][1]).iloc[0]
    return Recount(
        float(row["p_again"]) > SIGNIFICANT,
        f"slope {row['slope']:g}, R² = {row['r_squared_again']:.3f}, p = {row['p_again']:.3f}",
    )
