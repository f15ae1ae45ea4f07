"""Figures of the chapters about many domains: differences with intervals, transfer, lengths of training."""

from typing import TYPE_CHECKING

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def differences(df: "pd.DataFrame", label: str, axis_label: str, group: str = "") -> "Figure":
    """Differences with their 95 % intervals, one line each; those whose interval leaves out 0 are filled.

    df: columns `label` (words), difference, low, high, and `group` (colours), if named.
    """
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys(df[group])) if group else [None]
    lines = list(dict.fromkeys(df[label]))
    figure, axis = plt.subplots(figsize=(7.2, 0.9 + 0.30 * max(2, len(lines)) * max(1, 0.7 * len(groups))))
    for number, (colour, name) in enumerate(zip(COLOURS, groups, strict=False)):
        rows = df if name is None else df[df[group] == name]
        places = [
            lines.index(text) + (number - (len(groups) - 1) / 2) * 0.7 / len(groups) for text in rows[label]
        ]
        axis.hlines(places, rows["low"], rows["high"], color=colour, linewidth=1.6)
        clear = (rows["low"] > 0) | (rows["high"] < 0)
        faces = [colour if yes else "white" for yes in clear]
        axis.scatter(
            rows["difference"], places, c=faces, edgecolors=colour, s=30, zorder=3,
            label=None if name is None else str(name),
        )  # fmt: skip
    axis.axvline(0, color=COLOURS[6], linewidth=0.8)
    axis.set(xlabel=axis_label)
    axis.set_yticks(range(len(lines)), lines)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    if group:
        figure.legend(fontsize=8, loc="outside lower center", ncols=len(groups))
    return figure


def knob_sensitivity(steps: "pd.DataFrame") -> "Figure":
    """AP and cost when one knob is raised, others equal: both relative to the knob's lowest value, one line
    per knob (`ch_h_architectures.knob_steps`).
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    for colour, (knob, rows) in zip(COLOURS, steps.groupby("knob", sort=False), strict=False):
        cost = [1.0, *rows["gflops_ratio"].cumprod()]
        gain = [0.0, *rows["gain"].cumsum()]
        axis.plot(cost, gain, marker="o", markersize=4, color=colour, label=str(knob).replace("_", " "))
        axis.annotate(f"{rows['upper'].iloc[-1]:g}", (cost[-1], gain[-1]), xytext=(4, 2),
                      textcoords="offset points", fontsize=8, color=colour)  # fmt: skip
    axis.set(xscale="log", xlabel="operations, relative to the knob's lowest value", ylabel="change of AP")
    axis.set_xticks([0.03, 0.1, 0.3, 1, 2, 4], ["0.03", "0.1", "0.3", "1", "2", "4"])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    return figure


def along_the_front(best: "pd.DataFrame") -> "Figure":
    """Tokens a side, decoder layers and queries of the front's sub-networks against cost, and their AP."""
    import matplotlib.pyplot as plt

    parts = {"AP": "AP", "side": "tokens a side", "decoder_layers": "decoder layers", "queries": "queries"}
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 4.4), sharex=True)
    for axis, (colour, (column, text)) in zip(
        axes.flat, zip(COLOURS, parts.items(), strict=False), strict=True
    ):
        axis.plot(best["gflops"], best[column], drawstyle="steps-post", color=colour, marker=".")
        axis.set(title=text, xscale="log")
    for axis in axes[1]:
        axis.set_xlabel("GFLOPs per image")
    return figure


def queries_and_objects(df: "pd.DataFrame") -> "Figure":
    """Mean of the queries chosen against objects per picture, one named point per domain."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for colour, (kind, rows) in zip(COLOURS, df.groupby("kind", sort=False), strict=False):
        axis.scatter(rows["objects_per_image"], rows["queries"], color=colour, label=str(kind))
    for row in df.itertuples():
        axis.annotate(str(row.domain).replace("_", " "), (row.objects_per_image, row.queries), xytext=(4, 4),
                      textcoords="offset points", fontsize=7)  # fmt: skip
    axis.set(xscale="log", xlabel="objects per picture", ylabel="queries chosen (mean)")
    axis.legend(fontsize=8)
    return figure


def transfer(matrix: "pd.DataFrame") -> "Figure":
    """Loss in AP of an architecture chosen on one domain (rows) and used on another (columns), one square per
    target (`ch_g_transfer.matrices`). Bold: the interval leaves out 0.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    targets = list(dict.fromkeys(matrix["target"]))
    columns = list(dict.fromkeys(matrix["used_on"]))
    lines = ["fixed", *columns]
    side = 0.75 + 0.42 * len(lines)
    stacked = len(columns) > 4
    shape = (len(targets), 1) if stacked else (1, len(targets))
    size = (7.2, len(targets) * side) if stacked else (7.2, max(2.0, side))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    limit = max(float(matrix["difference"].abs().max()), 1e-6)
    for axis, target in zip(axes.flat, targets, strict=True):
        part = matrix[matrix["target"] == target].set_index(["chosen_on", "used_on"])
        values = np.full((len(lines), len(columns)), np.nan)
        for i, chosen in enumerate(lines):
            for j, used in enumerate(columns):
                if (chosen, used) in part.index:
                    row = part.loc[(chosen, used)]
                    values[i, j] = row["difference"]
                    weight = "bold" if row["low"] > 0 or row["high"] < 0 else "normal"
                    text = "own" if chosen == used else f"{row['difference']:+.3f}"
                    axis.text(j, i, text, ha="center", va="center", fontsize=7, fontweight=weight)
        axis.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, alpha=0.6, aspect="auto")
        axis.set_title(f"target {target}", fontsize=9)
        names = [name.replace("_", " ") for name in columns]
        axis.set_xticks(range(len(columns)), names, fontsize=7, rotation=30, ha="right")
        show_lines = stacked or axis is axes.flat[0]
        labels = [name.replace("_", " ") for name in lines] if show_lines else []
        axis.set_yticks(range(len(lines)) if labels else [], labels, fontsize=7)
        axis.grid(visible=False)
    axes.flat[0].set_ylabel("chosen on", fontsize=8)
    figure.supxlabel("used on", fontsize=8)
    return figure


def lengths(df: "pd.DataFrame") -> "Figure":
    """Gain in AP against epochs of further training alone, one line per domain and seed
    (`ch_f_tuning.by_length`).
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    domains = list(dict.fromkeys(df["domain"]))
    for (domain, seed), rows in df.groupby(["domain", "seed"], sort=False):
        colour = COLOURS[domains.index(domain) % len(COLOURS)]
        first = seed == df.loc[df["domain"] == domain, "seed"].iloc[0]
        label = str(domain).replace("_", " ") if first else None
        axis.plot(rows["epochs"], rows["gain"], marker="o", markersize=4, color=colour, label=label)
    axis.axhline(0, color=COLOURS[6], linewidth=0.8)
    axis.set(xlabel="epochs of further training", ylabel="gain in AP")
    axis.legend(fontsize=8)
    return figure
