"""Figures of chapters 05 and B: the front, what the knobs do, dropping queries and layers."""

from typing import TYPE_CHECKING

from rfdetr.arch import Arch
from rfdetr.plots.scatter import STEP, Axis, Layer, Scatter
from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def front(table: "pd.DataFrame", cost: str, cost_name: str, unit: str) -> Scatter:
    """Scatter of accuracy against cost; the front is a line of steps, every point tells the five knobs.

    table: columns AP, `cost`, `front`, the five knobs and, if present, `seen`.
    """
    parts = [("trained encoder settings", table)]
    if "seen" in table:
        parts = [("trained encoder settings", table[table["seen"]]), ("never trained", table[~table["seen"]])]
    parts = [(label, rows) for label, rows in parts if len(rows)]
    layers = [
        Layer(label, rows[cost].tolist(), rows["AP"].tolist(), colour, about=_knobs(rows))
        for (label, rows), colour in zip(parts, (COLOURS[4], COLOURS[5]), strict=False)
    ]
    best = table[table["front"]].sort_values(cost)
    layers.append(
        Layer("front", best[cost].tolist(), best["AP"].tolist(), COLOURS[1], STEP, about=_knobs(best))
    )
    return Scatter(layers, Axis(cost_name, unit, log=True), Axis("AP (validation scenes)"))


def _knobs(rows: "pd.DataFrame") -> dict[str, list[int]]:
    names = ("resolution", "patch", "windows", "layers", "queries")
    return {name: rows[knob].tolist() for name, knob in zip(names, Arch.KNOBS, strict=True)}


def importance(table: "pd.DataFrame") -> "Figure":
    """Bars of the share of variance that each knob explains alone (`ch05_knobs.importance`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 2.4))
    axis.barh(table["knob"].str.replace("_", " "), 100 * table["share"], color=COLOURS[0])
    axis.invert_yaxis()
    axis.set(xlabel="share of the variance of AP explained by the knob alone (%)")
    axis.grid(axis="y", visible=False)
    return figure


def token_law(table: "pd.DataFrame", decoder_layers: int, queries: int) -> "Figure":
    """AP against tokens a side at one depth and number of queries, one colour per patch size.

    table: different sub-networks with the knobs, `AP` and `side` (`ch05_knobs.with_side`). Grids with fewer
    tokens than queries are left out.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    rows = table[(table["decoder_layers"] == decoder_layers) & (table["queries"] == queries)]
    patches = sorted(rows["patch_size"].unique())
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.92, max(1, len(patches))))
    mean = rows.groupby("side")["AP"].mean()
    axis.plot(mean.index, mean, color="#BBBBBB", linewidth=1, zorder=1)
    for shade, patch in zip(shades, patches, strict=True):
        part = rows[rows["patch_size"] == patch]
        axis.scatter(part["side"], part["AP"], color=[shade], s=22, label=f"{patch} px", zorder=2)
    axis.set(xlabel="tokens a side (resolution / patch size)", ylabel="AP on validation scenes")
    axis.legend(title="patch size", fontsize=8, ncols=2)
    return figure


