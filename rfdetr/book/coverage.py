"""Where the book has each table, figure and appendix of the paper, and what each profile trains.

From `book/coverage.yaml`; the pages of the book have markers at which these tables are put.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rfdetr.book.cache import Project
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import PROFILES, Profile
from rfdetr.experiments.ch04_learning import BACKWARD
from rfdetr.experiments.ch09_cost import T4_TFLOPS as _T4_TFLOPS
from rfdetr.paper import tables

MISSING, PLACES, TRAINED, TOOK = "{{missing}}", "{{places}}", "{{trained}}", "{{took}}"
SPEED = "{{speed}}"
"""Markers in the book's pages: what is not there, where everything is, what the profiles train, what they
took, and the speed that estimates for a T4 take.
"""
_PASSES = 1 + BACKWARD  # a training step in forward passes
_T4 = PROFILES["t4"]


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
        SPEED: lambda: f"{_T4_TFLOPS:.0f} · 10¹²",
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
            where = f"[chapter {where.partition('_')[0]}](../notebooks/{where}.ipynb)"
        if place.audit:
            where = f"arithmetic in the [audit](audit.md): {place.audit}"
        rows.append(f"| {place.kind.capitalize()} {place.name} | {place.title} | {where} | {place.missing} |")
    return "\n".join(["| | | where | missing |", "| --- | --- | --- | --- |", *rows]) + "\n"


def missing_list(found: list[Place]) -> str:
    """Markdown: what has no chapter, by what it needs."""
    groups: dict[str, list[str]] = {}
    for place in found:
        if not place.chapter:
            groups.setdefault(place.missing, []).append(f"{place.kind} {place.name}")
    if not groups:
        return "Every table, figure and appendix of both versions has its place in a chapter.\n"
    lines = [f"- {', '.join(names)}: needs {needs}" for needs, names in groups.items()]
    return "\n".join(["These parts of the paper have no chapter:\n", *lines]) + "\n"


def training_operations(profile: Profile) -> float:
    """Operations of a profile's supernet training, 10^12: mean over its training space, with all groups of
    queries and the backward passes.
    """
    from rfdetr.experiments import ch04_share
    from rfdetr.model.config import ModelConfig

    recipe = profile.recipe
    config = ModelConfig(num_classes=10, **recipe.model)
    mean = float(ch04_share.training_operations(config, recipe.training.archs(), config.groups).mean())
    train = recipe.train
    images = train["steps"] * train["batch_size"] * train.get("accumulate", 1)
    return _PASSES * mean * images / 1e12


def search_operations(profile: Profile) -> float:
    """Operations of a profile's exact search with shared passes on its validation scenes, 10^12."""
    from rfdetr.model.config import ModelConfig
    from rfdetr.search import cost

    recipe = profile.recipe
    config = ModelConfig(num_classes=10, **recipe.model)
    shared = float(cost.grid_flops(config, recipe.search)["shared_gflops"].iloc[-1])
    return shared * recipe.images["val"] / 1e3


def t4_minutes(tera: float) -> float:
    """Minutes that a T4 is estimated to take for `tera` 10^12 operations."""
    return tera / _T4_TFLOPS / 60


def trained_table() -> str:
    """Markdown table: what chapters 04, 05 and B train and search in each profile, and for how long."""
    lines = [
        "| Profile | Steps × images | Networks | Training, 10¹² | T4 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, profile in PROFILES.items():
        recipe = profile.recipe
        tera = training_operations(profile)
        minutes = t4_minutes(tera)
        images = recipe.train["batch_size"] * recipe.train.get("accumulate", 1)
        time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        if minutes < 5:  # so small a network keeps a GPU busy with starting kernels
            time = "–"
        lines.append(
            f"| `{name}` | {recipe.train['steps']:,} × {images} | {len(recipe.search.distinct()):,} |"
            f" {_two_digits(tera)} | {time} |"
        )
    return "\n".join(lines) + "\n"


def _two_digits(value: float) -> str:
    value = float(f"{value:.2g}")
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _estimates() -> dict[str, str]:
    """By the beginning of a chapter's name, what it takes on a T4; chapters left out do there what they do
    everywhere.
    """
    training, search = (t4_minutes(f(_T4)) for f in (training_operations, search_operations))
    return {
        "04_": f"{training:.0f} min, the training",
        "05_": f"{max(1, round(search))} min, the accuracies; the training is that of 04",
        "06_": "not estimated: engines are built",
        "B_": "under 1 min; the training is that of 04",
    }


def took_table(project: Project) -> str:
    """Markdown table: minutes and memory of each chapter in each profile that this copy was executed with, as
    recorded when it was built, and what is estimated for a T4.
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
        "| Chapter | " + " | ".join(f"`{name}`" for name in done) + " | `t4`, estimated |",
        "| --- |" + " --- |" * (len(done) + 1),
    ]
    estimates = _estimates()
    for chapter in chapters:
        on_t4 = [text for start, text in estimates.items() if chapter.startswith(start)]
        cells = [*(_took(found.get(chapter)) for found in done.values()), *(on_t4 or ["as `cpu`"])]
        lines.append(f"| {chapter.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines)}."]) + "\n"


def _took(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not executed"
    return f"{record['seconds'] / 60:.1f} min, {record['peak_mb'] / 1000:.1f} GB"
