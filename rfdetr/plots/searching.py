"""Figures of chapters 05 and B: the front, what the knobs do, dropping queries and layers."""

from typing import TYPE_CHECKING, Any

from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

HOVER = (
    "resolution %{customdata[0]}, patch %{customdata[1]}, windows %{customdata[2]}<br>"
    "layers %{customdata[3]}, queries %{customdata[4]}<br>AP %{y:.3f}, %{x:.3g} "
)
_KNOBS = ["resolution", "patch_size", "windows", "decoder_layers", "queries"]


def front(table: "pd.DataFrame", cost: str, cost_name: str, unit: str) -> Any:
    """Zoomable scatter of accuracy against cost; the front is a line, hovering shows the five knobs.

    table: columns AP, `cost`, `front`, the five knobs and, if present, `seen`.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    parts = [("trained encoder settings", table)]
    if "seen" in table:
        parts = [("trained encoder settings", table[table["seen"]]), ("never trained", table[~table["seen"]])]
    for (label, rows), colour in zip(parts, (COLOURS[4], COLOURS[5]), strict=False):
        figure.add_scattergl(
            x=rows[cost].round(4), y=rows["AP"].round(4), mode="markers", name=label, customdata=rows[_KNOBS],
            marker={"size": 5, "color": colour, "opacity": 0.6}, hovertemplate=HOVER + unit + "<extra></extra>",
        )  # fmt: skip
    best = table[table["front"]].sort_values(cost)
    figure.add_scatter(
        x=best[cost].round(4), y=best["AP"].round(4), mode="lines+markers", name="front", customdata=best[_KNOBS],
        line={"color": COLOURS[1], "shape": "hv"}, marker={"size": 7}, hovertemplate=HOVER + unit + "<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        template="plotly_white", height=420, margin={"l": 50, "r": 10, "t": 30, "b": 45},
        xaxis={"title": cost_name, "type": "log"}, yaxis={"title": "AP (validation scenes)"},
        legend={"orientation": "h", "y": 1.1},
    )  # fmt: skip
    return figure


def importance(table: "pd.DataFrame") -> "Figure":
    """Bars of the share of variance that each knob explains alone (`searching.knob_importance`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 2.4))
    axis.barh(table["knob"].str.replace("_", " "), 100 * table["share"], color=COLOURS[0])
    axis.invert_yaxis()
    axis.set(xlabel="share of the variance of AP explained by the knob alone (%)")
    axis.grid(axis="y", visible=False)
    return figure


def drop_curves(table: "pd.DataFrame") -> "Figure":
    """AP against latency, one line per query count, one point per decoder depth (`query_drop.drop_table`)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.0))
    for colour, (queries, rows) in zip(
        COLOURS, table.sort_values("decoder_layers").groupby("queries"), strict=False
    ):
        axis.plot(rows["latency_ms"], rows["AP"], marker="o", color=colour, label=f"{queries} queries")
        for _, row in rows.iterrows():
            axis.annotate(
                f"{int(row['decoder_layers'])}", (row["latency_ms"], row["AP"]), xytext=(4, -9),
                textcoords="offset points", fontsize=8, color=colour,
            )  # fmt: skip
    axis.set(xlabel="latency (ms, ONNX Runtime, one thread)", ylabel="AP on test scenes")
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
