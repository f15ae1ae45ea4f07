"""Disagreements about the search grid, the configurations and the blocks (I01 to I13, I74)."""

from math import prod
from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import cell
from rfdetr.paper.arithmetic.recipe import stated
from rfdetr.paper.disagreements.recount import Recount, listed, numbers, runs, side

if TYPE_CHECKING:
    import pandas as pd

_GRID = ("resolutions_px", "patch_sizes_px", "decoder_layers", "windows", "queries")
_BLOCKS = 12  # of the ViT


def _down(side_px: int, unit: int) -> int:
    return side_px // unit * unit


def i01(search_grid: dict[str, Any]) -> Recount:
    """The printed product against the printed lists."""
    lists = [len(search_grid["inference"][knob]) for knob in _GRID]
    printed = search_grid["printed_totals"]["configurations"]
    factors = list(search_grid["printed_totals"]["product"].values())
    return Recount(
        prod(lists) != printed,
        f"printed lists: {' · '.join(map(str, lists))} = {prod(lists):,}; printed product:"
        f" {' · '.join(map(str, factors))} = {prod(factors):,}, printed total {printed:,}",
    )


def i02(search_grid: dict[str, Any]) -> Recount:
    """Patch 14 in one of the two lists only."""
    where = [part for part in ("training", "inference") if 14 in search_grid[part]["patch_sizes_px"]]
    return Recount(where == ["inference"], f"14 is in the list of: {listed(where) or 'neither'}")


def i03(t7: "pd.DataFrame", t8: "pd.DataFrame", search_grid: dict[str, Any]) -> Recount:
    """Printed resolutions that are not in the grid, and whether rounding down explains them."""
    sides = search_grid["inference"]["resolutions_px"]
    every = [*t7.to_dict("records"), *t8.to_dict("records")]
    away = [row for row in every if row["resolution"] not in sides]
    explained = [
        row
        for row in every
        if sum(_down(g, row["patch_size"] * row["windows"]) == row["resolution"] for g in sides) == 1
    ]
    return Recount(
        bool(away),
        f"{len(away)} of {len(every)} are not in the grid ({listed([r['resolution'] for r in away])});"
        f" rounding a grid value down to a multiple of patch size · windows gives {len(explained)} of them,"
        " each from one grid value",
    )


def i04(search_grid: dict[str, Any]) -> Recount:
    """560 in the grid, or rounded from it."""
    sides = search_grid["inference"]["resolutions_px"]
    sources = [g for g in sides if _down(g, 14 * 4) == 560]
    return Recount(
        560 not in sides, f"560 is not listed; {listed(sources)} rounds down to it with 4 windows of patch 14"
    )


def i05(t8: "pd.DataFrame") -> Recount:
    """A quarter of Max's resolution."""
    resolution = cell(t8, "resolution", size="Max")
    return Recount(resolution % 4 != 0, f"{resolution:g} / 4 = {resolution / 4:g}")


def i06(search_grid: dict[str, Any]) -> Recount:
    """Points of the training grid, with rounding and with decoder exits."""
    grid = search_grid["training"]
    points = [
        (r, p, w) for r in grid["resolutions_px"] for p in grid["patch_sizes_px"] for w in grid["windows"]
    ]
    distinct = {(_down(r, p * w), p, w) for r, p, w in points}
    exits = len(search_grid["inference"]["decoder_layers"])
    return Recount(
        len(points) < 1000,
        f"{len(points)} points, {len(distinct)} of them different after rounding down; times {exits} decoder"
        f" exits {len(points) * exits:,}",
    )


def i07(search_grid: dict[str, Any]) -> Recount:
    """200 GPUs for 48 hours."""
    totals = search_grid["printed_totals"]
    hours = totals["search_gpus"] * totals["search_hours_per_gpu"]
    printed = totals["search_gpu_hours_printed"]
    return Recount(
        hours != printed,
        f"{totals['search_gpus']} · {totals['search_hours_per_gpu']} = {hours:,}, printed {printed:,}",
    )


