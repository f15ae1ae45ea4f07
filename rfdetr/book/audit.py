"""The audit of all claims and disagreements: from the chapters' findings and the printed tables.

`python -m rfdetr audit` prints it; `rfdetr.book.audit_page` makes the book's page of it.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.kept import results_root
from rfdetr.paper.audit import (
    AuditedClaim,
    AuditedEntry,
    arithmetic_modules,
    audited_claims,
    audited_entries,
)
from rfdetr.paper.verdicts import Finding, counts, decided

KEPT = "findings"
"""Folder below `results/` with the findings of a run of the profile cpu, for copies without one."""

CHAPTERS: Mapping[str, tuple[str, ...]] = {
    "00_introduction": ("ch00_claims",),
    "01_architecture": ("ch01_claims",),
    "02_search_space": ("ch02_claims", "grids"),
    "03_flexible_patches": ("ch03_claims",),
    "04_supernet_training": ("ch04_claims",),
    "05_search": ("ch05_claims",),
    "S_own_data": (),
    "Q_questions": (),
    "T_exercises": (),
    "06_latency_protocol": ("ch06_claims", "latency"),
    "07_coco_detection": ("ch07_claims", "coco"),
    "08_coco_segmentation": ("segmentation",),
    "09_rf100vl": ("ch09_claims", "rf100vl"),
    "10_nas_ablation": ("ch10_claims", "ablation"),
    "11_backbone_ablation": ("backbones",),
    "12_configurations": ("ch12_claims", "configurations"),
    "A_recipe": ("ch_a_claims", "recipe"),
    "B_query_drop": ("ch_b_claims",),
    "C_flops": ("ch_c_claims",),
    "D_class_names": ("class_names",),
    "E_larger_variants": ("ch_e_claims", "larger"),
    "F_fine_tuning": ("ch_f_claims", "fine_tuning"),
    "G_fixed_architecture": ("fixed_architecture",),
    "H_discovered_architectures": ("ch_h_claims", "characteristics"),
    "I_predictions": ("ch_i_claims",),
}
"""The modules with whose functions each chapter ends. Claims of no chapter are on the page of the audit."""


def claim_modules(chapter: str) -> list[Any]:
    """The modules of one chapter, loaded."""
    arithmetic = arithmetic_modules()
    return [
        arithmetic[name] if name in arithmetic else import_module(f"rfdetr.experiments.{name}")
        for name in CHAPTERS[chapter]
    ]


def expected() -> dict[str, str]:
    """Claim -> the chapter that decides it. ValueError for a claim that two chapters decide."""
    found: dict[str, str] = {}
    for chapter in CHAPTERS:
        for claim in decided(*claim_modules(chapter)):
            if claim in found:
                raise ValueError(f"{claim} is decided in {found[claim]} and in {chapter}")
            found[claim] = chapter
    return found


@dataclass(frozen=True)
class Audit:
    """All claims and all disagreements."""

    claims: list[AuditedClaim]
    entries: list[AuditedEntry]

    def counts(self) -> dict[str, int]:
        """How many claims have which verdict, are remarks, or were not run."""
        words = counts(claim.verdict for claim in self.claims if claim.state in ("verdict", "needs"))
        rest = {state: sum(c.state == state for c in self.claims) for state in ("remark", "not run")}
        return words | {state: count for state, count in rest.items() if count}


def audit(found: Mapping[str, Iterable[Mapping[str, Any]]]) -> Audit:
    """The audit from the findings of chapters: chapter -> rows as in `findings.json`."""
    by_claim = {
        row["claim"]: (chapter, Finding(**row))
        for chapter, rows in found.items()
        for row in rows
        if row["claim"]
    }
    homes = expected()
    # A claim that the printed tables decide needs no run of its chapter, but keeps its place there.
    claims = [
        claim if claim.chapter or claim.id not in homes else _placed(claim, homes[claim.id])
        for claim in audited_claims(by_claim, homes)
    ]
    return Audit(claims, audited_entries())


def _placed(claim: AuditedClaim, chapter: str) -> AuditedClaim:
    return AuditedClaim(**{**claim.row(), "chapter": chapter, "see": claim.see})


def saved_findings(profile: str, store: Store | None = None) -> dict[str, list[dict[str, Any]]]:
    """Findings of every chapter that was run with this profile here, else of the kept run (profile cpu)."""
    store = store or Store()
    found = {}
    for chapter in CHAPTERS:
        places = [store.results(profile, chapter) / "findings.json"]
        if profile == "cpu":
            places.append(results_root() / KEPT / f"{chapter}.json")
        for path in places:
            if path.is_file():
                found[chapter] = json.loads(path.read_text(encoding="utf-8"))["findings"]
                break
    return found


def rows(found: Audit) -> list[dict[str, Any]]:
    """Claims and disagreements as plain values, for JSON."""
    return [{"type": "claim", **claim.row()} for claim in found.claims] + [
        {"type": "inconsistency", **entry.row()} for entry in found.entries
    ]


def as_csv(found: Audit) -> str:
    """Claims and disagreements as one CSV table; numbers, sides and references as JSON."""
    out = io.StringIO()
    columns = (
        "type",
        "id",
        "state",
        "verdict",
        "statement",
        "where",
        "why",
        "chapter",
        "command",
        "numbers",
        "see",
    )
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for claim in found.claims:
        row = claim.row() | {"type": "claim"}
        packed = {key: json.dumps(row[key], ensure_ascii=False) for key in ("numbers", "see")}
        writer.writerow([(row | packed)[column] for column in columns])
    for entry in found.entries:
        sides = json.dumps(list(entry.sides), ensure_ascii=False)
        values = ("inconsistency", entry.id, entry.state, "", entry.title, entry.versions, entry.shown)
        writer.writerow([*values, "", "", sides, ""])
    return out.getvalue()


def one(found: Audit, name: str) -> AuditedClaim | AuditedEntry:
    """The claim or disagreement of that id; UserError otherwise."""
    every: list[AuditedClaim | AuditedEntry] = [*found.claims, *found.entries]
    for entry in every:
        if entry.id == name.upper():
            return entry
    first, last = found.claims[0].id, found.claims[-1].id
    raise UserError(
        f"no claim or inconsistency {name!r}; claims are {first} to {last}, inconsistencies"
        f" {found.entries[0].id} to {found.entries[-1].id}"
    )


def collect(folder: Path, store: Store) -> None:
    """Copy the findings of every chapter of the profile cpu into a folder, to be kept with the repository."""
    for chapter in CHAPTERS:
        path = store.results("cpu", chapter) / "findings.json"
        if not path.is_file():
            raise UserError(
                f"chapter {chapter} has not been executed with the profile cpu; run `python -m rfdetr book`"
                " first"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chapter}.json").write_bytes(path.read_bytes())
