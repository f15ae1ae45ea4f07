"""The explorer: five sliders for the knobs, a read-out, and a scatter in which the chosen network moves.

`show` writes all it needs into the page: the numbers of the whole nominal grid as compact JSON, and the plain
JavaScript and CSS of `embed`. So it works offline, on the site and in a notebook alike.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import PRESETS, Arch, SearchSpace
from rfdetr.benchmark.flops import STAGES, analytic_table
from rfdetr.plots import embed
from rfdetr.plots.style import COLOURS
from rfdetr.search.pareto import front_mask

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.config import ModelConfig
    from rfdetr.model.detector import RFDETR

_FIELDS = ("resolutions", "patch_sizes", "windows", "decoder_layers", "queries")
_LABELS = ("resolution", "patch size", "windows a side", "decoder layers", "queries")
_UNITS = ("px", "px", "", "", "")
_PARTS = {
    "patch embedding": ("embedding",),
    "windowed attention": ("windowed attention",),
    "global attention": ("global attention",),
    "backbone MLP": ("backbone MLP",),
    "projector": ("projector",),
    "decoder": tuple(stage for stage in STAGES if stage.startswith("decoder")),
    "selection, heads, masks": ("selection", "heads", "masks"),
}
"""Stages of `benchmark.flops` put together, as many as there are colours."""


@dataclass(frozen=True)
class Mark:
    """A network to mark in the scatter and to jump to. note: what is known of it, e.g. printed numbers."""

    arch: Arch
    note: str = ""


@dataclass(frozen=True)
class _Quantity:
    column: str
    label: str
    unit: str
    digits: int
    log: bool = False


def show(
    network: "RFDETR | ModelConfig",
    space: SearchSpace,
    table: "pd.DataFrame | None" = None,
    *,
    latency: str = "predicted_ms",
    marks: Mapping[str, Mark] | None = None,
    marks_label: str = "jump to",
    ident: str = "grid-explorer",
) -> None:
    """Show the explorer of a grid of sub-networks.

    network   the supernet, or its sizes: operations and parameters are counted from them
    space     the grid: its values are those of the sliders
    table     a finished search, one row per different sub-network: the five knobs, `AP`, and latencies in ms
              in the column named `latency`. AP over latency is then the scatter, with the front as a line;
              without a table it is operations over tokens. Networks that are not in it show a dash
    marks     name -> network to mark, if it is in the grid; with a table the default is the fastest, the
              middle and the most accurate network of the front
    ident     id of the box on the page, and its name in the address; one page may hold several

    The kept search of chapter 05: `explorer.show(network, grid.search, every, ident="search-explorer")`.
    """
    from IPython.display import HTML, display

    display(HTML(html(network, space, table, latency, marks, marks_label, ident)))


def published(*names: str) -> dict[str, Mark]:
    """Published configurations with the numbers that the paper prints for them."""
    marks = {}
    for name in names:
        preset = PRESETS[name]
        known = preset.ap is not None and preset.latency_ms is not None
        note = f"the paper prints AP {preset.ap:.1f} and {preset.latency_ms:g} ms on a T4" if known else ""
        marks[name] = Mark(preset.arch, note)
    return marks


def html(
    network: "RFDETR | ModelConfig",
    space: SearchSpace,
    table: "pd.DataFrame | None" = None,
    latency: str = "predicted_ms",
    marks: Mapping[str, Mark] | None = None,
    marks_label: str = "jump to",
    ident: str = "grid-explorer",
) -> str:
    """The HTML that `show` shows."""
    data = payload(network, space, table, latency, marks) | {"marks_label": marks_label}
    return embed.box("explorer", data, f"{data['alt']} It needs JavaScript.", id=ident)


def payload(
    network: "RFDETR | ModelConfig",
    space: SearchSpace,
    table: "pd.DataFrame | None" = None,
    latency: str = "predicted_ms",
    marks: Mapping[str, Mark] | None = None,
) -> dict[str, Any]:
    """What the page computes with, as plain values: knobs, columns over the grid, what is shown of them.

    Numbers are rounded to the digits that are shown. Arguments as of `show`.
    """
    rows = _numbers(network, space, table, latency)
    shape = tuple(len(getattr(space, name)) for name in _FIELDS)
    largest = float(rows["gflops"].max())
    digits = 1 if largest >= 100 else 3
    gflops = _Quantity("gflops", "GFLOPs", "", digits, log=True)
    tiles = [
        _Quantity("resolution", "resolution used", "px", 0),
        _Quantity("tokens", "patch tokens", "", 0, log=True),
        _Quantity("params", "parameters", "M", 1 if digits == 1 else 2),
        gflops,
    ]
    x, y = tiles[1], gflops
    if table is not None:
        y = _Quantity("AP", "AP", "", 3)
        x = _Quantity("latency", "latency", "ms", 2, log=True) if latency in table else gflops
        tiles += [y, *([x] if x is not gflops else [])]
    stages = [_Quantity(name, name, "", digits) for name in _PARTS]
    shown = [*tiles, *stages, _Quantity("queries", "queries", "", 0)]
    front = rows.iloc[:0]
    if table is not None:
        front = _front(rows, x, y)
        rows = rows.assign(regret=_regret(rows, front, x, y))
        shown.append(_Quantity("regret", "regret", "", y.digits))
    places = _places(space, marks if marks is not None else _ends(front))
    return {
        "axes": [
            {"key": knob, "label": label, "unit": unit, "values": list(getattr(space, name))}
            for knob, label, unit, name in zip(Arch.KNOBS, _LABELS, _UNITS, _FIELDS, strict=True)
        ],
        "columns": {q.column: _packed(rows[q.column].to_numpy(), shape, q.digits) for q in shown},
        "tiles": [asdict(quantity) for quantity in tiles],
        "stages": [asdict(q) | {"colour": colour} for q, colour in zip(stages, COLOURS, strict=True)],
        "x": asdict(x),
        "y": asdict(y),
        "front": front[[x.column, y.column]].round({x.column: x.digits, y.column: y.digits}).values.tolist(),
        "marks": places,
        "start": places[0]["at"] if places else [size // 2 for size in shape],
        "colour": {"axis": 1, "shades": shades(shape[1])},
        "alt": (
            f"Scatter of {len(rows):,} sub-networks, {y.label} over {x.label}, coloured by patch size, with"
            " the network that the five sliders choose."
        ),
    }


def shades(count: int) -> list[str]:
    """Colours from dark to light for ordered values."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](position)) for position in np.linspace(0, 0.92, max(1, count))]


