"""The generated page "status board": what was executed, when, where, how long."""

from collections.abc import Iterable, Mapping
from html import escape

from rfdetr.book.execute import Outcome
from rfdetr.book.filter_tables import filter_data, filtered_table, filters, raw
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.paper.verdicts import counts
from rfdetr.plots.findings import cells_html, chip

STATUS = "book/status"

_INTRODUCTION = """# Status board

This page is generated when the book is built. It says how each chapter of this copy of the site was made.
The key is the beginning of a hash over everything that a chapter's outputs depend on: its code, its
parameters, the files of the package that it imports, the data and the versions of the libraries. A chapter
with the same key is not executed again. What the chapters found is in the [audit](audit.md).
"""
_BOARD = ("chapter", "state", "seconds", "MB", "verdicts", "made")


def status_page(profile: str, outcomes: Iterable[Outcome], titles: Mapping[str, tuple[str, str]]) -> str:
    """Markdown of the page. `titles` holds, by chapter name, the chapter's title and its part of the
    paper.
    """
    outcomes = list(outcomes)
    chosen = get_profile(profile)
    parts = [_INTRODUCTION, f"Profile `{profile}`: {chosen.description}.\n"]
    if not chosen.meaningful:
        parts.append(
            "```{warning}\nThe numbers of this profile carry no meaning, so it has no verdicts.\n```\n"
        )
    if not outcomes:
        return "\n".join([*parts, "This copy of the book has no chapters.\n"])
    parts += ["## Chapters\n", raw(_board(outcomes, titles))]
    machines = sorted({outcome.record["machine"] for outcome in outcomes if "machine" in outcome.record})
    if machines:
        parts.append("Machine: " + "; ".join(machines) + ".\n")
    for outcome in outcomes:
        if outcome.state == "failed":
            parts.append(f"**{outcome.chapter.label}** failed {_plain(outcome.error.splitlines()[0])}\n")
    return "\n".join(parts)


def _board(outcomes: Iterable[Outcome], titles: Mapping[str, tuple[str, str]]) -> str:
    outcomes = list(outcomes)
    words = {word: None for outcome in outcomes for word in _verdicts(outcome)}
    choices = {"state": sorted({_state(outcome) for outcome in outcomes}), "verdict": list(words)}
    rows = [_row(outcome, *titles[outcome.chapter.name]) for outcome in outcomes]
    return filters("chapters-table", choices) + filtered_table("chapters-table", _BOARD, rows)


def _state(outcome: Outcome) -> str:
    # Executed or cached: which of the two is not said, or a second build would change the page.
    return {"failed": "failed", "skipped": "not executed"}.get(outcome.state, "complete")


def _verdicts(outcome: Outcome) -> dict[str, int]:
    if outcome.state in ("failed", "skipped"):
        return {}
    return counts(row["verdict"] for row in outcome.record.get("findings", []) if row["kind"] == "verdict")


def _row(outcome: Outcome, title: str, paper: str) -> str:
    record, state, found = outcome.record, _state(outcome), _verdicts(outcome)
    name, seconds, memory, verdicts, made = escape(title), "", "", "", ""
    if state != "failed":
        name = f'<a href="../{outcome.chapter.document}.html">{name}</a>'
    if state != "not executed":
        seconds = f"{record['seconds']:g}"
    if state == "complete":
        memory = str(record["peak_mb"])
        verdicts = "<br>".join(f"{count} {chip(word)}" for word, count in found.items())
        made = (
            f"{record['date'][:10]}<br><code>{record['commit']}</code><br><code>{record['key'][:12]}</code>"
        )
    small = f'<br><span class="numbers">{escape(paper)}</span>' if paper else ""
    cells = (name + small, state, seconds, memory, verdicts, made)
    data = filter_data(state=state, verdict="|".join(found))
    return f"<tr {data}>{cells_html(_BOARD, cells)}</tr>"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|$":
        text = text.replace(mark, "\\" + mark)
    return text
