"""Claims about the search grid of Appendix A, as printed."""

from math import prod
from typing import Any

from rfdetr.paper.verdicts import Verdict, agree

_GRID = ("resolutions_px", "patch_sizes_px", "windows", "decoder_layers", "queries")
THOUSANDS = 1000


def _points(part: dict[str, Any]) -> int:
    return prod(len(part[knob]) for knob in _GRID)


def c035(search_grid: dict[str, Any]) -> Verdict:
    """Thousands: the sub-networks that training draws."""
    drawn = _points(search_grid["training"])
    exits = drawn * len(search_grid["inference"]["decoder_layers"])
    return Verdict(
        agree(drawn >= THOUSANDS),
        {"drawn": drawn, "each decoder exit counted": exits},
        f"Training draws from {drawn} points, and supervises {exits:,} if every decoder exit counts as one;"
        " thousands is right for the searched ones.",
    )


def c117(search_grid: dict[str, Any], values: dict[str, Any]) -> Verdict:
    """The ends of the grid are the stated multiples of its middle."""
    sides = search_grid["training"]["resolutions_px"]
    middle = (sides[0] + sides[-1]) / 2
    ends = [sides[0] / middle, sides[-1] / middle]
    low, high = values["rf_detr"]
    return Verdict(
        agree(abs(ends[0] - low) < 0.005 and abs(ends[1] - high) < 0.005 and abs(low + high - 2) < 1e-9),
        {"ends over middle": [round(e, 2) for e in ends], "middle, px": middle},
        "The printed grid; LW-DETR's range is not checked.",
    )


def c122(search_grid: dict[str, Any]) -> Verdict:
    """Training has one depth and one number of queries, the largest; the search has more of both."""
    training, search = search_grid["training"], search_grid["inference"]
    found = {
        knob.replace("_", " "): training[knob] == [max(search[knob])] and len(search[knob]) > 1
        for knob in ("decoder_layers", "queries")
    }
    return Verdict(agree(all(found.values())), found, "The two printed grids.")


def c124(search_grid: dict[str, Any]) -> Verdict:
    """The printed total against the product of the printed inference lists."""
    listed = _points(search_grid["inference"])
    printed = search_grid["printed_totals"]["configurations"]
    trained = listed // len(search_grid["inference"]["patch_sizes_px"])
    trained *= len(search_grid["training"]["patch_sizes_px"])
    return Verdict(
        agree(listed == printed),
        {"printed": printed, "product of the printed lists": listed, "with the trained patch sizes": trained},
        "The inference list has eight patch sizes, the printed product counts seven, as many as are trained.",
    )


def c125(search_grid: dict[str, Any], values: dict[str, Any]) -> Verdict:
    """The product of the bracket, rounded to its first digit, is the printed number."""
    hours = values["gpus"] * values["hours"]
    printed = search_grid["printed_totals"]["search_gpu_hours_printed"]
    return Verdict(
        agree(abs(hours / printed - 1) <= 0.05),
        {"product, GPU hours": hours, "printed": printed},
        "“About” is taken as within 5 %.",
    )


def c170(search_grid: dict[str, Any], values: dict[str, Any]) -> Verdict:
    """The two patch sizes are in no printed training list."""
    seen = [p for p in values["unseen"] if p in search_grid["training"]["patch_sizes_px"]]
    return Verdict(
        agree(not seen),
        {"listed in training": seen},
        "21, which is not called unseen, is not in the list either (I13).",
    )
