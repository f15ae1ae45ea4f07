"""Figures of chapter 04: losses, updates, learning curves, accuracy knob by knob."""

from typing import TYPE_CHECKING

from rfdetr.experiments.ch04_learning import KNOB_NAMES
from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def losses(table: "pd.DataFrame") -> "Figure":
    """One panel per loss, one line per layer (`learning.loss_table`)."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    kinds = list(dict.fromkeys(table["loss"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(7.2, 3.0), sharex=True)
    for axis, kind in zip(axes, kinds, strict=True):
        for colour, (layer, rows) in zip(
            COLOURS, table[table["loss"] == kind].groupby("layer", sort=False), strict=False
        ):
            axis.plot(rows["step"], rows["value"], color=colour, label=layer, linewidth=1.2)
        axis.set(title=kind, xlabel="step", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("loss (running mean)")
    axes[-1].legend(fontsize=8)
    return figure


def updates(table: "pd.DataFrame") -> "Figure":
    """Heat maps of updates per encoder setting, one panel per window count (`learning.update_table`)."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    windows = sorted(table["windows"].unique())
    figure, axes = plt.subplots(1, len(windows), figsize=(7.2, 2.8), sharey=True, squeeze=False)
    most = table["updates"].max()
    for axis, count in zip(axes[0], windows, strict=True):
        grid = table[table["windows"] == count].pivot(
            index="patch_size", columns="resolution", values="updates"
        )
        sns.heatmap(
            grid,
            ax=axis,
            annot=True,
            fmt=".0f",
            cmap="Blues",
            vmin=0,
            vmax=most,
            cbar=False,
            annot_kws={"size": 8},
        )
        axis.set(
            title=f"{count} x {count} windows" if count > 1 else "one window",
            xlabel="resolution (px)",
            ylabel="",
        )
    axes[0, 0].set_ylabel("patch size (px)")
    return figure


def learning_curves(curve: "pd.DataFrame", x: str = "step", x_name: str = "training step") -> "Figure":
    """AP over training, one line per sub-network or run (`learning.learning_curve`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    for colour, (label, rows) in zip(COLOURS, curve.groupby("sub_network", sort=False), strict=False):
        axis.plot(rows[x], rows["AP"], marker="o", markersize=4, color=colour, label=label)
    axis.set(xlabel=x_name, ylabel="AP", ylim=(0, None))
    axis.legend(fontsize=8)
    return figure


def ranking(share: "pd.DataFrame") -> "Figure":
    """AP inherited from the supernet against AP trained alone (`ch04_ranking_summary.training_share`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.4, 4.2))
    x_spread, y_spread = share["alone_std"].fillna(0), share["inherited_std"].fillna(0)
    axis.errorbar(
        share["alone"], share["inherited"], y_spread, x_spread, fmt="o", color=COLOURS[0], linewidth=0.8
    )
    ends = [0, 1.02 * float(share[["alone", "inherited"]].to_numpy().max())]
    axis.plot(ends, ends, color=COLOURS[6], linewidth=0.8)
    axis.set(xlabel="AP trained alone", ylabel="AP inherited from the supernet", xlim=ends, ylim=ends)
    return figure


def sweeps(table: "pd.DataFrame") -> "Figure":
    """AP with its interval when one knob changes, one panel per knob; hollow marks were never trained."""
    import matplotlib.pyplot as plt

    knobs = list(dict.fromkeys(table["knob"]))
    # Two rows, so that a panel is still readable on a phone.
    figure, grid = plt.subplots(2, 3, figsize=(7.2, 4.6), sharey=True)
    axes = grid.ravel()
    for axis in axes[len(knobs) :]:
        axis.set_visible(False)
    for axis, knob in zip(axes, knobs, strict=False):
        rows = table[table["knob"] == knob]
        axis.plot(rows["value"], rows["AP"], color=COLOURS[0])
        axis.fill_between(rows["value"], rows["low"], rows["high"], color=COLOURS[0], alpha=0.15, linewidth=0)
        for seen, face in ((True, COLOURS[0]), (False, "white")):
            some = rows[rows["seen"] == seen]
            axis.plot(some["value"], some["AP"], "o", color=COLOURS[0], markerfacecolor=face, markersize=6)
        axis.set(xlabel=KNOB_NAMES[knob])
        axis.set_xticks(rows["value"])
        axis.tick_params(axis="x", labelsize=8)
    for axis in grid[:, 0]:
        axis.set(ylabel="AP on test scenes", ylim=(0, None))
    return figure


def updates_and_accuracy(found: "pd.DataFrame") -> "Figure":
    """AP of every encoder setting against its updates, as it is and from the mean at equal tokens
    (`ch04_share.updates_against_ap`); colours are tokens a side.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), sharex=True)
    for axis, column in zip(axes, ("AP", "relative"), strict=True):
        points = axis.scatter(found["updates"], found[column], c=found["side"], cmap="viridis", s=16)
    axes[0].set(xlabel="updates (steps that drew it)", ylabel="AP on validation scenes", ylim=(0, None))
    axes[1].set(xlabel="updates (steps that drew it)", ylabel="AP, from the mean at equal tokens")
    axes[0].set_xscale("log")
    most = found["updates"].max()
    places = [f * 10**p for p in range(6) for f in (1, 2, 5) if found["updates"].min() <= f * 10**p <= most]
    axes[0].set_xticks(places, [f"{place:,}" for place in places])
    axes[0].xaxis.set_minor_formatter("")
    figure.colorbar(points, ax=axes, label="tokens a side")
    return figure
