"""The line "data · code" under every table and figure: the result files and functions that it was made of.

Found by reading the chapter's cells, without running them: which names were imported, which calls made a
variable, and under which name the chapter saved it.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from rfdetr.book.source_pages import Module

DATA = "data"
"""Folder of the result files in the site."""
KEPT = "kept"
_SHOWING = {"table", "show"}
_PLAIN = {"say", "table", "show", "show_findings", "theme", "Chapter", "get_profile"}
"""Functions of every chapter that say nothing about where a number comes from."""


@dataclass
class Origin:
    """What a value comes from: names of saved tables, of kept results, and functions (module, name)."""

    saved: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    code: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, other: "Origin") -> None:
        """Take in what another value comes from."""
        self.saved |= other.saved
        self.kept |= other.kept
        self.code |= other.code


class Origins:
    """Reads the cells of one chapter in order. `shown(source)` gives an origin for every table and figure."""

    def __init__(self, known: Mapping[str, Module]) -> None:
        self._known = known
        self._imported: dict[str, tuple[str, str]] = {}
        self._values: dict[str, Origin] = {}
        self._showing: dict[str, int] = {}  # functions of the chapter: how many tables and figures each shows

    def shown(self, source: str) -> list[Origin]:
        """One origin per table and figure that the cell's calls show, in order; none if it is no Python."""
        try:
            tree = ast.parse(source)
        except SyntaxError:
            return []
        saves = list(_saves(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            elif isinstance(node, ast.FunctionDef):
                self._showing[node.name] = sum(_called(call) in _SHOWING for call in _calls(node))
        found: list[Origin] = []
        self._statements(tree.body, saves, found)
        return found

    def _statements(self, body: Iterable[ast.stmt], saves: Sequence[Any], found: list[Origin]) -> None:
        for statement in body:
            inner = [
                part for name in ("body", "orelse", "finalbody") for part in getattr(statement, name, [])
            ]
            inner += [part for handler in getattr(statement, "handlers", []) for part in handler.body]
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                continue
            if inner:
                self._statements(inner, saves, found)
                continue
            if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value:
                self._assign(statement, saves)
            for call in _calls(statement):
                times = 1 if _called(call) in _SHOWING else self._showing.get(_called(call), 0)
                if times:
                    found.extend([self._of(call)] * times)

    def _assign(self, statement: Any, saves: Sequence[Any]) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        made = self._of(statement.value)
        direct = {found: None for inner in _calls(statement.value) if (found := self._function(inner))}
        for name in names:
            origin = Origin()
            if isinstance(targets[0], ast.Subscript) and name in self._values:
                origin.add(self._values[name])  # a column more
            origin.add(made)
            if direct:  # what made the parts of it is a click further
                origin.code = dict(direct)
            stored = {saved for saved, expression in saves if _names(expression) == {name}}
            if stored:
                origin.saved = stored
            self._values[name] = origin

    def _of(self, node: ast.AST) -> Origin:
        """Where an expression comes from. Of a variable, the functions that made it are named too."""
        origin = Origin()
        for call in _calls(node):
            found = self._function(call)
            if found:
                origin.code[found] = None
            if found and found[1] == "load" and found[0].endswith(".kept"):
                origin.kept |= {str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)}
        for name in sorted(_names(node)):
            if name in self._values:
                origin.add(self._values[name])
        return origin

    def _function(self, call: ast.Call) -> tuple[str, str] | None:
        """Module and name of the function of this package that a call calls."""
        called, trail = call.func, list[str]()
        while isinstance(called, ast.Attribute):
            trail.insert(0, called.attr)
            called = called.value
        if not isinstance(called, ast.Name) or called.id not in self._imported or called.id in _PLAIN:
            return None
        module, name = self._imported[called.id]
        path = [*([name] if name else []), *trail]
        defined = self._known[module].definitions
        for length in (2, 1):
            if ".".join(path[:length]) in defined:
                return module, ".".join(path[:length])
        return None

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for item in node.names:
            name = item.asname or item.name
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = f"{node.module}.{item.name}"
                if inner in self._known:
                    self._imported[name] = (inner, "")
                elif node.module in self._known:
                    self._imported[name] = self._home(node.module, item.name)
            elif item.name in self._known and (item.asname or "." not in item.name):
                self._imported[name] = (item.name, "")

    def _home(self, module: str, name: str) -> tuple[str, str]:
        """The module that defines a name which a package's `__init__` passes on."""
        for inner in self._known[module].imports:
            if name in self._known[inner].definitions:
                return inner, name
        return module, name


def _saves(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Name and value of every `chapter.save(value, name)`."""
    for call in _calls(tree):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "save" and call.args:
            names = [arg.value for arg in call.args[1:2] if isinstance(arg, ast.Constant)] or ["result"]
            yield str(names[0]), call.args[0]


def _calls(tree: ast.AST) -> list[ast.Call]:
    """Calls in the order of the text."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _called(call: ast.Call) -> str:
    """The name of the function, where it is called by one."""
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def line(origin: Origin, chapter: str, files: Iterable[str], known: Mapping[str, Module], up: str) -> str:
    """HTML of the line.

    chapter   name of the chapter
    files     paths of the result files in the site
    up        from the page to the site's first folder, e.g. "../"
    """
    files = set(files)
    data = []
    for name in sorted(origin.saved):
        path = f"{DATA}/{chapter}/{name}.csv"
        if path in files:
            data.append(f'<a href="{up}{path}">{escape(name)}.csv</a>')
    data += [f'<a href="{up}book/data.html#{KEPT}-{name}">{name}</a>' for name in sorted(origin.kept)]
    if not data and any(path.startswith(f"{DATA}/{chapter}/") for path in files):
        data = [f'<a href="{up}book/data.html#{chapter}">files of this chapter</a>']
    code = [
        f'<a href="{up}{known[module].page}#{name}">{module.rpartition(".")[2]}.{name}</a>'
        for module, name in list(origin.code)[:_MOST]
    ]
    words = [f"data: {', '.join(data)}"] if data else []
    words += [f"code: {', '.join(code)}"] if code else []
    return f'<p class="origin">{" · ".join(words)}</p>' if words else ""


_MOST = 3
"""Functions named in a line. The first are those of the very call."""