def _numbers(
    network: "RFDETR | ModelConfig", space: SearchSpace, table: "pd.DataFrame | None", latency: str
) -> "pd.DataFrame":
    """One row per nominal point, in the order of the grid: the knobs as used, and every quantity."""
    counted = analytic_table(network, space.archs())
    knobs = list(Arch.KNOBS)
    rows = counted[[*knobs, "gflops"]].assign(
        tokens=(counted["resolution"] // counted["patch_size"]) ** 2,
        params=counted["params_deployed"] / 1e6,
        **{name: sum(counted[f"gflops: {stage}"] for stage in parts) for name, parts in _PARTS.items()},
    )
    if table is None:
        return rows
    columns = {"AP": "AP", **({latency: "latency"} if latency in table else {})}
    known = table[[*knobs, *columns]].drop_duplicates(knobs).rename(columns=columns)
    return rows.merge(known, on=knobs, how="left", validate="many_to_one")


def _front(rows: "pd.DataFrame", x: _Quantity, y: _Quantity) -> "pd.DataFrame":
    different = rows.drop_duplicates(list(Arch.KNOBS))
    best = different[front_mask(different[y.column].to_numpy(), different[x.column].to_numpy())]
    return best.sort_values(x.column)


def _regret(rows: "pd.DataFrame", front: "pd.DataFrame", x: _Quantity, y: _Quantity) -> np.ndarray:
    """AP of the best network that costs no more, minus the network's own; NaN where one is not known."""
    place = np.searchsorted(front[x.column].to_numpy(), rows[x.column].to_numpy(), side="right") - 1
    best = np.append(front[y.column].to_numpy(), np.nan)[np.where(rows[x.column].isna(), -1, place)]
    return best - rows[y.column].to_numpy()


def _ends(front: "pd.DataFrame") -> dict[str, Mark]:
    """The two ends of a front and its middle."""
    if front.empty:
        return {}
    middle = len(front) // 2
    chosen = {"middle of the front": middle, "fastest": 0, "most accurate": len(front) - 1}
    archs = [Arch(*map(int, values)) for values in front[list(Arch.KNOBS)].to_numpy()]
    return {label: Mark(archs[index]) for label, index in chosen.items()}


def _places(space: SearchSpace, marks: Mapping[str, Mark]) -> list[dict[str, Any]]:
    """The marked networks with their places in the grid: of nominal points that round to the same network the
    nearest above. Networks that are not in the grid are left out.
    """
    values = [getattr(space, name) for name in _FIELDS]
    first: dict[Arch, tuple[int, ...]] = {}
    for point, arch in zip(space.nominal(), space.archs(), strict=True):
        first.setdefault(arch, point)
    return [
        {
            "label": label,
            "note": mark.note,
            "at": [have.index(value) for have, value in zip(values, first[mark.arch], strict=True)],
        }
        for label, mark in marks.items()
        if mark.arch in first
    ]


def _packed(values: np.ndarray, shape: tuple[int, ...], digits: int) -> dict[str, Any]:
    """Values over the grid without the knobs that they do not depend on: shape (1 for such a knob) and data.

    Missing values are None.
    """
    cube = np.round(values.astype(float), digits).reshape(shape)
    for axis in range(len(shape)):
        one = cube.take([0], axis)
        if np.array_equal(np.broadcast_to(one, cube.shape), cube, equal_nan=True):
            cube = one
    flat = [None if np.isnan(v) else int(v) if digits == 0 else float(v) for v in cube.ravel()]
    return {"shape": list(cube.shape), "data": flat}
