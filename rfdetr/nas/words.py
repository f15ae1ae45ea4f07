"""What a run says: numbers with intervals, networks and grids in a line, the run's folder explained."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rfdetr.arch import SearchSpace
from rfdetr.nas.stages import Stages

NETWORKS = "networks"
"""Folder of the chosen networks in that of the run."""
CLASSES = 8  # that a line names


def number(value: float | None) -> str:
    """Three digits, or "undefined"."""
    return "undefined" if value is None else f"{value:.3f}"


def title(data: str) -> str:
    """Heading of a report: the data's registered name, or the name of its folder."""
    return f"Search on {Path(data).resolve().name if os.sep in data else data}"


def named(metric: str) -> str:
    """A metric as it is written: AP, mask AP."""
    return metric.replace("_", " ")


def counted(number: int, one: str, several: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else several}"


def interval(numbers: Mapping[str, Any]) -> str:
    """AP with its interval, where it has one."""
    if numbers.get("low") is None:
        return number(numbers.get("AP"))
    return f"{number(numbers['AP'])} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def difference(row: Mapping[str, Any]) -> str:
    """A difference with its paired interval."""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def fine_tuning(row: Mapping[str, Any]) -> str:
    """What fine-tuning did to a network: better, worse or not resolved, and which one is kept."""
    if row["better"]:
        return "better: it replaces the inherited one"
    return f"{'worse' if row['high'] < 0 else 'not resolved'}: the inherited one is kept"


def grid(space: SearchSpace) -> str:
    """A grid in one line."""
    names = ("px", "px patches", "windows a side", "layers", "queries")
    values = asdict(space).values()
    return "; ".join(f"{', '.join(map(str, v))} {n}" for v, n in zip(values, names, strict=True))


def split(numbers: Mapping[str, Any]) -> str:
    """Statistics of a split in a line."""
    count, sizes = numbers["per_image"], numbers["sizes"]
    classes = sorted(numbers["classes"].items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{name} {objects}" for name, objects in classes[:CLASSES])
    more = f", and {len(classes) - CLASSES} more classes" if len(classes) > CLASSES else ""
    text = f"{numbers['images']} pictures, {numbers['objects']} objects ({listed}{more})"
    if numbers["objects"]:
        text += (
            f"; a picture has {count['median']:g} (median), {count['p95']:g} (95 %), {count['p99']:g} (99 %),"
            f" at most {count['maximum']:g}"
        )
    first = next(iter(sizes), "")
    others = f" and {len(sizes) - 1} other sizes" if len(sizes) > 1 else ""
    return f"{text}; {first} px{others}"


def network(entry: Mapping[str, Any], metric: str) -> str:
    """One chosen network in a line."""
    timed = "" if entry["timed"] else " predicted"
    return (
        f"{entry['arch']}, {entry['latency_ms']:.3g} ms{timed}, {named(metric)} {interval(entry['val'])} on"
        f" val, {interval(entry['test'])} on test"
    )


def readme(root: Path, stages: Stages, command: str, metric: str, page: Path | None) -> str:
    """The run's folder, explained (Markdown)."""
    networks = [
        f"- `{NETWORKS}/{entry['file']}`: {network(entry, metric)}"
        for entry in stages.done["export"].result["networks"]
    ]
    folders = [
        f"- `{done.folder.relative_to(root)}/`: {done.name}, {done.seconds:.0f} s"
        for done in stages.done.values()
    ]
    report = [f"Report: `{page.name}`", ""] if page else []
    return "\n".join(
        [
            "# A search",
            "",
            (
                f"Made by `{command}`. The same command goes on where it was stopped; a changed option makes"
                " only what"
            ),
            "depends on it again, in folders of its own.",
            "",
            "## Networks",
            "",
            "Each file works alone; its card (`.md`) says what it is and how to use it.",
            "",
            *networks,
            "",
            *report,
            "## Stages",
            "",
            *folders,
            "",
            "Options: `options.json`. What a stage found: `stage.json` in its folder. The folder of `train`",
            "has the losses of every step (`log.csv`) and AP on val during the training (`evaluations.csv`);",
            "it is also a checkpoint for `evaluate`, `search`, `export`, `predict`. The folder of `search`",
            "has the table of all sub-networks (`table.csv`).",
            "",
        ]
    )
