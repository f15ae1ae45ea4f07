"""Figures of the search-space chapter: cost per knob, and the interactive explorer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rfdetr.plots.style import COLOURS, PUBLISHED

_KNOBS = (
    ("nominal", "resolution, px"),
    ("patch_size", "patch size, px"),
    ("windows", "windows a side"),
    ("decoder_layers", "decoder layers"),
    ("queries_nominal", "queries"),
)


def cost_by_knob(df: pd.DataFrame) -> Any:
    """Distribution of GFLOPs (logarithmic) at each value of each knob; whiskers are the 5th and 95th
    percentile.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(7.2, 7.4), sharey=True)
    for box, (column, label), colour in zip(axes.flat, _KNOBS, COLOURS, strict=False):
        values = sorted(df[column].unique())
        drawn = box.boxplot(
            [df.gflops[df[column] == value] for value in values],
            tick_labels=[str(v) for v in values],
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for patch in drawn["boxes"]:
            patch.set(facecolor=colour, alpha=0.55)
        box.set(xlabel=label, yscale="log")
        if len(values) > 8:
            box.tick_params(axis="x", labelrotation=60)
    for row in axes:
        row[0].set_ylabel("GFLOPs")
    axes.flat[-1].axis("off")
    return figure


def _masked(values: np.ndarray, keep: np.ndarray, digits: int) -> list[float | None]:
    """Values as plain numbers, with None where a point is to vanish."""
    return [round(float(v), digits) if k else None for v, k in zip(values, keep, strict=True)]


def _shades(count: int) -> list[str]:
    """Colours from dark to light for ordered values."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](position)) for position in np.linspace(0, 0.92, max(1, count))]


def _points(
    df: pd.DataFrame, published: Mapping[str, tuple[int, float]]
) -> tuple[Any, list[tuple[Any, pd.DataFrame]]]:
    """The figure with a trace for each (patch size, windows, queries), and these groups."""
    import plotly.graph_objects as go

    figure = go.Figure()
    groups: list[tuple[Any, pd.DataFrame]] = list(
        df.groupby(["patch_size", "windows", "queries_nominal"], sort=True)
    )
    patches = sorted(df.patch_size.unique())
    shades = _shades(len(patches))
    seen: set[int] = set()
    for (patch, windows, queries), part in groups:
        figure.add_scatter(
            x=part.tokens.to_numpy(),
            y=part.gflops.round(1).to_numpy(),
            customdata=part[["resolution", "decoder_layers"]].to_numpy().astype(np.int16),
            meta=[int(patch), int(windows), int(queries)],
            name=f"patch {patch}",
            legendgroup=str(patch),
            showlegend=patch not in seen,
            marker={"color": shades[patches.index(patch)]},
        )
        seen.add(patch)
    shared = {
        "mode": "markers",
        "marker": {"size": 5},
        "hovertemplate": (
            "resolution %{customdata[0]}, patch %{meta[0]}<br>windows %{meta[1]}, layers %{customdata[1]}, "
            "queries %{meta[2]}<br>%{x} tokens, <b>%{y} GFLOPs</b><extra></extra>"
        ),
    }
    figure.update_traces(shared)
    figure.add_scatter(
        x=[point[0] for point in published.values()],
        y=[round(point[1], 1) for point in published.values()],
        text=list(published),
        mode="markers+text",
        textposition="bottom right",
        marker={"symbol": "star", "size": 12, "color": PUBLISHED},
        hovertemplate="%{text}: %{x} tokens, %{y} GFLOPs<extra></extra>",
        name="published",
    )
    return figure, groups


def _axis_menu(
    groups: list[tuple[Any, pd.DataFrame]], attribute: str, position: int, values: list[int], unit: str
) -> dict[str, Any]:
    """A menu that moves the traces of other values to hidden axes."""
    indexes = list(range(len(groups)))
    letter = attribute[0]
    buttons = [{"label": f"all {unit}", "method": "restyle", "args": [{attribute: letter}, indexes]}]
    for value in values:
        sides = [letter if key[position] == value else f"{letter}2" for key, _ in groups]
        buttons.append(
            {"label": f"{value} {unit}", "method": "restyle", "args": [{attribute: sides}, indexes]}
        )
    return {"buttons": buttons}


def _blank_menu(
    groups: list[tuple[Any, pd.DataFrame]],
    letter: str,
    shown: str,
    column: str,
    values: list[int],
    unit: str,
    first: str,
) -> dict[str, Any]:
    """A menu that blanks the points of other values."""
    parts, indexes = [part for _, part in groups], list(range(len(groups)))
    digits = 0 if letter == "x" else 1
    everything = [_masked(part[shown].to_numpy(), np.ones(len(part), bool), digits) for part in parts]
    buttons = [{"label": first, "method": "restyle", "args": [{letter: everything}, indexes]}]
    for value in values:
        kept = [_masked(part[shown].to_numpy(), (part[column] == value).to_numpy(), digits) for part in parts]
        buttons.append({"label": f"{value} {unit}", "method": "restyle", "args": [{letter: kept}, indexes]})
    return {"buttons": buttons}


def explorer(df: pd.DataFrame, published: Mapping[str, tuple[int, float]]) -> Any:
    """Interactive scatter of all sub-networks: GFLOPs against tokens, with filters that combine.

    df         from `experiments.search_space.costs`
    published  name -> (tokens, GFLOPs) of the configurations to mark

    Colours are patch sizes; a click in the legend hides one. Menus choose resolution, windows, layers and
    queries.
    """
    # A menu of plotly sets one attribute and cannot see the others. So each filter has an attribute of its
    # own: windows and queries move a trace to axes whose range holds no points, the number of layers and the
    # resolution blank x and y, and the legend keeps `visible`.
    depths = sorted(df.decoder_layers.unique())
    resolutions = sorted(df.nominal.unique())
    figure, groups = _points(df, published)
    menus = [
        _blank_menu(groups, "y", "gflops", "nominal", resolutions, "px", "all resolutions"),
        _axis_menu(groups, "yaxis", 1, sorted(df.windows.unique()), "windows"),
        _blank_menu(groups, "x", "tokens", "decoder_layers", depths, "layers", "all layers"),
        _axis_menu(groups, "xaxis", 2, sorted(df.queries_nominal.unique()), "queries"),
    ]
    places = [(0.0, 1.27), (0.5, 1.27), (0.0, 1.13), (0.5, 1.13)]
    look = {"xanchor": "left", "yanchor": "top", "pad": {"t": 0, "r": 0}, "bgcolor": "white"}
    hidden = {"visible": False, "type": "log", "range": [-9, -8], "fixedrange": True}
    figure.update_layout(
        template="plotly_white",
        height=560,
        margin={"l": 50, "r": 10, "t": 130, "b": 40},
        updatemenus=[{**menu, **look, "x": x, "y": y} for menu, (x, y) in zip(menus, places, strict=True)],
        xaxis={"type": "log", "title": "patch tokens", "range": [1.7, 4.25], "dtick": 1},
        yaxis={"type": "log", "title": "GFLOPs", "range": [0.4, 3.75], "dtick": 1},
        xaxis2={**hidden, "overlaying": "x"},
        yaxis2={**hidden, "overlaying": "y"},
        legend={"orientation": "h", "y": -0.16, "title": "click to hide"},
        dragmode="pan",
    )
    return figure
