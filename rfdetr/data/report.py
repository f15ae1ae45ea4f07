"""What is wrong with a dataset, counted, with the first examples of each problem."""

import json
from dataclasses import dataclass, field

EXAMPLES = 5


@dataclass
class DataReport:
    """Problems found in a dataset. counts: problem -> how often. examples: problem -> its first few
    occurrences.

    Empty (and false) for a dataset without problems. `print(report)` lists everything.
    """

    name: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    """Facts that are no problems but worth knowing: images without objects, crowd regions."""

    def add(self, problem: str, example: str) -> None:
        """Count one occurrence of `problem`."""
        self.counts[problem] = self.counts.get(problem, 0) + 1
        examples = self.examples.setdefault(problem, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def note(self, fact: str, count: int = 1) -> None:
        """Count a fact that is no problem."""
        self.notes[fact] = self.notes.get(fact, 0) + count

    def merge(self, other: "DataReport") -> None:
        """Add the findings of another report."""
        for problem, count in other.counts.items():
            self.counts[problem] = self.counts.get(problem, 0) + count
            mine = self.examples.setdefault(problem, [])
            mine.extend(other.examples[problem][: EXAMPLES - len(mine)])
        for fact, count in other.notes.items():
            self.note(fact, count)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"name": self.name, "counts": self.counts, "examples": self.examples, "notes": self.notes}

    @classmethod
    def from_json(cls, text: str) -> "DataReport":
        """A stored report; another JSON file of the same name gives an empty one."""
        try:
            values = json.loads(text)
            return cls(
                values["name"], dict(values["counts"]), dict(values["examples"]), dict(values["notes"])
            )
        except (ValueError, TypeError, KeyError):
            return cls()

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        lines = [f"{self.name or 'dataset'}: {sum(self.counts.values()) or 'no'} problem(s)"]
        for problem, count in self.counts.items():
            shown = "; ".join(self.examples[problem])
            lines.append(
                f"  {problem}: {count} ({shown}{'; ...' if count > len(self.examples[problem]) else ''})"
            )
        lines += [f"  note: {fact}: {count}" for fact, count in self.notes.items()]
        return "\n".join(lines)
