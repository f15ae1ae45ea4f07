"""Which files of the package chapters reach: as `sources.reached_files`, but each module is looked at once.

Chapters share most of the package; following its imports anew for each took most of an unchanged build.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

# That module stays as it is: its own bytes are part of the keys of kept results.
from rfdetr.sources import _Walk

Call = tuple[str, ...]
"""(module,) or (module, a name in it), as something loads them."""


class Reach:
    """Files of a package below `root` that code can import. For the time of one build: files that come and go
    in between are not seen.
    """

    def __init__(self, root: Path, package: str) -> None:
        self.root, self.package = root.resolve(), package
        self._loads: dict[ast.AST, list[Call]] = {}
        self._paths: dict[str, Path | None] = {}

    def __call__(self, code: str) -> list[Path]:
        """The files that `code` reaches, sorted."""
        walk = _Remembering(self.root, self.package, loads=self._loads, paths=self._paths)
        walk.code(code)
        return sorted(walk.files | walk.data_files())


@dataclass
class _Remembering(_Walk):
    loads: dict[ast.AST, list[Call]] = field(default_factory=dict)
    paths: dict[str, Path | None] = field(default_factory=dict)

    def path_of(self, name: str) -> Path | None:
        if name not in self.paths:
            self.paths[name] = super().path_of(name)
        return self.paths[name]

    def statements(self, tree: ast.AST, inside: str, *, is_init: bool) -> None:
        # A file is parsed once, so its tree stands for it.
        if tree not in self.loads:
            recorder = _Recorder(self.root, self.package)
            recorder.statements(tree, inside, is_init=is_init)
            self.loads[tree] = list(dict.fromkeys(recorder.calls))
        for call in self.loads[tree]:
            if len(call) == 1:
                self.module(*call)
            else:
                self.name_in(*call)


@dataclass
class _Recorder(_Walk):
    """Writes down what statements load, and follows none of it."""

    calls: list[Call] = field(default_factory=list)

    def module(self, name: str) -> None:
        self.calls.append((name,))

    def name_in(self, module: str, name: str) -> None:
        self.calls.append((module, name))
