"""Tables of the generated pages that a reader can filter; `assets/filters.js` does it in the browser."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def raw(html: str) -> str:
    """HTML as a part of a Markdown page."""
    return f"```{{raw}} html\n{html}\n```\n"


def filters(table: str, choices: Mapping[str, Iterable[str]]) -> str:
    """The form above a table: a choice for each name in `choices`, and a search for text.

    table   identifier of the table. Its rows have the values as `data-<name>`, several separated by "|".
    """
    boxes = "".join(
        f'<label>{name} <select data-filter="{name}"><option value="">all</option>'
        + "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
        + "</select></label> "
        for name, values in choices.items()
    )
    search = '<label>text <input type="search" data-filter="text"></label>'
    return f'<form class="table-filters" data-table="{table}">{boxes}{search} <output></output></form>'


def filter_data(**values: str) -> str:
    """Attributes of a row for the filters."""
    return " ".join(f'data-{name}="{escape(value)}"' for name, value in values.items())


def filtered_table(table: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    """A table of rows of HTML; see `rfdetr.plots.findings.cells_html` for their cells."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<table class="dataframe findings" id="{table}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
