"""The range of every number of a recipe, checked in one way."""

import math
import numbers
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfdetr.errors import UserError

_BOUNDS = (
    ("least", operator.ge, "at least"),
    ("above", operator.gt, "above"),
    ("most", operator.le, "at most"),
    ("below", operator.lt, "below"),
)


@dataclass(frozen=True)
class Range:
    """Which numbers a field may hold. whole: whole numbers only. optional: None as well.

    least and most are inside the range; above and below are its open ends.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False
    optional: bool = False

    def read(self, name: str, value: Any) -> Any:
        """The value as a plain int or float (None where that is allowed).

        Raises UserError naming the field, the range and the value when it is outside: not-a-number and
        infinity are in no range, nor are truth values and text.
        """
        if value is None and self.optional:
            return None
        kind = numbers.Integral if self.whole else numbers.Real
        good = isinstance(value, kind) and not isinstance(value, bool) and _finite(value)
        bounds = [(test, words, getattr(self, key)) for key, test, words in _BOUNDS]
        bounds = [bound for bound in bounds if bound[2] is not None]
        if good and all(test(value, bound) for test, _, bound in bounds):
            # Plain numbers only: a checkpoint is read without running code, so it can hold no NumPy scalar.
            return int(value) if self.whole else float(value)
        wanted = " and ".join(f"{words} {bound:g}" for _, words, bound in bounds)
        raise UserError(
            f"{name} must be {'a whole number' if self.whole else 'a number'} {wanted}"
            f"{' (or none)' if self.optional else ''}, not {value!r}"
        )


def read_ranges(values: Any, ranges: Mapping[str, Range], prefix: str = "") -> None:
    """`Range.read` of the named fields of a frozen dataclass, in place, from its `__post_init__`; `prefix`
    goes before the names in messages.
    """
    for name, allowed in ranges.items():
        object.__setattr__(values, name, allowed.read(prefix + name, getattr(values, name)))


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False
