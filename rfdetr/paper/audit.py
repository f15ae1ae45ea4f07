"""The audit: every claim and every known disagreement of the paper, with what was found about it.

Claims that the printed tables decide are decided here, in a moment. Those that a chapter decides come from
that chapter's run and are handed in. What is left is named with what it needs (`needs.yaml`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from rfdetr.paper import tables
from rfdetr.paper.disagreements.recount import Recount
from rfdetr.paper.verdicts import NEEDS, Finding, arguments, claims, findings, own_functions

_ENTRY = re.compile(r"i\d{2}")


@dataclass(frozen=True)
class AuditedClaim:
    """One claim of the ledger.

    state    `verdict`, `remark`, `needs`, or `not run`: the chapter that decides it was not executed
    verdict  the word, or `needs ...`; empty for a remark and for what was not run
    chapter  the chapter that decided it, or empty: the printed tables alone
    command  what would decide it, or make the chapter run
    """

    id: str
    where: str
    statement: str
    kind: str
    state: str
    verdict: str
    why: str
    chapter: str = ""
    command: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    see: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The entry as plain values, for JSON and CSV."""
        return {**asdict(self), "see": list(self.see), "numbers": dict(self.numbers)}


@dataclass(frozen=True)
class AuditedEntry:
    """One disagreement: `confirmed`, `not confirmed`, or `words only`, with the arithmetic."""

    id: str
    title: str
    scope: str
    severity: str
    versions: str
    sides: tuple[str, ...]
    state: str
    shown: str
    reading: str = ""

    def row(self) -> dict[str, Any]:
        """The entry as plain values, for JSON and CSV."""
        return {**asdict(self), "sides": list(self.sides)}


def arithmetic_modules() -> dict[str, ModuleType]:
    """The modules of table arithmetic by name."""
    from rfdetr.paper.arithmetic import (
        ablation,
        backbones,
        characteristics,
        class_names,
        coco,
        configurations,
        fine_tuning,
        fixed_architecture,
        grids,
        larger,
        latency,
        recipe,
        rf100vl,
        segmentation,
    )

    modules = (
        *(coco, segmentation, larger, ablation, backbones, latency, class_names),
        *(rf100vl, fixed_architecture, fine_tuning, characteristics, grids, configurations, recipe),
    )
    return {module.__name__.rpartition(".")[2]: module for module in modules}


@cache
def from_tables() -> Mapping[str, Finding]:
    """What the printed tables alone decide, by claim."""
    return {finding.claim: finding for finding in findings(*arithmetic_modules().values())}


def audited_claims(
    found: Mapping[str, tuple[str, Finding]], expected: Mapping[str, str]
) -> list[AuditedClaim]:
    """All claims of the ledger, in its order.

    found     claim -> (chapter, finding) of the chapters that were run
    expected  claim -> chapter that decides it when it is run
    """
    return [_claim(name, entry, found, expected) for name, entry in claims().items()]


def _claim(
    name: str,
    entry: Mapping[str, Any],
    found: Mapping[str, tuple[str, Finding]],
    expected: Mapping[str, str],
) -> AuditedClaim:
    def made(state: str, verdict: str, why: str, **more: Any) -> AuditedClaim:
        return AuditedClaim(
            name,
            entry["where"],
            entry["statement"],
            entry["kind"],
            state,
            verdict,
            why,
            see=tuple(entry.get("see", ())),
            **more,
        )

    chapter, finding = found.get(name, (expected.get(name, ""), from_tables().get(name)))
    missing = needs().get(name, {})
    if finding is not None:
        state = "needs" if finding.verdict.startswith(NEEDS) else finding.kind
        command = missing.get("command", "") if state == "needs" else ""
        return made(
            state, finding.verdict, finding.why, chapter=chapter, numbers=finding.numbers, command=command
        )
    if chapter:
        why = "Its chapter was not executed for this copy, or in a profile without meaning."
        return made("not run", "", why, chapter=chapter, command=f"python -m rfdetr book --chapter {chapter}")
    if "remark" in missing:
        return made("remark", "", missing["remark"])
    return made("needs", NEEDS + missing["needs"], missing.get("why", ""), command=missing.get("command", ""))


@cache
def needs() -> Mapping[str, Mapping[str, str]]:
    """Claims that no code of this project decides: what each needs, or a remark, and the command."""
    return tables.document("needs")


def audited_entries() -> list[AuditedEntry]:
    """All known disagreements, in the order of the ledger."""
    recounted = recounts()
    return [_entry(entry, recounted.get(entry["id"])) for entry in tables.document("inconsistencies")]


def _entry(entry: Mapping[str, Any], recount: Recount | None) -> AuditedEntry:
    sides = tuple(f"{side['where']}: {side['value']}" for side in entry["sides"])
    return AuditedEntry(
        entry["id"],
        entry["title"],
        entry["scope"],
        entry["severity"],
        entry["versions"],
        sides,
        "words only" if recount is None else recount.word,
        "" if recount is None else recount.shown,
        entry.get("reading", ""),
    )


def recounts(**evidence: Any) -> dict[str, Recount]:
    """Every disagreement that has a function, recomputed, by id. `evidence` replaces printed parts."""
    from rfdetr.paper.disagreements import counts, grids, labels, margins, measurements

    entries = {entry["id"]: entry for entry in tables.document("inconsistencies")}
    return {
        name.upper(): function(**arguments(function, entries[name.upper()], **evidence))
        for name, function in own_functions(grids, counts, margins, measurements, labels)
        if _ENTRY.fullmatch(name)
    }


def places() -> Iterable[tuple[str, str, str]]:
    """Every table, figure and appendix of both versions: (kind, id of v2 or of v1, title)."""
    return [(r["kind"], r["v2_id"] or f"v1 {r['v1_id']}", r["title"]) for r in tables.numbering()]
