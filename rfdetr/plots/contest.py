"""Figures of a run of many detectors on one processor: relative times beside print, gains by size."""

from typing import TYPE_CHECKING

from rfdetr.plots.style import COLOURS, PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

_TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def relative(timed: "pd.DataFrame", ways: "Sequence[str]", reference: str) -> "Figure":
    """Time over that of `reference`, as printed and as measured, one panel per way; on the line both agree.

    timed: from `ch07_timed.beside_print`.
    """
    import matplotlib.pyplot as plt

    rows = -(-len(ways) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(7.2, 3.3 * rows), sharex=True, sharey=True, squeeze=False)
    columns = [f"relative {way}" for way in ways]
    values = timed[["relative_printed", *columns]].to_numpy(float)
    ends = (values[values > 0].min() * 0.85, values.max() * 1.2)
    for panel, way, column in zip(panels.flat, ways, columns, strict=False):
        panel.plot(ends, ends, color=PUBLISHED, linewidth=0.8, linestyle=":")
        for colour, (family, part) in zip(COLOURS, timed.groupby("family", sort=False), strict=False):
            panel.plot(part.relative_printed, part[column], "o", color=colour, label=family, markersize=5)
        panel.set(xscale="log", yscale="log", title=way, xlim=ends, ylim=ends)
        _ticks(panel.xaxis, ends)
        _ticks(panel.yaxis, ends)
    for panel in panels.flat[len(ways) :]:
        panel.set_visible(False)
    figure.supxlabel(f"printed latency (T4) over that of {reference}", fontsize=10)
    figure.supylabel("measured here, over the same", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def gains(found: "pd.DataFrame") -> "Figure":
    """Speed-up over ONNX Runtime in FP32 against GFLOPs, one colour per way. found: from
    `ch07_gains.gains`.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for colour, marker, (way, part) in zip(COLOURS, "osD^v", found.groupby("way", sort=False), strict=False):
        part = part.sort_values("gflops")
        axis.plot(part.gflops, part.gain, marker, color=colour, label=way, markersize=5)
    axis.axhline(1, color=PUBLISHED, linewidth=0.8, linestyle=":")
    axis.set(xscale="log", xlabel="GFLOPs, one convention", ylabel="times as fast as ONNX Runtime, FP32")
    axis.set_ylim(bottom=0)
    _ticks(axis.xaxis, (found.gflops.min(), found.gflops.max()))
    axis.legend(fontsize=9)
    return figure


def _ticks(axis: object, ends: tuple[float, float]) -> None:
    """Plain numbers on a log axis."""
    shown = [value for value in _TICKS if ends[0] <= value <= ends[1]]
    axis.set_ticks(shown, [f"{value:g}" for value in shown])  # type: ignore[attr-defined]
    axis.set_minor_locator(_none())  # type: ignore[attr-defined]


def _none() -> object:
    from matplotlib.ticker import NullLocator

    return NullLocator()
