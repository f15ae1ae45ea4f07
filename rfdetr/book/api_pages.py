"""The generated API pages: what each public module, class and function is for, from its docstring.

Read from the source without importing it. Docstrings are prose with names in backticks; a block of lines with
a name, two blanks or more and a text describes parameters.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import zip_longest

from rfdetr.book.source_pages import Module

API = "book/api"
_PARTS = ("data", "model", "evaluation", "training", "export", "benchmark", "search", "nas")
"""Parts of the package with a page each; what lies beside them is on the first page."""
_NAME = re.compile(r"^(\S[^`]*?)\s{2,}(\S.*)$")

_INTRODUCTION = """# API

What a program can use, from the docstrings; every name leads to its source. The commands say what they take
with `python -m rfdetr --help`. What the chapters compute with is in `rfdetr.experiments` and `rfdetr.plots`,
a click below every table and figure.

"""


def api_pages(known: Mapping[str, Module], package: str = "rfdetr") -> dict[str, str]:
    """Markdown of the pages by document: `book/api`, and `book/api-<part>` for each part that there is."""
    pages = {}
    for part in _PARTS:
        root = f"{package}.{part}"
        found = [module for name, module in known.items() if name == root or name.startswith(f"{root}.")]
        if found:
            pages[f"{API}-{part}"] = "\n".join([f"# {root}\n", *_modules(found)])
    single = [m for name, m in known.items() if re.fullmatch(rf"{package}\.[a-z]\w*", name)]
    beside = [m for m in single if not any(other.startswith(f"{m.name}.") for other in known)]
    links = "\n".join(
        f"- [{_dotted(document, package)}]({document.rpartition('/')[2]}.md)" for document in pages
    )
    pages[API] = "\n".join([f"{_INTRODUCTION}{links}\n", *_modules(beside)])
    return pages


def _dotted(document: str, package: str) -> str:
    return f"{package}.{document.rpartition('-')[2]}"


def _modules(found: Iterable[Module]) -> Iterator[str]:
    for module in found:
        if any(part.startswith("_") for part in module.name.split(".")):
            continue
        tree = ast.parse(module.text)
        entries = list(_entries(tree, module))
        if entries:
            yield f"## `{module.name}`\n\n{markdown(ast.get_docstring(tree) or '')}"
            yield from entries


def _entries(tree: ast.Module, module: Module) -> Iterator[str]:
    for node, after in zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield _entry(node, node.name, module)
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield _entry(inner, f"{node.name}.{inner.name}", module)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, text = node.targets[0].id, _text(after)
            if text and not name.startswith("_"):
                yield f"### `{name}`\n\n{markdown(text)}"


def _text(node: ast.stmt | None) -> str:
    """The text below an assignment that describes it."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return inspect.cleandoc(node.value.value)
    return ""


def _entry(node: ast.FunctionDef | ast.ClassDef, name: str, module: Module) -> str:
    source = f'<a href="../{module.page}#{escape(name)}">source</a>'
    return (
        f"### `{name}`\n\n```python\n{_signature(node)}\n```\n\n"
        f"{markdown(ast.get_docstring(node) or '')}\n{source}\n"
    )


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """The first line of a definition as a reader writes a call, one parameter a line when it is long."""
    if isinstance(node, ast.ClassDef):
        fields = [
            ast.unparse(inner)
            for inner in node.body
            if isinstance(inner, ast.AnnAssign) and "ClassVar" not in ast.unparse(inner.annotation)
        ]
        made = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if made is None:
            return _called(f"class {node.name}", fields, "")
        return _called(f"class {node.name}", _parameters(made), "")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _called(node.name, _parameters(node), result)


def _parameters(node: ast.FunctionDef) -> list[str]:
    given = node.args
    first = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(first) - len(given.defaults)) + list(given.defaults)
    shown = [_parameter(a, d) for a, d in zip(first, defaults, strict=True) if a.arg not in ("self", "cls")]
    if given.vararg:
        shown.append(f"*{ast.unparse(given.vararg)}")
    elif given.kwonlyargs:
        shown.append("*")
    shown += [_parameter(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*shown, *([f"**{ast.unparse(given.kwarg)}"] if given.kwarg else [])]


def _parameter(node: ast.arg, default: ast.expr | None) -> str:
    value = f" = {ast.unparse(default)}" if default is not None else ""
    return (ast.unparse(node) + value).replace("'", '"')


def _called(name: str, parameters: list[str], result: str) -> str:
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){result}"])


def markdown(text: str) -> str:
    """A docstring without its indentation as Markdown: paragraphs, lists of parameters, examples."""
    blocks = re.split(r"\n[ ]*\n", text.strip("\n"))
    return "\n\n".join(filter(None, map(_block, blocks))) + "\n"


def _block(block: str) -> str:
    lines = block.splitlines()
    if lines and all(line.startswith("    ") for line in lines):
        return "```text\n" + textwrap.dedent(block) + "\n```"
    if lines and _NAME.match(lines[0]):
        items: list[list[str]] = []
        for line in lines:
            found = _NAME.match(line)
            if found:
                items.append([f"- `{found[1]}`: {_escaped(found[2])}"])
            else:
                items[-1].append(_escaped(line.strip()))
        return "\n".join(" ".join(item) for item in items)
    if lines and lines[0].startswith("- "):
        return "\n".join(
            f"- {_escaped(line[2:])}" if line.startswith("- ") else _escaped(line) for line in lines
        )
    return _escaped(" ".join(line.strip() for line in lines))


def _escaped(text: str) -> str:
    """Text in which only names in backticks mean something to Markdown."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") and len(part) > 2 else re.sub(r"([\\`*_\[\]<>{}$|#~+!-])", r"\\\1", part)
        for part in parts
    )
