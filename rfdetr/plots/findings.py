"""The end of a chapter: verdicts, remarks, checks of this project's code, and the run's origin."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rfdetr.experiments.base.findings import Findings
from rfdetr.paper.verdicts import Finding, kind_of


def show_findings(found: Findings) -> None:
    """Show the findings of a chapter in a notebook."""
    from IPython.display import HTML, display

    display(HTML(findings_html(found)))


def findings_html(found: Findings) -> str:
    """The HTML that `show_findings` shows. Each claim's row has the claim's id as its anchor."""
    parts = []
    if not found.meaningful:
        parts.append("<p>No verdicts: the numbers of this profile carry no meaning.</p>")
    for kind, title, heads in (
        ("verdict", "Verdicts on claims of the paper", ("claim", "verdict", "statement", "why")),
        ("remark", "Remarks on claims that no code decides", ("claim", "statement", "remark")),
        ("check", "Checks of this project's own code", ("check", "outcome", "numbers")),
    ):
        rows = found.of(kind)
        if rows:
            parts.append(_table(kind, title, heads, rows))
    parts.append(f'<p class="made-with">{escape(found.origin)}</p>')
    return "".join(parts)


def _table(kind: str, title: str, heads: Sequence[str], rows: Iterable[Finding]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(_row(kind, heads, row) for row in rows)
    return (
        f'<table class="dataframe findings"><caption>{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(kind: str, heads: Sequence[str], row: Finding) -> str:
    why = escape(row.why) + numbers_html(row.numbers)
    if kind == "check":
        cells = [escape(row.statement), chip(row.verdict), why]
    elif kind == "remark":
        cells = [row.claim, escape(row.statement), why]
    else:
        cells = [row.claim, chip(row.verdict), escape(row.statement), why]
    anchor = f' id="{row.claim}"' if row.claim else ""
    return f"<tr{anchor}>{cells_html(heads, cells)}</tr>"


def cells_html(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Cells of a row. Each names its column, because a phone shows the row as a card without the heads."""
    pairs = zip(heads, cells, strict=True)
    return "".join(f'<td data-label="{head}">{text}</td>' for head, text in pairs)


def chip(word: str) -> str:
    """A verdict as a coloured word; its class is the word."""
    return f'<span class="verdict {kind_of(word).replace(" ", "-")}">{escape(word)}</span>'


def numbers_html(numbers: Mapping[str, Any]) -> str:
    """The numbers of a finding on a line of their own, in small print; empty for none."""
    if not numbers:
        return ""
    shown = "; ".join(f"{name}: {readable(value)}" for name, value in numbers.items())
    return f'<br><span class="numbers">{escape(shown)}</span>'


def readable(value: Any) -> str:
    """A number of a finding for people: four significant digits, lists with commas, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(readable(v) for v in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {readable(v)}" for k, v in value.items()) or "none"
    return str(value)
