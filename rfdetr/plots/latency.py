"""Figures of chapter 06: latencies by protocol, growing queues, pauses."""

from typing import TYPE_CHECKING

from rfdetr.plots.style import COLOURS, PUBLISHED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PERCENTILES = (("median_ms", "median", "o"), ("p90_ms", "90 %", "|"), ("p99_ms", "99 %", "s"))


def timelines(work_ms: float = 10.0, slow_ms: float = 45.0) -> "Figure":
    """What the three protocols count, drawn for passes of `work_ms` of which the third takes `slow_ms`.

    Bars are passes, the pale bars below them frames that wait; triangles are arrivals. The number is the
    latency that is reported.
    """
    import matplotlib.pyplot as plt

    passes = [work_ms, work_ms, slow_ms, work_ms, work_ms, work_ms]
    pause, period = 1.5 * work_ms, 2 * work_ms
    rows = (
        ("buffered\na pause before each pass", COLOURS[0], passes[:4]),
        ("sustained\npass after pass", COLOURS[2], passes),
        ("rate\nframes arrive by the clock", COLOURS[1], passes),
    )
    figure, axes = plt.subplots(3, 1, figsize=(7.2, 4.2), sharex=True)
    for axis, (label, colour, durations) in zip(axes, rows, strict=True):
        free = 0.0
        for number, duration in enumerate(durations):
            arrival = number * period if axis is axes[2] else free + (pause if axis is axes[0] else 0.0)
            begin = max(free, arrival)
            if begin > arrival:
                axis.barh(-0.32, begin - arrival, left=arrival, height=0.16, color=colour, alpha=0.35)
            if axis is axes[2]:
                axis.plot(arrival, -0.62, marker="^", color=PUBLISHED, markersize=6)
            axis.barh(0, duration, left=begin, height=0.4, color=colour, edgecolor="white")
            counted = begin + duration - arrival
            axis.text(begin + duration / 2, 0.26, f"{counted:.0f}", ha="center", va="bottom", fontsize=8)
            free = begin + duration
        axis.set(yticks=[0], ylim=(-0.8, 0.7))
        axis.set_yticklabels([label], fontsize=8)
        axis.grid(visible=False)
    axes[-1].set_xlabel("time (ms)")
    return figure


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
