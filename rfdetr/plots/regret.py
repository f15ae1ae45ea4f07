"""Figures of chapter 05's budgeted searches: regret against cost, and the bill."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_LEAST = 1e-4  # regrets below are drawn here: the axis is logarithmic
_STYLES: dict[str, dict[str, Any]] = {
    "multifidelity": {"color": COLOURS[0], "linewidth": 2.6, "marker": "o", "zorder": 5},
    "token-rule": {"color": COLOURS[1], "marker": "s"},
    "token-rule-tenth": {"color": COLOURS[1], "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    "guided": {"color": COLOURS[4], "marker": "D"},
    "halving": {"color": COLOURS[2], "marker": "v"},
    "hyperband": {"color": COLOURS[2], "marker": "v", "linestyle": "--", "markerfacecolor": "white"},
    "tpe-hyperband": {"color": COLOURS[3], "marker": "^"},
    "tpe": {"color": COLOURS[3], "marker": "^", "linestyle": "--", "markerfacecolor": "white"},
    "nsga2": {"color": COLOURS[5], "marker": "P"},
    "cheap-random": {"color": COLOURS[6], "marker": "x"},
    "random": {"color": COLOURS[6], "marker": "x", "linestyle": ":"},
}


def against_cost(medians: "pd.DataFrame", names: Mapping[str, str]) -> "Figure":
    """Regret against the part of the exact search's operations, one line per method: mean over latencies, and
    at the worst latency.

    medians   one row per sampler and budget (`ch05_regret.summary`, of one set);   names: of the methods
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 4.6), sharey=True)
    columns = (("regret_mean", "mean over latencies"), ("regret_worst", "at the worst latency"))
    for axis, (column, title) in zip(axes, columns, strict=True):
        _lines(axis, medians, column, names)
        axis.set(title=title, xlabel="cost, % of the exact search")
    axes[0].set(ylabel="AP lost (regret)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def by_set(medians: "pd.DataFrame", names: Mapping[str, str]) -> "Figure":
    """Mean regret against the part of the exact search's operations, one panel per set, one line per method.

    medians   one row per set, sampler and budget (`ch05_regret.summary`);   names: of the methods
    """
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(medians["set"]))
    rows = -(-len(sets) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(7.2, 1.2 + 2.5 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, sets, strict=False):
        _lines(axis, medians[medians["set"] == name], "regret_mean", names)
        axis.set(title=name)
    for axis in axes.flat[len(sets) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set(ylabel="mean AP lost")
    for axis in axes.flat[max(0, len(sets) - 2) : len(sets)]:
        axis.xaxis.set_tick_params(labelbottom=True)
        axis.set(xlabel="cost, % of the exact search")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _lines(axis: Any, medians: "pd.DataFrame", column: str, names: Mapping[str, str]) -> None:
    """One line per method on logarithmic axes."""
    for sampler, rows in medians.groupby("sampler", sort=False):
        style = {"linewidth": 1.2, "markersize": 4, **_STYLES.get(str(sampler), {})}
        rows = rows.sort_values("budget")
        axis.plot(
            100 * rows["budget"],
            rows[column].clip(lower=_LEAST),
            label=names.get(str(sampler), str(sampler)),
            **style,
        )
    axis.set(xscale="log", yscale="log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def bill(table: "pd.DataFrame") -> "Figure":
    """Operations of each way to search, on a logarithmic axis (`ch05_bill.bill`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 2.4))
    places = range(len(table))
    axis.plot(table["exaflops"], places, "o", color=COLOURS[0])
    axis.set_yticks(list(places), table["way"], fontsize=8)
    for place, row in zip(places, table.to_dict("records"), strict=True):
        text = f"  {row['factor']:,.0f} times less" if row["factor"] > 1 else ""
        axis.annotate(text, (row["exaflops"], place), va="center", fontsize=8)
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="EFLOPs (1e18 operations) for the whole search")
    axis.set_xlim(right=axis.get_xlim()[1] * 4)
    return figure
