"""What became of every tensor when weights were loaded."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of a report.

    key      name in the file; of the network for "initialised"
    action   "loaded", "resized", "dropped" (not needed here) or "initialised" (not in the file)
    target   name in the network, "" when dropped
    reason   why, empty for "loaded"
    """

    key: str
    action: str
    target: str = ""
    reason: str = ""


@dataclass
class LoadReport:
    """Every tensor of a file and of a network, and what was done with it. `str(report)` is a short
    summary.
    """

    source: str
    layout: str
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Differences from the named configuration that were taken from the file; entries of it that are no
    weights.
    """

    def add(self, action: str, keys: Iterable[str], target: str = "", reason: str = "") -> None:
        """Add one entry per key."""
        self.entries += [Entry(key, action, target, reason) for key in keys]

    def note_others(self, entries: Iterable[str]) -> None:
        """Say which entries beside the weights were not read."""
        if names := ", ".join(sorted(entries)):
            self.notes.append(f"entries beside the weights, not used: {names}")

    def new_layers(self, change: "LoadReport") -> None:
        """Take over that tensors loaded from the file were then replaced by new ones (`change.initialised`)
        or cut (`change.resized`).
        """
        replaced = {entry.target: entry for entry in change.initialised}
        why = {entry.key: entry.reason for entry in change.dropped}
        cut = {entry.target: entry.reason for entry in change.resized}
        self.entries = [
            Entry(e.key, "dropped", "", why[e.target])
            if e.target in replaced
            else (Entry(e.key, "resized", e.target, cut[e.target]) if e.target in cut else e)
            for e in self.entries
        ] + list(replaced.values())

    def _of(self, action: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.action == action]

    @property
    def loaded(self) -> list[Entry]:
        """Tensors copied as they are (several may be joined to one)."""
        return self._of("loaded")

    @property
    def resized(self) -> list[Entry]:
        """Tensors resampled or cut to another size."""
        return self._of("resized")

    @property
    def dropped(self) -> list[Entry]:
        """Tensors of the file that the network does not need."""
        return self._of("dropped")

    @property
    def initialised(self) -> list[Entry]:
        """Tensors of the network that the file does not hold."""
        return self._of("initialised")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and provenance records."""
        return {
            "source": self.source,
            "layout": self.layout,
            "notes": list(self.notes),
            "entries": [vars(entry) for entry in self.entries],
        }

    def __str__(self) -> str:
        counts = Counter(entry.action for entry in self.entries)
        lines = [
            f"{self.source} ({self.layout} layout): "
            + ", ".join(
                f"{counts[a]} {a}" for a in ("loaded", "resized", "dropped", "initialised") if counts[a]
            )
        ]
        lines += [f"  {note}" for note in self.notes]
        by_reason = Counter((e.action, e.reason) for e in self.entries if e.reason)
        lines += [f"  {action} {n}: {reason}" for (action, reason), n in by_reason.items()]
        return "\n".join(lines)