def i08(t7: "pd.DataFrame", t8: "pd.DataFrame", search_grid: dict[str, Any]) -> Recount:
    """Values of the grid that no configuration has."""
    never = []
    for knob, listing in (("windows", "windows"), ("patch_size", "patch_sizes_px"), ("queries", "queries")):
        used = {*t7[knob], *t8[knob]}
        unused = [v for v in search_grid["training"].get(listing, []) if v not in used]
        if knob == "queries":
            unused = [v for v in search_grid["inference"][listing] if v not in used]
        never.append(f"{knob.replace('_', ' ')} {listed(unused)}")
    return Recount(
        t7["queries"].nunique() == 1,
        f"queries in detection: {listed(sorted(set(t7['queries'])))} only; never chosen: {'; '.join(never)}",
    )


def i09(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Recount:
    """Patch sizes of the Max rows against the rest of their family."""
    base = t7[t7["backbone"] == "DINOv2-B"]
    found = {
        "DINOv2-B": sorted(set(base["patch_size"].tolist())),
        "segmentation": sorted(set(t8["patch_size"].tolist())),
    }
    return Recount(
        any(len(v) > 1 for v in found.values()),
        "; ".join(f"{name}: {listed(v)}" for name, v in found.items()),
    )


def i10(t7: "pd.DataFrame", t12: "pd.DataFrame") -> Recount:
    """Resolution and tokens from 2XL to Max."""
    resolutions, locations, times = [], [], []
    for size in ("2XL", "Max"):
        resolutions.append(cell(t7, "resolution", size=size))
        locations.append(resolutions[-1] / cell(t7, "patch_size", size=size))
        times.append(cell(t12, "latency_ms", model="RF-DETR", size=size))
    return Recount(
        times[0] < times[1] and resolutions[0] > resolutions[1],
        f"2XL to Max: {times[0]:g} to {times[1]:g} ms, {resolutions[0]:g} to {resolutions[1]:g} px, but"
        f" {locations[0]:g} to {locations[1]:g} locations a side",
    )


def i11(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Recount:
    """How many trainings the configurations need."""
    kinds = sorted({f"detection {b}" for b in t7["backbone"]} | {f"segmentation {b}" for b in t8["backbone"]})
    return Recount(len(kinds) > 1, f"{len(kinds)} sets of weights: {listed(kinds)}")


def i12(training_recipe: dict[str, Any]) -> Recount:
    """Windowed blocks of the two lists."""
    entry = stated(training_recipe, "windowed_attention_blocks")
    ours, theirs = entry["value"], entry["lw_detr_value"]
    return Recount(
        len(ours) != len(theirs),
        f"windowed blocks {len(ours)} and {len(theirs)}; groups of neighbours {len(list(runs(ours)))} and"
        f" {len(list(runs(theirs)))}",
    )


def i13(t7: "pd.DataFrame", sides: list[dict[str, Any]], search_grid: dict[str, Any]) -> Recount:
    """640 over each named patch size."""
    resolution, *rest = numbers(side(sides, "Appendix L"))
    patches, locations = rest[:3], rest[3:6]
    fit = [resolution / n for n in locations]
    trained = search_grid["training"]["patch_sizes_px"]
    return Recount(
        any(round(resolution / p) != n for p, n in zip(patches, locations, strict=True)),
        "; ".join(
            f"{resolution:g} / {p:g} = {resolution / p:.1f}, where {n:g} needs patch {f:.1f}"
            for p, n, f in zip(patches, locations, fit, strict=True)
        )
        + f"; trained are {listed(trained)}",
    )


def i74(sides: list[dict[str, Any]], training_recipe: dict[str, Any]) -> Recount:
    """Windowed blocks that follow from the released output stages, against the appendix."""
    printed = set(stated(training_recipe, "windowed_attention_blocks")["value"])
    found = {}
    for name in ("N to 2XL", "Base"):
        text = side(sides, name).split(", hence")[0]
        # Stages count from 1; a block whose 0-based number is a stage is global.
        found[name] = set(range(_BLOCKS)) - {int(n) for n in numbers(text)}
    return Recount(
        found["N to 2XL"] != printed and found["Base"] == printed,
        f"released N to 2XL: {listed(sorted(found['N to 2XL']))} ({len(found['N to 2XL'])} windowed); base:"
        f" {listed(sorted(found['Base']))}, which is the printed list",
    )
