"""A scatter to look into: every point tells what it is, parts can be hidden, a rectangle is enlarged.

A few kilobytes of plain JavaScript (`scatter.js`) draw it; without it the alternative text stands there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rfdetr.plots import embed
from rfdetr.plots.style import COLOURS

DOT, STEP, STAR = "dot", "step", "star"
_KEY = 6
"""Colours that the key of a scale shows."""


@dataclass(frozen=True)
class Axis:
    """label    as written beside it, with its unit

    unit     behind a number in the read-out;   digits   after its point;   log   logarithmic
    """

    label: str
    unit: str = ""
    digits: int = 3
    log: bool = False


@dataclass(frozen=True)
class Layer:
    """Points of one kind; those with a missing value (None, NaN) are left out.

    shape    DOT; STAR, larger; or STEP: a line of steps through the points in the order of x, with a slider
    about    what the read-out tells of each point: name -> one value per point
    values   numbers that the points are coloured by instead of `colour`, named `values_label`
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = COLOURS[4]
    shape: str = DOT
    about: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    values: Sequence[float] | None = None
    values_label: str = ""

    def payload(self, x: Axis, y: Axis) -> dict[str, Any]:
        """Plain values, numbers rounded to the digits that are shown and one more."""
        order = [i for i in range(len(self.x)) if _known(self.x[i]) and _known(self.y[i])]
        if self.shape == STEP:
            order.sort(key=lambda i: self.x[i])
        made = {
            "label": self.label,
            "colour": self.colour,
            "shape": self.shape,
            "x": [_rounded(self.x[i], x.digits + 1) for i in order],
            "y": [_rounded(self.y[i], y.digits + 1) for i in order],
            "about": {name: [_plain(values[i]) for i in order] for name, values in self.about.items()},
        }
        if self.values is not None:
            made |= _coloured([self.values[i] for i in order], self.values_label)
        return made


@dataclass(frozen=True)
class Scatter:
    """A chart for `rfdetr.plots.show`, which gives it its alternative text."""

    layers: Sequence[Layer]
    x: Axis
    y: Axis

    def html(self, alt: str) -> str:
        """All that the page needs. alt: what the chart shows."""
        axes = {
            name: {"label": axis.label, "unit": axis.unit, "digits": axis.digits, "log": axis.log}
            for name, axis in (("x", self.x), ("y", self.y))
        }
        data = axes | {"layers": [layer.payload(self.x, self.y) for layer in self.layers]}
        return embed.box("scatter", data, f"{alt} The chart needs JavaScript.", role="group", aria_label=alt)


def _coloured(values: Sequence[float], label: str) -> dict[str, Any]:
    """Shades of the points, and of a few values for the key."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    low, high = min(values, default=0), max(values, default=1)
    different = sorted(set(values))
    few = different
    if len(different) > _KEY:
        few = [different[round(i * (len(different) - 1) / (_KEY - 1))] for i in range(_KEY)]

    def shade(value: float) -> str:
        return to_hex(colormaps["viridis"](0.92 * (value - low) / ((high - low) or 1)))

    places = {value: place for place, value in enumerate(different)}
    return {
        "shades": [shade(value) for value in different],
        "shade": [places[value] for value in values],
        "key": {"label": label, "entries": [[_plain(value), shade(value)] for value in few]},
    }


def _known(value: Any) -> bool:
    return value is not None and value == value


def _rounded(value: float, digits: int) -> float:
    # Logarithmic axes reach down: what is small keeps its leading digits.
    return float(f"{float(value):.{max(digits, 1)}f}") or float(f"{float(value):.3g}")


def _plain(value: Any) -> Any:
    """A value of NumPy as Python's, whole numbers without a point."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
