"""The generated page "status board": what was executed, when, where, how long."""

from collections.abc import Iterable, Mapping

from rfdetr.book.execute import Outcome
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.paper.verdicts import counts

STATUS = "book/status"

_INTRODUCTION = """# Status board

This page is generated when the book is built. It says how each chapter of this copy of the site was made.
The key is the beginning of a hash over everything that a chapter's outputs depend on: its code, its
parameters, the files of the package that it imports, the data and the versions of the libraries. A chapter
with the same key is not executed again. What the chapters found is in the [audit](audit.md).
"""
_BOARD = ("Chapter", "State", "Seconds", "MB", "Verdicts", "Made")


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
    parts += [
        "## Chapters\n",
        _table(_BOARD, [_row(outcome, *titles[outcome.chapter.name]) for outcome in outcomes]),
    ]
    machines = sorted({outcome.record["machine"] for outcome in outcomes if "machine" in outcome.record})
    if machines:
        parts.append("Machine: " + "; ".join(machines) + ".\n")
    for outcome in outcomes:
        if outcome.state == "failed":
            parts.append(f"**{outcome.chapter.label}** failed {_plain(outcome.error.splitlines()[0])}\n")
    return "\n".join(parts)


def _row(outcome: Outcome, title: str, paper: str) -> list[str]:
    record = outcome.record
    if outcome.state == "failed":
        return [_name(_plain(title), paper), "failed", f"{record['seconds']:g}", "", "", ""]
    link = _name(f"[{_plain(title)}](../{outcome.chapter.document}.ipynb)", paper)
    if outcome.state == "skipped":
        return [link, "not executed", "", "", "", ""]
    # Executed or cached: which of the two is not said, or a second build would change the page.
    words = [row["verdict"] for row in record.get("findings", []) if row["kind"] == "verdict"]
    verdicts = "<br>".join(f"{count} {word}" for word, count in counts(words).items())
    made = f"{record['date'][:10]}<br>`{record['commit']}`<br>`{record['key'][:12]}`"
    return [link, "complete", f"{record['seconds']:g}", str(record["peak_mb"]), verdicts, made]


def _name(title: str, paper: str) -> str:
    return f"{title}<br>{paper}" if paper else title


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line, also in a table."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|$":
        text = text.replace(mark, "\\" + mark)
    return text


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
