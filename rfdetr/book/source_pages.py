"""Pages with the source of every module of the package, so that a number's code is a click away.

Small pages of their own, outside the search index: the code with anchors at its functions and classes, and
links to the modules that it imports.
"""

import ast
import hashlib
import io
import keyword
import token
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rfdetr.book.cache import Project
from rfdetr.files import read_json, write_json

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
    code          the text as HTML, see `highlighted`
    """

    name: str
    page: str
    text: str
    definitions: dict[str, int]
    imports: tuple[str, ...]
    code: str


def modules(project: Project) -> dict[str, Module]:
    """All modules of the project's package by dotted name. What takes long is kept from build to build, under
    a digest of all that it is made of.
    """
    paths = {
        _dotted(path.relative_to(project.root)): path
        for path in sorted((project.root / project.package).rglob("*.py"))
    }
    kept = project.build / "source-pages.json"
    content: Any = read_json(kept)
    before: dict[str, Any] = content if isinstance(content, dict) else {}
    common = Path(__file__).read_bytes() + "\n".join(paths).encode()
    found, records = {}, {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        key = hashlib.sha256(common + text.encode()).hexdigest()
        records[key] = record = before.get(key) or _read(text, frozenset(paths))
        page = f"{FOLDER}/{path.relative_to(project.root).with_suffix('.html').as_posix()}"
        imports = tuple(other for other in record["imports"] if other != name)
        found[name] = Module(name, page, text, record["definitions"], imports, record["code"])
    if records.keys() != before.keys() and project.build.is_dir():
        write_json(kept, records)
    return found


def source_files(known: Mapping[str, Module]) -> dict[str, bytes]:
    """The pages by their path in the site."""
    return {module.page: source_page(module, known).encode() for module in known.values()}


def source_page(module: Module, known: Mapping[str, Module]) -> str:
    """HTML of one module's page."""
    up = "../" * module.page.count("/")
    used = ", ".join(f'<a href="{up}{known[name].page}">{name}</a>' for name in module.imports)
    about = f"<p>Imports {used}.</p>" if used else ""
    return _PAGE.format(name=module.name, up=up, about=about, code=module.code)


def highlighted(source: str, definitions: Mapping[str, int]) -> str:
    """Source text as HTML: keywords, texts, numbers and comments in classes of one letter, defined names as
    anchors. definitions: as of `Module`.
    """
    anchors = {line: name for name, line in definitions.items()}
    lines = source.splitlines(keepends=True)
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

    for found in tokenize.generate_tokens(io.StringIO(source).readline):
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


def _read(text: str, known: frozenset[str]) -> dict[str, Any]:
    """What is kept of a module's text: `definitions`, `imports` and `code` of `Module`."""
    tree = ast.parse(text)
    definitions = dict(_definitions(tree))
    code = highlighted(text, definitions)
    return {"definitions": definitions, "imports": sorted(set(_imports(tree, known))), "code": code}


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
