"""What a chapter found, and the file that the audit and the status board read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rfdetr.experiments.base.artifacts import Store
from rfdetr.files import write_json
from rfdetr.paper.verdicts import Finding


@dataclass(frozen=True)
class Findings:
    """The findings of one run of one chapter.

    rows        verdicts, remarks and checks; checks alone where the profile has no meaning
    meaningful  whether the profile's numbers carry a meaning
    origin      where the run came from, in a sentence for the page
    """

    rows: tuple[Finding, ...]
    meaningful: bool
    origin: str

    def of(self, kind: str) -> list[Finding]:
        """The findings of one kind: verdict, remark or check."""
        return [row for row in self.rows if row.kind == kind]


def origin_sentence(made: Mapping[str, Any]) -> str:
    """Where a result comes from (`rfdetr.provenance.provenance`), in a sentence for a page."""
    return (
        f"Profile {made['profile']}, seed {made['seed']}, {made['time_utc'][:16].replace('T', ' ')} UTC,"
        f" {commit_words(made['commit'])}, torch {made['versions']['torch']}, NumPy"
        f" {made['versions']['numpy']}, {made['machine']}."
    )


def commit_words(commit: str) -> str:
    """A commit in words; one that nobody can check out is named as such."""
    if commit == "unknown":
        return "code of no known commit"
    head, changed, _ = commit.partition("+changes")
    return f"commit {head} with changes that were not committed" if changed else f"commit {head}"


def save_findings(
    store: Store, chapter: str, rows: Sequence[Finding], provenance: Mapping[str, Any], meaningful: bool
) -> Path:
    """Write a chapter's findings as `findings.json`; returns its path."""
    path = store.results(str(provenance["profile"]), chapter) / "findings.json"
    write_json(
        path,
        {
            "chapter": chapter,
            "meaningful": meaningful,
            "findings": [asdict(row) for row in rows],
            "provenance": dict(provenance),
        },
    )
    return path
