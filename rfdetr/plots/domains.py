"""Figures of the chapters about many domains: differences with intervals, transfer, lengths of training."""

from typing import TYPE_CHECKING

import numpy as np

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERED = 8
"""Domains up to which a matrix has numbers in its squares."""


def differences(df: "pd.DataFrame", label: str, axis_label: str, group: str = "") -> "Figure":
    """Differences with their 95 % intervals, one line each.

    Points whose interval leaves out 0 are filled: full if `resolved` or without such a column, else pale.

    df: columns `label` (words), difference, low, high (NaN: no line), resolved if there is such, and `group`
    (colours), if named.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import to_rgba

    groups = list(dict.fromkeys(df[group])) if group else [None]
    lines = list(dict.fromkeys(df[label]))
    row = (0.30 if len(lines) <= 10 else 0.22) * max(1, 0.7 * len(groups))
    figure, axis = plt.subplots(figsize=(7.2, 0.9 + row * max(2, len(lines))))
    for number, (colour, name) in enumerate(zip(COLOURS, groups, strict=False)):
        rows = df if name is None else df[df[group] == name]
        places = [
            lines.index(text) + (number - (len(groups) - 1) / 2) * 0.7 / len(groups) for text in rows[label]
        ]
        # The line stands in the legend: whether a point is filled says something else.
        axis.hlines(
            places, rows["low"], rows["high"], color=colour, linewidth=1.6,
            label="" if name is None else str(name),
        )  # fmt: skip
        clear = (rows["low"] > 0) | (rows["high"] < 0)
        full = rows.get("resolved", clear)
        faces = [
            to_rgba(colour) if whole else _pale(colour) if part else to_rgba("white")
            for whole, part in zip(full, clear, strict=True)
        ]
        axis.scatter(rows["difference"], places, c=faces, edgecolors=colour, s=30, zorder=3)
    axis.axvline(0, color=COLOURS[6], linewidth=0.8)
    axis.set(xlabel=axis_label)
    axis.set_yticks(range(len(lines)), [str(line).replace("_", " ") for line in lines])
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    if group:
        figure.legend(fontsize=8, loc="outside lower center", ncols=len(groups))
    return figure


def _pale(colour: str) -> tuple[float, ...]:
    """A light tint of a colour, opaque, so that the line does not show through."""
    from matplotlib.colors import to_rgb

    return (*(0.6 + 0.4 * value for value in to_rgb(colour)), 1.0)


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

    figure, axis = plt.subplots(figsize=(7.2, 4.2 + 0.12 * max(0, len(df) - 10)))
    for colour, (kind, rows) in zip(COLOURS, df.groupby("kind", sort=False), strict=False):
        axis.scatter(rows["objects_per_image"], rows["queries"], color=colour, label=str(kind), s=24)
    axis.set(xscale="log", xlabel="objects per picture", ylabel="queries chosen (mean)")
    axis.margins(x=0.12, y=0.08)
    axis.legend(fontsize=8)
    figure.canvas.draw()
    _name_points(figure, axis, df)
    return figure


def _name_points(figure: "Figure", axis: "Axes", df: "pd.DataFrame") -> None:
    """The names of the domains, each where it covers no other name and no point: above, below or beside its
    point, or further off with a line to it.
    """
    points = axis.transData.transform(df[["objects_per_image", "queries"]].to_numpy(dtype=float))
    high, letter = 9.0 * figure.dpi / 72, 4.2 * figure.dpi / 72  # of a line, of a letter, in pixels
    frame = axis.get_window_extent().extents
    taken = [np.array([x - 4, y - 4, x + 4, y + 4]) for x, y in points]
    for point, row in zip(points, df.itertuples(), strict=True):
        text = str(row.domain).replace("_", " ")
        wide = letter * len(text)
        places = [
            np.array([side * (6 + wide / 2), up * high])
            for up in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
            for side in (1, -1, 0)
            if side or up
        ]

        def cost(place: np.ndarray, at: np.ndarray = point, half: float = wide / 2) -> float:
            box = np.concatenate([at + place - [half, high / 2], at + place + [half, high / 2]])
            others = np.array(taken)
            hits = ((box[:2] < others[:, 2:]) & (box[2:] > others[:, :2])).all(1).sum()
            outside = (box[:2] < frame[:2]).any() or (box[2:] > frame[2:]).any()
            return 1000.0 * hits + 10000.0 * outside + float(np.abs(place).sum())

        best = min(places, key=cost)
        taken.append(
            np.concatenate([point + best - [wide / 2, high / 2], point + best + [wide / 2, high / 2]])
        )
        line = {"arrowstyle": "-", "color": COLOURS[6], "linewidth": 0.5} if abs(best[1]) > high else None
        axis.annotate(text, (row.objects_per_image, row.queries), xytext=tuple(best * 72 / figure.dpi),
                      textcoords="offset points", fontsize=7, ha="center", va="center",
                      arrowprops=line)  # fmt: skip


def transfer(matrix: "pd.DataFrame") -> "Figure":
    """Loss in AP of an architecture chosen on one domain (rows) and used on another (columns), one square per
    target (`ch_g_transfer.matrices`). Marked, whose interval leaves out 0: in bold numbers, or, where the
    squares are too many for numbers, by a dot.
    """
    import matplotlib.pyplot as plt

    targets = list(dict.fromkeys(matrix["target"]))
    columns = list(dict.fromkeys(matrix["used_on"]))
    lines = [*(name for name in dict.fromkeys(matrix["chosen_on"]) if name not in columns), *columns]
    many = len(columns) > _NUMBERED
    side = (1.1 + 0.17 * len(lines)) if many else (0.75 + 0.42 * len(lines))
    stacked = len(columns) > 4
    shape = (len(targets), 1) if stacked else (1, len(targets))
    size = (7.2, len(targets) * side + 0.5 * many) if stacked else (7.2, max(2.0, side))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, sharex=many)
    limit = max(float(matrix["difference"].abs().max()), 1e-6)
    for axis, target in zip(axes.flat, targets, strict=True):
        values, clear = _square(matrix[matrix["target"] == target], lines, columns)
        picture = axis.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, alpha=0.6, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            own = lines[i] == columns[j]
            if np.isnan(value) or (many and not own and not clear[i, j]):
                continue
            text = "own" if own and not many else "×" if own else "•" if many else f"{value:+.3f}"
            axis.text(j, i, text, ha="center", va="center", fontsize=7,
                      fontweight="bold" if clear[i, j] else "normal")  # fmt: skip
        axis.set_title(f"target {target}", fontsize=9)
        names = [name.replace("_", " ") for name in columns]
        axis.set_xticks(range(len(columns)), names, fontsize=7, rotation=60 if many else 30, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        show_lines = stacked or axis is axes.flat[0]
        labels = [name.replace("_", " ") for name in lines] if show_lines else []
        axis.set_yticks(range(len(lines)) if labels else [], labels, fontsize=7)
        axis.grid(visible=False)
    axes.flat[0].set_ylabel("chosen on", fontsize=8)
    figure.supxlabel("used on" + (" (× the own choice, • an interval without 0)" if many else ""), fontsize=8)
    if many:
        figure.colorbar(picture, ax=axes, shrink=0.4, label="loss in AP")
    return figure


def _square(part: "pd.DataFrame", lines: list[str], columns: list[str]) -> "tuple[np.ndarray, np.ndarray]":
    """Differences [lines, columns], NaN where there is none, and whether their interval leaves out 0."""
    found = [
        part.pivot(index="chosen_on", columns="used_on", values=name)
        .reindex(index=lines, columns=columns)
        .to_numpy(dtype=float)
        for name in ("difference", "low", "high")
    ]
    return found[0], (found[1] > 0) | (found[2] < 0)


def lengths(df: "pd.DataFrame") -> "Figure":
    """Gain in AP against epochs of further training alone, one line per domain and seed
    (`ch_f_tuning.by_length`).
    """
    import matplotlib.pyplot as plt

    domains = list(dict.fromkeys(df["domain"]))
    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    for (domain, seed), rows in df.groupby(["domain", "seed"], sort=False):
        number = domains.index(domain)
        first = seed == df.loc[df["domain"] == domain, "seed"].iloc[0]
        axis.plot(
            rows["epochs"], rows["gain"], marker="o", markersize=4, color=COLOURS[number % len(COLOURS)],
            linestyle=("-", "--", ":")[number // len(COLOURS) % 3],
            label=str(domain).replace("_", " ") if first else None,
        )  # fmt: skip
    axis.axhline(0, color=COLOURS[6], linewidth=0.8)
    axis.set(xlabel="epochs of further training", ylabel="gain in AP")
    axis.legend(fontsize=8, ncols=1 + len(domains) // 5)
    return figure
