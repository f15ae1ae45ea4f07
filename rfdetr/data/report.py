"""What is wrong with a dataset: structured problems, counted by kind, and facts that are none.

`rfdetr.data.checks` says what commands do with it.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

EXAMPLES = 5  # shown of every kind
KEPT = 100  # kept of every kind; all are counted


@dataclass(frozen=True)
class Problem:
    """One thing that was repaired, left out, guessed, or that stops a command.

    kind: what it is, the same words for all of its kind. text: the occurrence. file: the annotation file or
    picture it is in. annotation: its id, where it is about one. stops: training stops at it.
    """

    kind: str
    text: str
    file: str = ""
    annotation: int | str | None = None
    stops: bool = False


@dataclass
class DataReport:
    """Problems found in a dataset. counts: kind -> how often. problems: kind -> the first `KEPT` of it.

    Empty (and false) for a dataset without problems. `print(report)` lists every kind with examples.
    """

    name: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    """Facts that are no problems but worth knowing: images without objects, crowd regions, 16-bit files."""

    def add(
        self,
        kind: str,
        text: str,
        *,
        file: str = "",
        annotation: int | str | None = None,
        stops: bool = False,
    ) -> None:
        """Count one occurrence of a problem (see `Problem`)."""
        self.put(Problem(kind, text, file, annotation, stops))

    def put(self, problem: Problem, count: int = 1) -> None:
        """Count a problem, `count` times."""
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + count
        kept = self.problems.setdefault(problem.kind, [])
        if len(kept) < KEPT:
            kept.append(problem)

    def note(self, fact: str, count: int = 1) -> None:
        """Count a fact that is no problem."""
        self.notes[fact] = self.notes.get(fact, 0) + count

    def merge(self, other: "DataReport") -> None:
        """Add the findings of another report."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            mine = self.problems.setdefault(kind, [])
            mine.extend(other.problems.get(kind, [])[: KEPT - len(mine)])
        for fact, count in other.notes.items():
            self.note(fact, count)

    def rename(self, file: str, source: str) -> None:
        """Call a file otherwise, wherever a problem names it."""
        for found in self.problems.values():
            found[:] = [
                replace(p, text=p.text.replace(file, source), file=p.file.replace(file, source))
                for p in found
            ]

    @property
    def total(self) -> int:
        """Number of problems."""
        return sum(self.counts.values())

    @property
    def examples(self) -> dict[str, list[str]]:
        """Kind -> the texts of its first few problems."""
        return {kind: [p.text for p in found[:EXAMPLES]] for kind, found in self.problems.items()}

    @property
    def stopping(self) -> list[Problem]:
        """The problems that training stops at."""
        return [problem for found in self.problems.values() for problem in found if problem.stops]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "counts": self.counts,
            "problems": [asdict(problem) for found in self.problems.values() for problem in found],
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, text: str) -> "DataReport":
        """A stored report; another JSON file of the same name gives an empty one."""
        try:
            values = json.loads(text)
            report = cls(values["name"], dict(values["counts"]), {}, dict(values["notes"]))
            for problem in (Problem(**problem) for problem in values["problems"]):
                report.problems.setdefault(problem.kind, []).append(problem)
            return report
        except (ValueError, TypeError, KeyError):
            return cls()

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        lines = [f"{self.name or 'dataset'}: {self.total or 'no'} problem(s)"]
        for kind, count in self.counts.items():
            shown = "; ".join(self.examples.get(kind, []))
            lines.append(f"  {kind}: {count} ({shown}{'; ...' if count > EXAMPLES else ''})")
        lines += [f"  note: {fact}: {count}" for fact, count in self.notes.items()]
        return "\n".join(lines)
