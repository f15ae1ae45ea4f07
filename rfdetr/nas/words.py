"""What a run says: numbers with intervals, networks and grids in a line, the run's folder explained."""

import json
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
_AS_SLOW = 0.1
_NOTHING = 0.01


def number(value: float | None) -> str:
    """Three digits, or "undefined"."""
    return "undefined" if value is None else f"{value:.3f}"


def title(data: str) -> str:
    """Heading of a report: the data's registered name, or the name of its folder."""
    return f"Search on {Path(data).resolve().name if os.sep in data else data}"


def named(metric: str) -> str:
    """A metric as it is written: AP, mask AP."""
    return metric.replace("_", " ")


def nothing(value: float | None) -> bool:
    """Whether an AP means that hardly any object is found."""
    return (value or 0.0) < _NOTHING


def counted(number: int, one: str, several: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else several}"


def other_options(before: Any, now: Mapping[str, Any]) -> str:
    """What to say of a folder with a run that was asked for something else; "" where it is the same."""
    if not isinstance(before, dict):
        return ""
    plain = json.loads(json.dumps(dict(now)))
    names = [name.replace("_", "-") for name, value in plain.items() if before.get(name, value) != value]
    if not names:
        return ""
    return (
        f"a run with other options ({', '.join(names)}): what both have in common is used, its stages stay,"
        f" and {NETWORKS}/ and the report become those of this one"
    )


def interval(numbers: Mapping[str, Any]) -> str:
    """AP with its interval, where it has one."""
    if numbers.get("low") is None:
        return number(numbers.get("AP"))
    return f"{number(numbers['AP'])} [{numbers['low']:.3f}, {numbers['high']:.3f}]"


def difference(row: Mapping[str, Any]) -> str:
    """A difference with its paired interval."""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def verdict(row: Mapping[str, Any]) -> str:
    """Of a difference with its paired interval."""
    if not row["resolved"]:
        return "not resolved"
    return "better" if row["difference"] > 0 else "worse"


def fine_tuning(row: Mapping[str, Any]) -> str:
    """What fine-tuning did to a network: better, worse or not resolved, and which one is kept."""
    kept = "it replaces the inherited one" if row["better"] else "the inherited one is kept"
    return f"{verdict(row)}: {kept}"


def shortened(steps: int, planned: int) -> str:
    """What the hours have left of the fine-tuning."""
    if not steps:
        return "left out: --hours has no time left for it"
    return f"{steps:,} steps for each instead of {planned:,}: what --hours has left for these networks"


def share(result: Mapping[str, Any]) -> str:
    """Of a baseline whose training --hours has cut short, "" for one at the same cost."""
    return "" if result["share"] >= 1 else f", {result['share']:.0%} of the search's (--hours left no more)"


def worth(result: Mapping[str, Any]) -> str:
    """The answer of a baseline: what the chosen networks are against the fixed one, accuracy and latency.

    As slow as the fixed one is what takes at most a tenth more.
    """
    fixed, rows = result["latency_ms"], sorted(result["against"], key=lambda row: -row["difference"])
    if nothing(result["test"]["AP"]) and nothing((result["test"]["AP"] or 0.0) + rows[0]["difference"]):
        return "not shown to be worth it: neither the fixed network nor the chosen ones find anything yet"
    better = [row for row in rows if verdict(row) == "better"]
    alike = [row for row in rows if verdict(row) == "not resolved"]
    cheap = [row for row in better if row["latency_ms"] <= fixed * (1 + _AS_SLOW)]
    faster = [row for row in alike if row["latency_ms"] < fixed * (1 - _AS_SLOW)]

    def about(row: Mapping[str, Any]) -> str:
        return f"{row['arch']}, {difference(row)} at {row['latency_ms']:.3g} ms instead of {fixed:.3g} ms"

    if cheap:
        return f"worth it: more accurate and no slower ({about(cheap[0])})"
    if better:
        return f"worth it only where there is time for a slower network: more accurate ({about(better[0])})"
    if faster:
        fast = min(faster, key=lambda row: row["latency_ms"])
        return f"worth it for the latency alone: faster, accuracy not resolved ({about(fast)})"
    if alike:
        return (
            "not shown to be worth it: neither faster nor, beyond the paired interval, more accurate"
            f" ({about(alike[0])})"
        )
    return f"not worth it: every chosen network is less accurate (the best: {about(rows[0])})"


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