def drop_curves(table: "pd.DataFrame") -> "Figure":
    """AP against operations, one line per query count, one point per decoder depth
    (`ch_b_query_drop.drop_table`).
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    for colour, (queries, rows) in zip(
        COLOURS, table.sort_values("decoder_layers").groupby("queries"), strict=False
    ):
        axis.plot(rows["gflops"], rows["AP"], marker="o", color=colour, label=f"{queries} queries")
        for _, row in rows.iterrows():
            axis.annotate(
                f"{int(row['decoder_layers'])}",
                (row["gflops"], row["AP"]),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    axis.set(xlabel="GFLOPs per image, deployed graph", ylabel="AP on test scenes")
    axis.legend()
    return figure


def suppression(table: "pd.DataFrame") -> "Figure":
    """AP without and with non-maximum suppression (`query_drop.nms_table`)."""
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axis = plt.subplots(figsize=(7.2, 3.0))
    networks = list(dict.fromkeys(table["sub_network"]))
    settings = [None, *sorted(table["nms_iou"].dropna().unique(), reverse=True)]
    width = 0.8 / len(settings)
    for i, iou in enumerate(settings):
        rows = table[table["nms_iou"].isna() if iou is None else table["nms_iou"] == iou].set_index(
            "sub_network"
        )
        name = "no suppression" if iou is None else f"suppressed above IoU {iou:g}"
        axis.bar(
            np.arange(len(networks)) + i * width,
            rows.loc[networks, "AP"],
            width,
            label=name,
            color=COLOURS[i],
        )
    axis.set_xticks(np.arange(len(networks)) + 0.4 - width / 2, networks, fontsize=8)
    axis.set(ylabel="AP on test scenes")
    axis.legend(fontsize=8)
    axis.grid(axis="x", visible=False)
    return figure


def costs(table: "pd.DataFrame", shared: str, alone: str, unit: str) -> "Figure":
    """Stacked bars of a search's cost by stage, shared against one by one (`cost.grid_flops`,
    `cost.grid_seconds`).

    shared, alone   columns of the table;   unit   of the axis
    """
    import matplotlib.pyplot as plt

    rows = table[table["stage"] != "total"]
    figure, axes = plt.subplots(2, 1, figsize=(7.2, 2.6))
    for axis, column, label in zip(axes, (shared, alone), ("shared", "one by one"), strict=True):
        start = 0.0
        for i, (_, row) in enumerate(rows.iterrows()):
            # More stages than colours: the second round is hatched.
            hatch = "" if i < len(COLOURS) else "////"
            colour = COLOURS[i % len(COLOURS)]
            axis.barh(
                label, row[column], left=start, color=colour, hatch=hatch, edgecolor="white", linewidth=0,
                label=row["stage"],
            )  # fmt: skip
            start += row[column]
        axis.set(xlim=(0, 1.02 * start))
        axis.grid(axis="y", visible=False)
    axes[1].set(xlabel=f"{unit} (each bar has its own scale)")
    axes[0].legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def budgets(curves: "pd.DataFrame", target: float = 0.99, budget: float = 0.05) -> "Figure":
    """Hypervolume against spent cost: median over seeds and the range, one line per sampler
    (`replay.budgeted_curves`).
    """
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    spent = np.geomspace(max(1e-4, curves["spent"].min()), curves["spent"].max(), 200)
    for colour, (sampler, runs) in zip(COLOURS, curves.groupby("sampler", sort=False), strict=False):
        values = []
        for _, one in runs.groupby("seed"):
            at = np.searchsorted(one["spent"].to_numpy(), spent, side="right") - 1
            values.append(np.where(at >= 0, one["hypervolume"].to_numpy()[np.maximum(at, 0)], 0.0))
        low, middle, high = np.percentile(values, [0, 50, 100], axis=0)
        axis.plot(100 * spent, middle, color=colour, label=sampler)
        axis.fill_between(100 * spent, low, high, color=colour, alpha=0.12, linewidth=0)
    axis.axhline(target, color=COLOURS[6], linestyle=":", linewidth=1)
    axis.axvline(100 * budget, color=COLOURS[6], linestyle=":", linewidth=1)
    axis.set(
        xscale="log", xlabel="cost spent (% of the exact search)", ylabel="part of the exact hypervolume"
    )
    axis.set_ylim(max(0.0, axis.get_ylim()[0]), 1.005)
    axis.legend(fontsize=8)
    return figure


def predicted(timed: "pd.DataFrame") -> "Figure":
    """Predicted against measured latency; columns latency_ms, predicted_ms, held_out."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 3.8))
    for held_out, label, colour in (
        (False, "measured for the fit", COLOURS[4]),
        (True, "held out", COLOURS[1]),
    ):
        rows = timed[timed["held_out"] == held_out]
        axis.plot(rows["latency_ms"], rows["predicted_ms"], "o", markersize=3, color=colour, label=label)
    ends = [timed["latency_ms"].min(), timed["latency_ms"].max()]
    axis.plot(ends, ends, color=COLOURS[6], linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
    axis.legend(fontsize=8)
    return figure


def study(summary: "pd.DataFrame") -> "Figure":
    """AP by size group, one bar per way of training, with the range over seeds (`sampling_study.summary`)."""
    import matplotlib.pyplot as plt
    import numpy as np

    groups, variants = (list(dict.fromkeys(summary[column])) for column in ("group", "variant"))
    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    width = 0.8 / len(variants)
    for i, variant in enumerate(variants):
        rows = summary[summary["variant"] == variant].set_index("group").loc[groups]
        error = [rows["AP"] - rows["lowest"], rows["highest"] - rows["AP"]]
        place = np.arange(len(groups)) + i * width
        axis.bar(
            place, rows["AP"], width, yerr=error, color=COLOURS[i], label=variant, error_kw={"linewidth": 0.8}
        )
    axis.set_xticks(np.arange(len(groups)) + 0.4 - width / 2, groups)
    axis.set(ylabel="AP on test scenes (mean of the group)")
    axis.grid(axis="x", visible=False)
    axis.legend(fontsize=8)
    return figure
