"""Build the site: stage today's prose with the cached outputs, write the status board, call jupyter-book.

The staged tree mirrors the repository, so that links between pages hold. Only files whose bytes changed are
written, and the whole step is left out when none changed since the last site without a warning.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rfdetr.book import audit as audits
from rfdetr.book import audit_page, coverage
from rfdetr.book.api_pages import API, api_pages
from rfdetr.book.audit_page import AUDIT
from rfdetr.book.cache import Chapter, Project, read_notebook
from rfdetr.book.data_page import DATA_PAGE, data_files, data_page
from rfdetr.book.execute import Outcome
from rfdetr.book.front_page import PICTURE, front_picture
from rfdetr.book.origins import line
from rfdetr.book.pages import page
from rfdetr.book.source_pages import modules, source_files
from rfdetr.book.status import STATUS, status_page
from rfdetr.errors import UserError
from rfdetr.experiments.base.findings import commit_words
from rfdetr.files import write_atomic, write_json
from rfdetr.provenance import commit

GENERATED = (STATUS, AUDIT, DATA_PAGE)
"""Pages that are made here and have no file in the repository."""
EXTRA = "extra"
"""Folder of the staged tree whose content goes into the site as it is."""
_TOOLS = (
    "jupyter-book",
    "sphinx",
    "myst-nb",
    "sphinx-book-theme",
    "pydata-sphinx-theme",
    "sphinx-mathjax-offline",
)


def read_toc(project: Project) -> tuple[dict[str, Any], list[Chapter]]:
    """The table of contents and its chapters in order. UserError for an entry without a file."""
    import yaml

    path = project.root / "book" / "_toc.yml"
    try:
        toc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the table of contents {path}: {error}") from error
    chapters = []
    for document in toc_documents(toc):
        notebook = project.root / f"{document}.ipynb"
        if notebook.is_file():
            chapters.append(Chapter(document, notebook))
        elif (
            document not in GENERATED
            and not document.startswith(API)
            and not (project.root / f"{document}.md").is_file()
        ):
            raise UserError(
                f"{path} lists {document}, but there is neither {document}.ipynb nor {document}.md"
            )
    return toc, chapters


def toc_documents(toc: Any) -> list[str]:
    """All documents of a table of contents, in reading order."""
    if isinstance(toc, list):
        return [document for entry in toc for document in toc_documents(entry)]
    if isinstance(toc, dict):
        own = [toc[key] for key in ("root", "file") if key in toc]
        return own + [d for key in ("parts", "chapters", "sections") for d in toc_documents(toc.get(key, []))]
    return []


def _without(toc: Any, documents: set[str]) -> Any:
    """The table of contents without some documents, and without parts that this leaves empty."""
    if isinstance(toc, list):
        entries = [_without(entry, documents) for entry in toc if entry.get("file") not in documents]
        return [entry for entry in entries if set(entry) - {"caption", "numbered"}]
    kept = {
        key: _without(value, documents) if key in ("parts", "chapters", "sections") else value
        for key, value in toc.items()
    }
    return {key: value for key, value in kept.items() if value != []}


def staged_files(
    project: Project, profile: str, toc: dict[str, Any], outcomes: Iterable[Outcome]
) -> dict[str, bytes]:
    """Content of the staged tree by path. A failed chapter is not in it, nor in its table of contents."""
    import yaml

    outcomes = list(outcomes)
    files = {
        path.relative_to(project.root).as_posix(): _content(project, path)
        for folder in ("book", "assets")
        for path in sorted((project.root / folder).rglob("*"))
        if path.is_file() and not path.name.startswith((".", "_toc"))
    }
    known = modules(project)
    extra = data_files(project, profile, outcomes) | source_files(known)
    files |= {f"{EXTRA}/{path}": content for path, content in extra.items()}
    titles = {}
    for outcome in outcomes:
        notebook = read_notebook(outcome.chapter.path)
        titles[outcome.chapter.name] = notebook_title(notebook), paper_objects(notebook)
        if outcome.state == "failed":
            continue
        executed = None
        if outcome.state != "skipped":
            executed = read_notebook(project.executed(profile, outcome.chapter))
        made_of = partial(
            line, chapter=outcome.chapter.name, files=extra, known=known, up="../" * _depth(outcome)
        )
        content = page(notebook, executed, outcome.record, made_of, known)
        files[f"{outcome.chapter.document}.ipynb"] = content.encode()
    listed = set(toc_documents(toc))
    files |= {f"{name}.md": text.encode() for name, text in api_pages(known).items() if name in listed}
    of_chapters = {name: title for name, (title, _) in titles.items()}
    files[f"{DATA_PAGE}.md"] = data_page(extra, of_chapters).encode()
    files[f"{STATUS}.md"] = status_page(profile, outcomes, titles).encode()
    by_chapter = {
        o.chapter.name: o.record.get("findings", []) for o in outcomes if o.state in ("executed", "cached")
    }
    found = audits.audit(by_chapter)
    anchors = {row["claim"] for rows in by_chapter.values() for row in rows}
    files[f"{AUDIT}.md"] = coverage.filled(audit_page.page(found, anchors), project).encode()
    files[f"{AUDIT}.csv"] = audits.as_csv(found).encode()
    files[f"{AUDIT}.json"] = json.dumps(audits.rows(found), ensure_ascii=False, indent=1).encode()
    if b"front.png" in files.get("book/index.md", b""):
        files[PICTURE] = front_picture(project)
    failed = {outcome.chapter.document for outcome in outcomes if outcome.state == "failed"}
    files["_toc.yml"] = yaml.safe_dump(_without(toc, failed), sort_keys=False).encode()
    files["_config.yml"] = yaml.safe_dump(_configuration(project), sort_keys=False).encode()
    return files


def _depth(outcome: Outcome) -> int:
    return outcome.chapter.document.count("/")


def _content(project: Project, path: Path) -> bytes:
    """A file as it is, a page of the book with its generated tables."""
    if path.suffix != ".md":
        return path.read_bytes()
    return coverage.filled(path.read_text(encoding="utf-8"), project).encode()


def notebook_title(notebook: Any) -> str:
    """Text of the first heading."""
    for cell in notebook.cells:
        match = (
            re.search(r"^#\s+(.+)$", cell.source, flags=re.MULTILINE)
            if cell.cell_type == "markdown"
            else None
        )
        if match:
            return match[1].strip()
    return "(no title)"


_OBJECT = re.compile(
    r"(?:Tables?|Figures?|Sections?|Appendix|Appendices) [A-Z0-9]+\b(?:(?:, | and )[A-Z0-9]+\b)*"
)


def paper_objects(notebook: Any) -> str:
    """What the line "The paper's object: ..." below the title says, versions included; without one the
    tables, figures, sections and appendices that the title names.
    """
    opening = notebook.cells[0].source if notebook.cells and notebook.cells[0].cell_type == "markdown" else ""
    stated = re.search(r"The paper['’]s objects?:(.*)", opening)
    if stated:
        return stated[1].strip().strip("*").rstrip(".")
    return ", ".join(dict.fromkeys(_OBJECT.findall(notebook_title(notebook))))


def _configuration(project: Project) -> dict[str, Any]:
    """The committed configuration and, where the repository's address is known, the links that need it."""
    import yaml

    config = yaml.safe_load((project.root / "_config.yml").read_text(encoding="utf-8"))
    address = repository_address(project)
    # For the footer of every page, see sphinx_pages.
    made_from = {"companion_commit": commit_words(commit()), "companion_address": address}
    config["sphinx"]["config"].setdefault("html_context", {}).update(made_from)
    config["sphinx"]["config"]["html_extra_path"] = [EXTRA]
    if address:
        config["repository"] = {"url": address, "path_to_book": "", "branch": "main"}
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
        for button in ("use_repository_button", "use_edit_page_button", "use_issues_button"):
            config.setdefault("html", {})[button] = True
    return config


