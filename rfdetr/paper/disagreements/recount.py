"""One disagreement, recomputed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recount:
    """holds: whether the disagreement is there in the numbers. shown: the arithmetic, in a line or two."""

    holds: bool
    shown: str

    @property
    def word(self) -> str:
        """`confirmed` or `not confirmed`."""
        return "confirmed" if self.holds else "not confirmed"


_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")


def numbers(text: Any) -> list[float]:
    """The numbers in a text, in their order."""
    return [float(found) for found in _NUMBER.findall(str(text))]


def side(sides: Sequence[dict[str, Any]], where: str) -> str:
    """The value of the first side whose place contains `where`; KeyError when there is none."""
    for entry in sides:
        if where in entry["where"]:
            return str(entry["value"])
    raise KeyError(f"no side at {where!r}")


def listed(values: Sequence[Any]) -> str:
    """Values with commas, whole numbers without a point."""
    return ", ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in values)


def signed(values: dict[str, float]) -> str:
    """`N +0.1, S +0.7`."""
    return ", ".join(f"{name} {value:+.1f}" for name, value in values.items())


def runs(blocks: Sequence[int]) -> Iterator[int]:
    """First blocks of the groups of neighbours in a list of block numbers."""
    return (block for block in blocks if block - 1 not in blocks)
