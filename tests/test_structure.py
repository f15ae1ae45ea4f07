"""The house stays light: floors, no import circles, files and functions of a readable size."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rfdetr"
FLOORS = (
    (
        "arch",
        "errors",
        "fetch",
        "files",
        "interrupts",
        "progress",
        "provenance",
        "quiet",
        "sources",
        "version",
        "paper",
    ),
    ("data",),
    ("model",),
    ("evaluation",),
    ("export", "training"),
    ("networks",),
    ("benchmark",),
    ("peers",),
    ("search",),
    ("experiments",),
    ("plots", "nas", "book"),
    ("cli", "__main__"),
)
"""Bottom to top; modules of one line may import each other."""
LONGEST_FILE, LONGEST_FUNCTION = 320, 70
# Tables in the shape of a function.
TABLES = {("rfdetr/model/published_names.py", "names")}


def modules():
    """Dotted name -> path of every module of the package."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def live(tree):
    """Nodes that run: not those under `if TYPE_CHECKING:`, which are for the type checker alone."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def imports(path, known):
    """Modules of the package that a file imports, at the top or inside functions."""
    for node in live(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                yield inner if inner in known else node.module


@pytest.fixture(scope="module")
def graph():
    """Module -> modules that it imports. `rfdetr` itself only names others and loads them on use."""
    known = modules()
    return {
        name: {other for other in imports(path, known) if other not in (name, "rfdetr")}
        for name, path in known.items()
        if name != "rfdetr"
    }


def test_no_import_circles(graph):
    done, circles = set(), []

    def visit(name, trail):
        if name in trail:
            circles.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    assert not circles


def test_nothing_imports_a_higher_floor(graph):
    floor = {part: level for level, parts in enumerate(FLOORS) for part in parts}
    climbing = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if floor[other.split(".")[1]] > floor[name.split(".")[1]]
    ]
    assert not climbing


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE}


def test_functions_are_short():
    long = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The options of a command, one a line with their help, are a list and no code to follow.
                first = node.body[0] if name.startswith("rfdetr/cli/") else node
                lines = node.end_lineno - first.lineno + 1
                if lines > LONGEST_FUNCTION and (name, node.name) not in TABLES:
                    long.append(f"{name}:{node.lineno} {node.name} {lines}")
    assert not long