def repository_address(project: Project) -> str:
    """Web address of the repository on GitHub, from the workflow's environment or from the remote `origin`;
    else empty.
    """
    if os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{os.environ['GITHUB_REPOSITORY']}"
    asked = subprocess.run(
        ["git", "-C", str(project.root), "remote", "get-url", "origin"],
        capture_output=True,
        text=True,
        check=False,
    )
    match = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?$", asked.stdout.strip())
    return f"https://github.com/{match[1]}" if match else ""


def build_site(project: Project, files: Mapping[str, bytes], *, strict: bool = True) -> tuple[str, str]:
    """Stage and build. Returns (`built`, `unchanged` or `failed`, the tool's messages).

    strict   a warning is a failure; without it the pages are written all the same
    """
    source, html, stamp = (
        project.build / "site-src",
        project.build / "_build" / "html",
        project.build / "site.json",
    )
    digest = _digest(files)
    before = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}
    if before.get("digest") == digest and (html / "index.html").is_file():
        return "unchanged", ""
    stamp.unlink(missing_ok=True)
    if _stage(source, files):
        # A page went away: its HTML, its sources and its entries in the indexes go too.
        shutil.rmtree(project.build / "_build", ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    command += ["--config", str(source / "_config.yml"), "--toc", str(source / "_toc.yml")]
    command += [
        "--path-output",
        str(project.build),
        "--keep-going",
        "--all",
        "-q",
        *(["-W"] if strict else []),
    ]
    # One process: the pages are few, and Sphinx then reports warnings in order.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project.root)
    messages = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.strip())
    if done.returncode != 0:
        return "failed", messages.replace(str(source) + os.sep, "")
    if strict:
        write_json(stamp, {"digest": digest})
    return "built", messages


def _stage(source: Path, files: Mapping[str, bytes]) -> bool:
    """Make the folder hold exactly these files; True if one had to go."""
    wanted = {source / name for name in files}
    old = [path for path in source.rglob("*") if path.is_file() and path not in wanted]
    for path in old:
        path.unlink()
    for name, content in files.items():
        path = source / name
        if not path.is_file() or path.read_bytes() != content:
            write_atomic(path, content)
    return bool(old)


def _digest(files: Mapping[str, bytes]) -> str:
    """Of all that decides the site: staged files, the Sphinx extension, the versions of the tools."""
    digest = hashlib.sha256()
    for extension in ("sphinx.py", "sphinx_pages.py", "lighter.py", "terms.py", "bibliography.py"):
        digest.update(Path(__file__).with_name(extension).read_bytes())
    for name in sorted(files):
        digest.update(f"{name}\0".encode() + hashlib.sha256(files[name]).digest())
    digest.update(json.dumps([metadata.version(tool) for tool in _TOOLS]).encode())
    return digest.hexdigest()
