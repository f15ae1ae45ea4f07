"""The generated page "Data of this copy" and the files that it lists: what chapters wrote, what was kept."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from rfdetr.book.cache import Project
from rfdetr.book.execute import Outcome, store_root
from rfdetr.book.filter_tables import raw
from rfdetr.book.origins import DATA, KEPT
from rfdetr.experiments.base.artifacts import Store
from rfdetr.plots.findings import cells_html

DATA_PAGE = "book/data"
_SHIPPED = (".csv", ".json", ".jsonl")
_HEADS = ("file", "rows", "columns", "size")
_INTRODUCTION = """# Data of this copy

Every table and figure of a chapter names the file that holds its numbers and the code that made them. The
files are here: what each chapter wrote when this copy was made, and what was made once and is kept with the
repository. The `.json` beside a `.csv` says with which profile, seed, commit, versions and machine.

All verdicts are in {download}`audit.csv` and {download}`audit.json`, see the [audit](audit.md).
"""


def data_files(project: Project, profile: str, outcomes: Iterable[Outcome]) -> dict[str, bytes]:
    """Files of the chapters that were executed, and of the kept results, by their path in the site."""
    files: dict[str, bytes] = {}
    for outcome in outcomes:
        if outcome.state in ("executed", "cached"):
            given = outcome.record.get("parameters", {})
            folder = Store(given.get("output_dir") or store_root(project)).results(
                profile, outcome.chapter.name
            )
            files |= _below(folder, f"{DATA}/{outcome.chapter.name}")
    kept = project.root / "results"
    for folder in sorted(path for path in kept.glob("*") if path.is_dir()):
        files |= _below(folder, f"{DATA}/{KEPT}/{folder.name}")
    return files


def _below(folder: Path, place: str) -> dict[str, bytes]:
    return {
        f"{place}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in _SHIPPED
    }


def data_page(files: Mapping[str, bytes], titles: Mapping[str, str]) -> str:
    """Markdown of the page. `titles` holds the chapters' titles by name, in the order of the book."""
    parts = [_INTRODUCTION, "## Chapters\n"]
    groups: dict[str, list[str]] = {}
    for path in sorted(files):
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    for name, title in titles.items():
        paths = groups.get(f"{DATA}/{name}")
        if paths:
            parts += [_anchor(name), f"### {title}\n", _table(paths, files)]
    kept = {folder: paths for folder, paths in groups.items() if folder.startswith(f"{DATA}/{KEPT}/")}
    if kept:
        parts.append("## Kept results\n")
    for folder, paths in kept.items():
        name = folder.rpartition("/")[2]
        parts += [_anchor(f"{KEPT}-{name}"), f"### {name}\n", _table(paths, files)]
    return "\n".join(parts)


def _anchor(name: str) -> str:
    return raw(f'<span id="{escape(name)}"></span>')


def _table(paths: Iterable[str], files: Mapping[str, bytes]) -> str:
    rows = "".join(_row(path, files) for path in paths if f"{path[:-5]}.csv" not in files)
    head = "".join(f'<th scope="col">{text}</th>' for text in _HEADS)
    return raw(
        f'<table class="dataframe findings"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(path: str, files: Mapping[str, bytes]) -> str:
    content, name = files[path], path.rpartition("/")[2]
    link = f'<a href="../{path}">{escape(name)}</a>'
    beside = f"{path.removesuffix('.csv')}.json"
    rows = columns = ""
    if path.endswith(".csv"):
        rows = f"{content.count(bytes([10])) - 1:,}"
        columns = ", ".join(content.partition(b"\n")[0].decode().strip().split(","))
        if beside in files:
            link += f' · <a href="../{beside}">json</a>'
    elif path.endswith(".jsonl"):
        rows = f"{content.count(bytes([10])):,}"
    elif isinstance(found := json.loads(content), dict):
        columns = ", ".join(found)
    size = f"{max(len(content) / 1000, 0.1):,.1f} kB"
    return f"<tr>{cells_html(_HEADS, (link, rows, escape(columns), size))}</tr>"
