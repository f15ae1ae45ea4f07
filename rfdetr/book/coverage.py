"""Where the book has each table, figure and appendix of the paper, and what each profile trains.

From `book/coverage.yaml`; the pages of the book have markers at which these tables are put.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rfdetr.book.cache import Project
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import PROFILES, Profile
from rfdetr.experiments.ch09_cost import T4_TFLOPS as _T4_TFLOPS
from rfdetr.paper import tables

MISSING, PLACES, TRAINED, TOOK = "{{missing}}", "{{places}}", "{{trained}}", "{{took}}"
"""Markers in the book's pages: what is not there, where everything is, what the profiles train, what they
took.
"""
_BACKWARD = 3  # a training step in forward passes


@dataclass(frozen=True)
class Place:
    """One table, figure or appendix: its chapter (or none), what the audit has of it, what is missing."""

    kind: str
    name: str
    title: str
    chapter: str
    audit: str
    missing: str


def filled(text: str, project: Project) -> str:
    """A page of the book with its markers replaced."""
    makers = {
        MISSING: lambda: missing_list(places(project)),
        PLACES: lambda: places_table(places(project), project),
        TRAINED: trained_table,
        TOOK: lambda: took_table(project),
    }
    for marker, make in makers.items():
        if marker in text:
            text = text.replace(marker, make())
    return text


def places(project: Project) -> list[Place]:
    """All places of both versions, in the order of `numbering.csv`. UserError for one without an entry."""
    import yaml

    path = project.root / "book" / "coverage.yaml"
    if not path.is_file():
        raise UserError(f"the book needs {path}: where it has each table, figure and appendix of the paper")
    entries: Mapping[str, Mapping[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return list(_places(entries))


def _places(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Place]:
    for row in tables.numbering():
        name = row["v2_id"] or f"v1 {row['v1_id']}"
        entry = entries.get(row["kind"], {}).get(name)
        if not entry or not set(entry) <= {"chapter", "audit", "missing"}:
            raise UserError(f"book/coverage.yaml says nothing about {row['kind']} {name}, {row['title']!r}")
        found = (str(entry.get(key, "")) for key in ("chapter", "audit", "missing"))
        yield Place(row["kind"], name, row["title"], *found)


def places_table(found: list[Place], project: Project) -> str:
    """Markdown table of all places; the chapters that the project has are links."""
    rows = []
    for place in found:
        where = place.chapter
        if where and (project.root / "notebooks" / f"{where}.ipynb").is_file():
            where = f"[{where}](../notebooks/{where}.ipynb)"
        if place.audit:
            where = f"arithmetic in the [audit](audit.md): {place.audit}"
        rows.append(f"| {place.kind.capitalize()} {place.name} | {place.title} | {where} | {place.missing} |")
    return "\n".join(["| | | where | missing |", "| --- | --- | --- | --- |", *rows]) + "\n"


def missing_list(found: list[Place]) -> str:
    """Markdown list of what has no chapter, by what it needs."""
    groups: dict[str, list[str]] = {}
    for place in found:
        if not place.chapter:
            groups.setdefault(place.missing, []).append(f"{place.kind} {place.name}")
    if not groups:
        return "- nothing: there is a chapter about every one of them\n"
    return "\n".join(f"- {', '.join(names)}: needs {needs}" for needs, names in groups.items()) + "\n"


def training_operations(profile: Profile) -> float:
    """Operations of a profile's supernet training, 10^15: mean over its training space, backward passes
    included.
    """
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.model.config import ModelConfig

    recipe = profile.recipe
    config = ModelConfig(num_classes=10, **recipe.model)
    mean = float(analytic_table(config, recipe.training.archs())["gflops"].mean())
    train = recipe.train
    images = train["steps"] * train["batch_size"] * train.get("accumulate", 1)
    return _BACKWARD * mean * images / 1e6


def trained_table() -> str:
    """Markdown table: what chapters 04, 05 and B train and search in each profile, and for how long."""
    lines = [
        "| Profile | Steps × images | Networks searched | Operations of the training |"
        f" On a T4 at {_T4_TFLOPS:.0f} TFLOP/s, about |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, profile in PROFILES.items():
        recipe = profile.recipe
        peta = training_operations(profile)
        minutes = peta * 1000 / _T4_TFLOPS / 60
        images = recipe.train["batch_size"] * recipe.train.get("accumulate", 1)
        time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        if minutes < 5:  # so small a network keeps a GPU busy with starting kernels
            time = "not bound by operations"
        lines.append(
            f"| `{name}` | {recipe.train['steps']:,} × {images} | {len(recipe.search.distinct()):,} |"
            f" {peta:.2g} · 10¹⁵ | {time} |"
        )
    return "\n".join(lines) + "\n"


def took_table(project: Project) -> str:
    """Markdown table: minutes and memory of each chapter in each profile that this copy was executed with, as
    recorded when it was built.
    """
    import json

    path = project.build / "records.json"
    records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    done = {
        name: {chapter: found for chapter, found in records[name].items() if "peak_mb" in found}
        for name in PROFILES
        if name in records
    }
    done = {name: found for name, found in done.items() if found}
    if not done:
        return "This copy has no measured times; `make book` makes them.\n"
    chapters = sorted({chapter for found in done.values() for chapter in found})
    machines = sorted({record["machine"] for found in done.values() for record in found.values()})
    lines = [
        "| Chapter | " + " | ".join(f"`{name}`" for name in done) + " |",
        "| --- |" + " --- |" * len(done),
    ]
    for chapter in chapters:
        cells = [_took(found.get(chapter)) for found in done.values()]
        lines.append(f"| {chapter.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines)}."]) + "\n"


def _took(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not executed"
    return f"{record['seconds'] / 60:.1f} min, {record['peak_mb'] / 1000:.1f} GB"
