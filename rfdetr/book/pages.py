"""The published form of a chapter: today's prose, the outputs of the executed copy, tables that can be read.

What the chapters show is a plain table. Here its heads get their scope, a table with many columns a class,
and every table and figure a line that says where it comes from.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import unescape
from types import MappingProxyType
from typing import Any

from rfdetr.book.cache import code_cells
from rfdetr.book.origins import Origin, Origins
from rfdetr.book.source_pages import Module
from rfdetr.book.sphinx import IMAGE_MIMES, figure_alt

_WIDE, _PAGE = 7, 560
"""A table with more columns, or wider by `_least_width` than this many px, is set smaller so that it fits."""
_PHONE, _HEAD, _LETTER, _GAP = 318, 7.7, 7.1, 12
"""Width of the text on a phone, of a letter in the heads and in the cells of its small tables, and between
two columns; px.
"""


def page(
    notebook: Any,
    executed: Any | None,
    record: Mapping[str, Any],
    origin_line: Callable[[Origin], str] = lambda _: "",
    known: Mapping[str, Module] = MappingProxyType({}),
) -> str:
    """The published form of a chapter: today's cells, the outputs of the executed copy, and what it took to
    execute. Profile, commit and machine the chapter prints itself, whoever executes it.

    origin_line   HTML below a table or figure that says where it comes from
    known         the package's modules, in which functions that the cells call are looked up

    The cache key holds the code cells, so those of `executed` are the same in the same order; ids and tags
    are today's.
    """
    import nbformat

    if executed is not None:
        origins = Origins(known)
        for cell, done in zip(code_cells(notebook), code_cells(executed), strict=True):
            cell.outputs, cell.execution_count = joined_streams(done.outputs), done.execution_count
            for output in cell.outputs:
                if "text/html" in output.get("data", {}):
                    output.data["text/html"] = readable_tables("".join(output.data["text/html"]))
            cell.outputs = list(_with_origins(cell.outputs, origins.shown(cell.source), origin_line))
    if executed is None:
        first = 1 if notebook.cells and notebook.cells[0].cell_type == "markdown" else 0
        text = (
            "```{note}\nThis chapter was not executed when this site was built, so it shows no results.\n```"
        )
        notebook.cells.insert(first, nbformat.v4.new_markdown_cell(text, id="note"))
    if executed is not None:
        notebook.cells.append(nbformat.v4.new_markdown_cell(_made_with(record), id="made-with"))
    return nbformat.writes(notebook) + "\n"


def _with_origins(
    outputs: Iterable[Any], origins: Sequence[Origin], origin_line: Callable[[Origin], str]
) -> Iterator[Any]:
    """The outputs, each table and figure with its line below it."""
    from nbformat.v4 import new_output

    outputs = list(outputs)
    shown = [output for output in outputs if _is_shown(output)]
    # One call showed one output; in a loop or after a condition it is not known which, and all are named.
    together = Origin()
    for origin in origins:
        together.add(origin)
    by_output = origins if len(origins) == len(shown) else [together] * len(shown)
    lines = iter([origin_line(origin) for origin in by_output])
    for output in outputs:
        yield output
        if _is_shown(output) and (text := next(lines)):
            yield new_output("display_data", {"text/html": text})


def _is_shown(output: Any) -> bool:
    """Whether an output is a figure, or a table other than the chapter's verdicts."""
    data = output.get("data", {})
    html = data.get("text/html", "")
    return (
        any(mime in data for mime in IMAGE_MIMES)
        or bool(html and figure_alt(output.get("metadata", {}), "text/html"))
        or ("<table" in html and "findings" not in html)
    )


def joined_streams(outputs: list[Any]) -> list[Any]:
    """The outputs with text printed in several pieces (progress lines) made one block, as a terminal shows
    it.
    """
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _made_with(record: Mapping[str, Any]) -> str:
    given = "".join(
        f" with `{name} = {value!r}`" for name, value in record["parameters"].items() if name != "profile"
    )
    return (
        f"```{{div}} made-with\nExecuted{given} in {record['seconds']:g} s with at most {record['peak_mb']}"
        f" MB of memory; key `{record['key'][:12]}`.\n```"
    )


def figures_without_alt(notebook: Any) -> int:
    """Number of images among the outputs that have no alternative text; no chart is shown without one."""
    missing = 0
    for cell in code_cells(notebook):
        whole_cell = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for output in cell.get("outputs", []):
            data, about = output.get("data", {}), output.get("metadata", {})
            shown = next((mime for mime in IMAGE_MIMES if mime in data), None)
            if shown:
                missing += not (whole_cell or figure_alt(about, shown))
    return missing


def readable_tables(html: str) -> str:
    """HTML of an output: heads of tables with their scope, wide tables in a box of class `wide-table`.

    A table whose columns do not fit on a phone is of class `cards`, and its cells name their column.
    """
    return re.sub(r"<table\b.*?</table>", lambda match: _table(match[0]), html, flags=re.DOTALL)


def _table(table: str) -> str:
    head, close, body = table.partition("</thead>")
    if not close:
        return table
    head = re.sub(r"<th(?![\w])(?![^>]*scope=)", '<th scope="col"', head)
    body = re.sub(r"<th(?![\w])(?![^>]*scope=)", '<th scope="row"', body)
    last_row = head.rpartition("<tr")[2]
    names = [_text(cell) for _, cell in _CELL.findall(last_row)]
    rows = [[_text(cell) for _, cell in _CELL.findall(row)] for row in _ROW.findall(body)]
    plain = "findings" not in head and all(len(row) == len(names) for row in rows)
    least = _least_width(names, rows) if rows and plain else 0.0
    if least > _PHONE:
        head = _with_class(head, "cards")
        body = _ROW.sub(lambda row: _named_cells(row[0], names), body)
    wide = len(names) > _WIDE or least > _PAGE
    return f'<div class="wide-table">{head}{close}{body}</div>' if wide else head + close + body


_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<(t[hd])\b[^>]*>(.*?)</t[hd]>", re.DOTALL)


def _text(cell: str) -> str:
    return re.sub(r"[ \n\t]+", " ", re.sub(r"<[^>]*>", " ", cell)).strip()


def _least_width(names: Sequence[str], rows: Sequence[Sequence[str]]) -> float:
    """Width of a table on a phone with all words below each other, in px; numbers do not break."""
    widths = [_HEAD * _longest(re.split(r"[ -]+", unescape(name))) for name in names]
    for row in rows:
        for place, text in enumerate(map(unescape, row)):
            number = re.fullmatch(r"[\d.,\s%+−-]+", text)
            words = [text] if number else re.split(r"[ -]+", text)
            widths[place] = max(widths[place], _LETTER * _longest(words))
    return sum(width + _GAP for width in widths)


def _longest(words: Iterable[str]) -> int:
    return max(map(len, words), default=0)


def _with_class(table: str, name: str) -> str:
    """The table's tag with one more class."""
    if re.match(r'<table[^>]*class="', table):
        return re.sub(r'class="', f'class="{name} ', table, count=1)
    return table.replace("<table", f'<table class="{name}"', 1)


def _named_cells(row: str, names: Sequence[str]) -> str:
    given = iter(names)
    return re.sub(
        r"<t[hd]\b", lambda cell: f'{cell[0]} data-label="{next(given).replace(chr(34), "&quot;")}"', row
    )
