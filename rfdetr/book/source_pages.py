"""Pages with the source of every module of the package, so that a number's code is a click away.

Small pages of their own, outside the search index: the code with anchors at its functions and classes, and
links to the modules that it imports.
"""

import ast
import io
import keyword
import token
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rfdetr.book.cache import Project

FOLDER = "source"
"""Folder of these pages in the site."""
_KINDS = {token.STRING: "s", token.NUMBER: "n", tokenize.COMMENT: "c"}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} - source</title>
<link rel="icon" href="{up}_static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{up}_static/source.css">
<script>
const mode = localStorage.getItem("mode") || "auto";
const dark = mode === "dark" || (mode === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.dataset.theme = dark ? "dark" : "light";
</script>
</head>
<body>
<header>
<a href="{up}index.html">The book</a> · <a href="{up}book/data.html">data</a> ·
<a href="{up}book/api.html">API</a>
<h1>{name}</h1>
{about}
</header>
<main><pre tabindex="0" aria-label="source of {name}">{code}</pre></main>
</body>
</html>
"""


@dataclass(frozen=True)
class Module:
    """A module of the package: where its page is, and what is defined in it.

    definitions   name (`function`, `Class` or `Class.method`) -> line, counted from 1
    imports       modules of the package that it names in its import statements
    """

    name: str
    page: str
    text: str
    definitions: dict[str, int]
    imports: tuple[str, ...]


def modules(project: Project) -> dict[str, Module]:
    """All modules of the project's package by dotted name."""
    paths = {
        _dotted(path.relative_to(project.root)): path
        for path in sorted((project.root / project.package).rglob("*.py"))
    }
    return {name: _module(name, path, project, frozenset(paths)) for name, path in paths.items()}


def source_files(known: Mapping[str, Module]) -> dict[str, bytes]:
    """The pages by their path in the site."""
    return {module.page: source_page(module, known).encode() for module in known.values()}


def source_page(module: Module, known: Mapping[str, Module]) -> str:
    """HTML of one module's page."""
    up = "../" * module.page.count("/")
    used = ", ".join(f'<a href="{up}{known[name].page}">{name}</a>' for name in module.imports)
    about = f"<p>Imports {used}.</p>" if used else ""
    return _PAGE.format(name=module.name, up=up, about=about, code=highlighted(module))


def highlighted(module: Module) -> str:
    """The text as HTML: keywords, texts, numbers and comments in classes of one letter, defined names as
    anchors.
    """
    anchors = {line: name for name, line in module.definitions.items()}
    lines = module.text.splitlines(keepends=True)
    parts: list[str] = []
    row, column, defining = 1, 0, False

    def until(to_row: int, to_column: int) -> str:
        nonlocal row, column
        if (row, column) == (to_row, to_column):
            return ""
        first = lines[row - 1][column:] if row < to_row else lines[row - 1][column:to_column]
        middle = "".join(lines[row : to_row - 1])
        last = lines[to_row - 1][:to_column] if row < to_row and to_row <= len(lines) else ""
        row, column = to_row, to_column
        return escape(first + middle + last, quote=False)

    for found in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if found.type in (token.ENDMARKER, token.NEWLINE, token.INDENT, token.DEDENT, tokenize.NL):
            continue
        parts.append(until(*found.start))
        text = until(*found.end)
        kind = _KINDS.get(found.type, "")
        if found.type == token.NAME and keyword.iskeyword(found.string):
            kind = "k"
        if defining and found.type == token.NAME:
            anchor = anchors.get(found.start[0])
            parts.append(f'<b id="{anchor}">{text}</b>' if anchor else text)
        else:
            parts.append(f'<i class="{kind}">{text}</i>' if kind else text)
        defining = found.type == token.NAME and found.string in ("def", "class")
    parts.append(escape("".join([lines[row - 1][column:], *lines[row:]]) if lines else "", quote=False))
    return "".join(parts)


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(name: str, path: Path, project: Project, known: frozenset[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    page = f"{FOLDER}/{path.relative_to(project.root).with_suffix('.html').as_posix()}"
    imports = sorted({other for other in _imports(tree, known) if other != name})
    return Module(name, page, text, dict(_definitions(tree)), tuple(imports))


def _definitions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{inner.name}", inner.lineno


def _imports(tree: ast.AST, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                yield inner if inner in known else node.module
