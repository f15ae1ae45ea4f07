"""Figures of chapter 06: latencies by protocol, growing queues, pauses."""

from typing import TYPE_CHECKING

from rfdetr.plots.style import COLOURS, PUBLISHED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PERCENTILES = (("median_ms", "median", "o"), ("p90_ms", "90 %", "|"), ("p99_ms", "99 %", "s"))


def protocols(frame: "pd.DataFrame") -> "Figure":
    """One line per setting from the fastest to the slowest pass, with median, 90th and 99th percentile (log
    axis).

    frame: `latency_protocol.Timed.frame`.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.36 * len(frame)))
    for position, (_, row) in enumerate(frame.iterrows()):
        colour = COLOURS[{"buffered": 0, "sustained": 2}.get(row["protocol"], 1)]
        axis.plot([row["min_ms"], row["max_ms"]], [position, position], color=colour, linewidth=1, alpha=0.6)
        for column, name, marker in _PERCENTILES:
            axis.plot(
                row[column],
                position,
                marker=marker,
                color=colour,
                markersize=7 if marker != "|" else 11,
                markerfacecolor=colour if marker == "o" else "white",
                linestyle="none",
                label=name if not position else None,
            )
    axis.set_yticks(range(len(frame)), frame["setting"])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="latency (ms), line from fastest to slowest")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, labelcolor=PUBLISHED)
    axis.grid(axis="y", visible=False)
    _plain(axis.xaxis)
    return figure


def queues(traces: "pd.DataFrame") -> "Figure":
    """Latency of every frame over its arrival, one line per frame rate (log axis). traces: `Timed.traces`."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    for colour, fps in zip(COLOURS, sorted(set(traces["fps"])), strict=False):
        rows = traces[traces["fps"] == fps]
        axis.plot(
            rows["arrival_s"],
            rows["latency_ms"],
            color=colour,
            marker=".",
            markersize=3,
            linewidth=1,
            label=f"{fps:.0f} per second",
        )
    axis.set(xlabel="arrival of the frame (s)", ylabel="latency from arrival (ms)", yscale="log")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    _plain(axis.yaxis)
    return figure


def pauses(printed: "pd.DataFrame", measured: "pd.DataFrame") -> "Figure":
    """Median latency against the pause: the paper's detectors on a T4 (left), this page's file (right).

    printed   `latency_protocol.printed_pauses`
    measured  `Timed.frame` of `latency_protocol.time_pauses`
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    for colour, (name, rows) in zip(COLOURS, printed.groupby("name", sort=False), strict=False):
        left.plot(rows["pause_ms"], rows["latency_ms"], marker="o", color=colour, label=name)
    left.set(title="printed (T4, TensorRT, FP16)", xlabel="pause (ms)", ylabel="median latency (ms)")
    left.legend(fontsize=7)
    right.errorbar(
        measured["pause_ms"],
        measured["median_ms"],
        yerr=[
            measured["median_ms"] - measured["median_low_ms"],
            measured["median_high_ms"] - measured["median_ms"],
        ],
        marker="o",
        color=COLOURS[0],
        capsize=3,
        label="median, 95 % interval",
    )
    right.set(title="measured here", xlabel="pause (ms)")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
    right.legend(fontsize=7)
    return figure


def _plain(axis: object) -> None:
    """Ticks of a log axis as 2, 5, 10, 20 instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]
    axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]
