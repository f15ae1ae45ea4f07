"""Which files of the package a piece of code reaches, found by reading imports, without running anything.

The book's cache and the artifact store key their content on these files: a result is made again when, and
only when, code that could have made it has changed.
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_RUN_AS_MODULE = re.compile(r"-m[\"',\s]+([A-Za-z_][\w.]*)")


def package_root() -> Path:
    """Folder that holds the `rfdetr` package: the repository, in a checkout."""
    return Path(__file__).resolve().parent.parent


def shipped_folder(name: str) -> Path:
    """A folder that lies beside the package in a checkout and inside it in an installed wheel.

    name: e.g. "data_manifests". The path may not exist; whoever reads from it says what is missing.
    """
    beside = package_root() / name
    return beside if beside.is_dir() else package_root() / "rfdetr" / name


def reached_files(code: str, root: Path | None = None, package: str = "rfdetr") -> list[Path]:
    """Files of `package` (below `root`) that `code` can import, transitively, sorted.

    Follows imports inside functions, names that a package's `__init__` resolves lazily through a table of
    strings, string literals that name a module, and `python -m package`. Files that are not Python count with
    the package that holds them. When in doubt a file is counted: at worst something is computed once more.
    """
    walk = _Walk((root or package_root()).resolve(), package)
    walk.code(code)
    return sorted(walk.files | walk.data_files())


def module_files(modules: Iterable[str], root: Path | None = None, package: str = "rfdetr") -> list[Path]:
    """Files reached from the named modules, e.g. `rfdetr.training.loop`. ValueError for an unknown module."""
    walk = _Walk((root or package_root()).resolve(), package)
    for name in modules:
        if walk.path_of(name) is None:
            raise ValueError(f"no module {name!r} below {walk.root}")
        walk.module(name)
    return sorted(walk.files | walk.data_files())


def files_digest(files: Iterable[Path], root: Path) -> str:
    """Hex SHA-256 over the names (relative to `root`) and the bytes of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def meaning_digest(files: Iterable[Path], root: Path) -> str:
    """Like `files_digest`, but Python files count without comments, layout and docstrings.

    For results that take long to make: a better comment must not train a network again.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        content = path.read_bytes()
        if path.suffix == ".py":
            tree = ast.parse(content)
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    _drop_docstring(node)
            content = ast.dump(tree).encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


@cache
def _parse(path: Path, stamp: tuple[int, int]) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def _tree(path: Path) -> ast.Module:
    status = path.stat()
    return _parse(path, (status.st_mtime_ns, status.st_size))


@dataclass
class _Walk:
    root: Path
    package: str
    files: set[Path] = field(default_factory=set)

    def path_of(self, name: str) -> Path | None:
        """File of a dotted module name of the package, or None."""
        if name != self.package and not name.startswith(self.package + "."):
            return None
        base = self.root.joinpath(*name.split("."))
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                return path
        return None

    def data_files(self) -> set[Path]:
        """Files beside the reached modules that are not Python: tables, texts. The top package's own folder
        has none.
        """
        folders = {path.parent for path in self.files} - {self.root / self.package}
        found: set[Path] = set()
        for folder in folders:
            for path in folder.rglob("*"):
                if (
                    path.is_file()
                    and path.suffix not in (".py", ".pyc", ".md")
                    and "__pycache__" not in path.parts
                ):
                    found.add(path)
        return found

    def module(self, name: str) -> None:
        """Count a module, the packages around it, and all that they import."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            dotted = ".".join(parts[:end])
            path = self.path_of(dotted)
            if path is None or path in self.files:
                continue
            self.files.add(path)
            inside = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
            self.statements(_tree(path), inside, is_init=path.name == "__init__.py")

    def name_in(self, module: str, name: str) -> None:
        """Count what `from module import name` (or the attribute `module.name`) loads."""
        self.module(module)
        if self.path_of(f"{module}.{name}") is not None:
            self.module(f"{module}.{name}")
            return
        path = self.path_of(module)
        if path is not None and path.name == "__init__.py":
            for target in _lazy_targets(_tree(path), name):
                self.module(target)

    def code(self, text: str) -> None:
        """Count what notebook code loads: IPython lines are left out, `-m package` inside them is not."""
        lines = ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in text.splitlines()]
        # Broken code fails when it is executed, with a better message than any from here.
        with suppress(SyntaxError):
            self.statements(ast.parse("\n".join(lines)), "", is_init=False)
        self.run_as_module(text)

    def run_as_module(self, text: str) -> None:
        for name in _RUN_AS_MODULE.findall(text):
            self.module(name)
            self.module(f"{name}.__main__")

    def statements(self, tree: ast.AST, inside: str, *, is_init: bool) -> None:
        aliases: dict[str, str] = {}
        nodes = list(_live_nodes(tree))
        for node in nodes:
            if isinstance(node, ast.Import):
                for item in node.names:
                    self.module(item.name)
                    bound = item.name if item.asname else item.name.split(".")[0]
                    aliases[item.asname or bound] = bound
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(node, inside)
                for item in node.names:
                    self.name_in(module, item.name)
                    aliases[item.asname or item.name] = f"{module}.{item.name}"
        for node in nodes:
            if isinstance(node, ast.Attribute):
                dotted = _dotted(node, aliases)
                if dotted:
                    self.name_in(*dotted)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # In an __init__ such strings are the table of lazy names, followed one by one on use.
                if not is_init and self.path_of(node.value) is not None:
                    self.module(node.value)
            elif isinstance(node, ast.JoinedStr):
                self.any_of(node)

    def any_of(self, text: ast.JoinedStr) -> None:
        """An f-string `"package.folder.{name}"` may name each module of that folder."""
        first = text.values[0] if text.values else None
        if not (
            isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.endswith(".")
        ):
            return
        path = self.path_of(first.value[:-1])
        if path is not None and path.name == "__init__.py":
            for file in sorted(path.parent.glob("*.py")):
                self.module(first.value + file.stem if file.stem != "__init__" else first.value[:-1])


def _live_nodes(tree: ast.AST) -> Iterable[ast.AST]:
    """All nodes except those under `if TYPE_CHECKING:`, which never run."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _absolute(node: ast.ImportFrom, inside: str) -> str:
    if not node.level:
        return node.module or ""
    base = inside.split(".")[: len(inside.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _dotted(node: ast.Attribute, aliases: dict[str, str]) -> tuple[str, str] | None:
    """(module, name) of an attribute chain that starts at an imported name."""
    parts: list[str] = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name) or value.id not in aliases:
        return None
    return ".".join([aliases[value.id], *reversed(parts[1:])]), parts[0]


def _lazy_targets(init: ast.Module, name: str) -> list[str]:
    """Modules that a package's `__getattr__` may load for `name`; all strings of the file when its table is
    not plain.
    """
    own = {node.name for node in init.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if "__getattr__" not in own or name in own:
        return []
    strings: list[str] = []
    for node in ast.walk(init):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return [
                        n.value
                        for n in ast.walk(value)
                        if isinstance(n, ast.Constant) and isinstance(n.value, str)
                    ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
    bound = {
        item.asname or item.name
        for n in init.body
        if isinstance(n, ast.ImportFrom | ast.Import)
        for item in n.names
    }
    bound |= {
        t.id for n in init.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
    }
    bound |= {
        n.target.id for n in init.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    return [] if name in bound or (name.startswith("__") and name.endswith("__")) else strings
