"""The generated page "status board": what was executed, when, where, how long, and what it found."""

from collections.abc import Iterable, Mapping
from typing import Any

from rfdetr.book.execute import Outcome
from rfdetr.experiments.base.profiles import get_profile

STATUS = "book/status"

_INTRODUCTION = """# Status board

This page is generated when the book is built. It says how each chapter of this copy of the site was made.
The key is the beginning of a hash over everything that a chapter's outputs depend on: its code, its
parameters, the files of the package that it imports, the data and the versions of the libraries. A chapter
with the same key is not executed again.
"""
_BOARD = ("Chapter", "Paper", "State", "Seconds", "Peak memory", "Commit", "Date (UTC)", "Key")
_VERDICTS = ("Claim", "Statement", "Verdict", "Numbers", "Why", "Chapter")


def status_page(profile: str, outcomes: Iterable[Outcome], titles: Mapping[str, tuple[str, str]]) -> str:
    """Markdown of the page. `titles` holds, by chapter name, the chapter's title and its part of the
    paper.
    """
    outcomes = list(outcomes)
    chosen = get_profile(profile)
    parts = [_INTRODUCTION, f"Profile `{profile}`: {chosen.description}.\n"]
    if not chosen.meaningful:
        parts.append(
            "```{warning}\nThe numbers of this profile carry no meaning, and neither do its verdicts.\n```\n"
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
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        parts.append(f"**{outcome.chapter.label}** failed {_plain(outcome.error.splitlines()[0])}\n")
    verdicts = [
        (outcome, verdict)
        for outcome in outcomes
        for verdict in outcome.record.get("verdicts", [])
        if outcome.state != "failed"
    ]
    if verdicts:
        parts += ["## Verdicts\n", _summary(verdict for _, verdict in verdicts)]
        parts.append(_table(_VERDICTS, [_verdict_row(outcome, verdict) for outcome, verdict in verdicts]))
    return "\n".join(parts)


def _row(outcome: Outcome, title: str, paper: str) -> list[str]:
    record = outcome.record
    if outcome.state == "failed":
        return [_plain(title), paper, "failed", f"{record['seconds']:g}", "", "", "", ""]
    link = f"[{_plain(title)}](../{outcome.chapter.document}.ipynb)"
    if outcome.state == "skipped":
        return [link, paper, "not executed", "", "", "", "", ""]
    # Executed or cached: which of the two is not said, or a second build would change the page.
    date = record["date"][:16].replace("T", " ")
    memory, commit, key = f"{record['peak_mb']} MB", f"`{record['commit']}`", f"`{record['key'][:12]}`"
    return [link, paper, "complete", f"{record['seconds']:g}", memory, commit, date, key]


def _verdict_row(outcome: Outcome, verdict: Mapping[str, Any]) -> list[str]:
    numbers = ", ".join(f"{name} = {value}" for name, value in verdict["numbers"].items())
    claim = verdict["claim"] if verdict["claim"] != verdict["statement"] else ""
    link = f"[{outcome.chapter.label}](../{outcome.chapter.document}.ipynb)"
    texts = [claim, verdict["statement"], verdict["verdict"], numbers, verdict["why"]]
    return [*(_plain(text) for text in texts), link]


def _summary(verdicts: Iterable[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for verdict in verdicts:
        kind = (
            "needs more than this run had" if verdict["verdict"].startswith("needs ") else verdict["verdict"]
        )
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) + ".\n"


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
