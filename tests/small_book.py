"""A small book with a package of its own, and this project's site configuration and style."""

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rfdetr.book.cache import Project
from rfdetr.sources import package_root

PARAMETERS = 'profile = "cpu"\nseed = 0  # decides everything\noutput_dir = ""'


def notebook(
    *code: str, title: str = "Table 1: a chapter", prose: str = "Some prose."
) -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell(f"# {title}\n\n{prose}", id="title"),
        new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]}),
        *(new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(code)),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata={**kernel, "language_info": {"name": "python"}})


def write_project(root: Path, **notebooks: nbformat.NotebookNode) -> Project:
    """A small book with its own package, but with this project's site configuration and style."""
    (root / "book").mkdir()
    (root / "minilib").mkdir()
    (root / "notebooks").mkdir()
    (root / "minilib/__init__.py").write_text("")
    (root / "minilib/one.py").write_text("VALUE = 1\n")
    (root / "minilib/two.py").write_text("NAME = 'two'\n")
    shutil.copyfile(package_root() / "_config.yml", root / "_config.yml")
    shutil.copytree(package_root() / "assets", root / "assets")
    for name in ("references.bib", "coverage.yaml"):
        shutil.copyfile(package_root() / "book" / name, root / "book" / name)
    (root / "book/index.md").write_text("# Start\n\nMathematics: $a^2$.\n")
    (root / "book/about.md").write_text("# About\n")
    for name, content in notebooks.items():
        nbformat.write(content, root / "notebooks" / f"{name.lstrip('_')}.ipynb")
    write_toc(root, *(f"notebooks/{name.lstrip('_')}" for name in notebooks))
    return Project(root, "minilib")


def write_toc(root: Path, *documents: str) -> None:
    lines = ["format: jb-book", "root: book/index", "chapters:", "  - file: book/about"]
    lines += ["  - file: book/status", "  - file: book/audit", "  - file: book/data"]
    (root / "book/_toc.yml").write_text(
        "\n".join([*lines, *(f"  - file: {name}" for name in documents)]) + "\n"
    )
