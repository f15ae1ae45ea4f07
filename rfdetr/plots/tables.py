"""Tables and sentences of the chapters."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
_FAR = 3
"""Powers of ten below its digits from which a number is no rounded nothing, but an error of rounding."""
_DIGITS = 15
"""Digits that float64 always keeps: a number with more before its point is written by its power of ten."""


def table(
    df: "pd.DataFrame",
    caption: str = "",
    columns: Mapping[str, str] | Sequence[str] | None = None,
    decimals: int | Mapping[str, int] = 1,
) -> None:
    """Show a DataFrame without its index.

    columns   columns to show: names, or a mapping from name to heading
    decimals  digits after the point of real numbers, for all columns or by column (columns left out get 1)

    KeyError for a column that is not there.
    """
    from IPython.display import HTML, display

    display(HTML(html_table(df, caption, columns, decimals)))


def html_table(
    df: "pd.DataFrame",
    caption: str = "",
    columns: Mapping[str, str] | Sequence[str] | None = None,
    decimals: int | Mapping[str, int] = 1,
) -> str:
    """The HTML that `table` shows. Numbers are aligned right, missing values are dashes."""
    if columns is None:
        columns = list(df.columns)
    headings = (
        dict(columns)
        if isinstance(columns, Mapping)
        else {name: str(name).replace("_", " ") for name in columns}
    )
    digits = {name: decimals if isinstance(decimals, int) else decimals.get(name, 1) for name in headings}
    numeric = {name: all(_is_number(v) or _is_missing(v) for v in df[name]) for name in headings}

    def cell(tag: str, name: str, text: str) -> str:
        # Words and headings may break into lines, numbers may not.
        style = (
            f"text-align: {'right' if numeric[name] else 'left'}; padding: 0.15em 0.6em; vertical-align: top"
        )
        if tag == "td" and numeric[name]:
            style += "; white-space: nowrap"
        return f'<{tag} style="{style}">{escape(text)}</{tag}>'

    head = "".join(cell("th", name, text) for name, text in headings.items())
    body = "".join(
        "<tr>"
        + "".join(
            cell("td", name, _text(value, digits[name])) for name, value in zip(headings, row, strict=True)
        )
        + "</tr>"
        for row in df[list(headings)].itertuples(index=False, name=None)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="dataframe">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def say(text: str) -> None:
    """Show a paragraph of Markdown whose numbers come from results."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and math.isnan(value))


def _is_number(value: Any) -> bool:
    # NumPy's bool is no Real; Python's is an Integral.
    return isinstance(value, Real) and not isinstance(value, bool)


def _text(value: Any, digits: int) -> str:
    if _is_missing(value):
        return MISSING
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value) + 0.0  # no "-0.0" for nothing
        if number and not 10 ** -(digits + _FAR) <= abs(number) < 10**_DIGITS:
            return f"{number:.1e}"
        return f"{number:,.{digits}f}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or MISSING
    return str(value)
