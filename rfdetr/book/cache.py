"""Chapters, their parameters and their cache keys: what a chapter's outputs depend on.

A chapter is executed again when, and only when, something that its outputs depend on has changed: code cells,
parameters, files of the package that it imports, data files, the Python version or the version of a library.
"""

import ast
import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rfdetr.book.reach import Reach
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import DEFAULT_PROFILE
from rfdetr.sources import files_digest

# Folders that chapters read beside the package. They count as a whole, but for the kept findings, which are
# made of the chapters.
DATA_FOLDERS = ("data_manifests", "results")
_NO_DATA = "results/findings"
# Tags that change how a cell is executed; all others only change how it looks.
_EXECUTION_TAGS = {"parameters", "raises-exception", "skip-execution"}
_LIBRARIES = (
    *(
        "torch",
        "numpy",
        "scipy",
        "pandas",
        "pillow",
        "scikit-learn",
        "pycocotools",
        "faster-coco-eval",
        "optuna",
    ),
    *("onnx", "onnxscript", "onnxruntime", "tensorrt", "transformers", "ultralytics"),
    *("matplotlib", "seaborn", "ipykernel", "ipython"),
)


@dataclass(frozen=True)
class Project:
    """Where the book's parts lie. `package` is the package whose files count in the cache keys."""

    root: Path
    package: str = "rfdetr"

    @property
    def build(self) -> Path:
        """Folder of everything that is made."""
        return self.root / "build"

    def executed(self, profile: str, chapter: "Chapter") -> Path:
        """The executed copy of a chapter."""
        return self.build / "executed" / profile / f"{chapter.name}.ipynb"


@dataclass(frozen=True)
class Chapter:
    """One notebook of the book. `document` is its name in the table of contents, e.g.
    `notebooks/05_search`.
    """

    document: str
    path: Path

    @property
    def name(self) -> str:
        """E.g. `05_search`."""
        return self.path.stem

    @property
    def label(self) -> str:
        """E.g. `05 search`."""
        return self.name.replace("_", " ")


def read_notebook(path: Path) -> Any:
    """Parsed notebook; UserError naming the file if it is not one."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise UserError(f"cannot read the notebook {path}: {error}") from error


def code_cells(notebook: Any) -> list[Any]:
    """Code cells in order, without the one that papermill adds."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def chapter_parameters(
    chapter: Chapter, profile: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Parameters to inject: `profile` and those given, without those that equal the notebook's defaults.

    UserError for a parameter that the notebook does not have.
    """
    import papermill

    read_notebook(chapter.path)  # a clear error for a damaged file
    known = papermill.inspect_notebook(str(chapter.path))
    wanted = {
        **({"profile": profile} if profile != DEFAULT_PROFILE or "profile" in known else {}),
        **(given or {}),
    }
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        have = (
            ", ".join(f"{name} (default {known[name]['default']})" for name in known)
            or "none: it has no parameters cell"
        )
        raise UserError(
            f"chapter {chapter.name} has no parameter {', '.join(unknown)}; its parameters are {have}"
        )
    return {name: value for name, value in wanted.items() if not _is_default(value, known[name]["default"])}


def _is_default(value: Any, source: str) -> bool:
    try:
        default = ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return False
    return type(default) is type(value) and default == value


class Keys:
    """Cache keys of a project's chapters. What they have in common is looked at once."""

    def __init__(self, project: Project) -> None:
        self.root = project.root
        self._reach = Reach(project.root, project.package)
        self._versions = {"python": platform.python_version()}
        for library in _LIBRARIES:
            with suppress(metadata.PackageNotFoundError):
                self._versions[library] = metadata.version(library)
        data = [
            path
            for folder in DATA_FOLDERS
            for path in (self.root / folder).rglob("*")
            if path.is_file() and not path.is_relative_to(self.root / _NO_DATA)
        ]
        self._data = files_digest(data, self.root)

    def __call__(self, chapter: Chapter, parameters: Mapping[str, Any]) -> str:
        """Hex SHA-256 of everything that a chapter's outputs depend on."""
        cells = [
            [cell.source, sorted(_EXECUTION_TAGS & set(cell.metadata.get("tags", [])))]
            for cell in code_cells(read_notebook(chapter.path))
        ]
        code = "\n".join(source for source, _ in cells)
        parts = {
            "cells": cells,
            "parameters": {name: repr(value) for name, value in parameters.items()},
            "package": files_digest(self._reach(code), self.root.resolve()),
            "data": self._data,
            "versions": self._versions,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached_record(project: Project, profile: str, chapter: Chapter, key: str) -> dict[str, Any] | None:
    """Record of the executed copy if its key is `key`, else None."""
    path = project.executed(profile, chapter)
    if not path.is_file():
        return None
    try:
        record = read_notebook(path).metadata.get("rfdetr", {})
    except UserError:
        return None
    return json.loads(json.dumps(record)) if record.get("key") == key else None
