"""Command lines that pages and help texts show, and the small world in which they are run."""

import json
import re
import shlex
from pathlib import Path

import typer

from rfdetr.cli import app

ROOT = Path(__file__).parents[1]
PROGRAM = ("python", "-m", "rfdetr")
_STARTS = ("python -m rfdetr ", "papermill ", "make ")
_QUOTED = re.compile(r'"(python -m rfdetr [^"]*)"')
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def pages():
    """Name of a page -> its text: the README, the book's prose, the markdown of the notebooks."""
    found = {"README.md": (ROOT / "README.md").read_text("utf-8")}
    for path in sorted((ROOT / "book").glob("*.md")):
        found[f"book/{path.name}"] = path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        found[f"notebooks/{path.name}"] = "\n\n".join(texts)
    return found


def subcommands():
    """Words of a command -> the command, e.g. ("data", "check")."""
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {(name, key): value for key, value in inner.items()} if inner else {(name,): command}
    return found


def helps():
    """Name of a command -> everything that its --help says."""
    found = {}
    for words, command in subcommands().items():
        texts = [command.help or "", *(getattr(parameter, "help", "") or "" for parameter in command.params)]
        found[" ".join((*words, "--help"))] = "\n".join(texts)
    return found


def commands(text):
    """The command lines of a text, each as a list of words: lines of code blocks, a command that another one
    is given in quotes, and code spans that begin with a command.
    """
    known = {words[0] for words in subcommands()}
    found = []
    parts = re.split(r"^\s*(?:```|~~~).*$", text, flags=re.MULTILINE)
    for number, part in enumerate(parts):
        if number % 2:  # inside a code block
            lines = re.sub(r"\\\n\s*", " ", part).splitlines()
            lines += [inner for line in lines for inner in _QUOTED.findall(line)]
            shown = [line.strip() for line in lines if line.strip().startswith(_STARTS)]
        else:
            spans = _SPAN.findall(re.sub(r"\n(?=\S)", " ", part))
            shown = [s for s in spans if s.startswith(_STARTS)]
            shown += [" ".join((*PROGRAM, s)) for s in spans if _is_command(s, known)]
        found += [shlex.split(line, comments=True) for line in shown]
    return found


def _is_command(span, known):
    """Whether a span is a whole command without the program's name. Alternatives (`export --format a | b`)
    and the name of an option (`train --out`) are none.
    """
    words = span.split()
    if " --" not in span or words[0] not in known or "|" in words:
        return False
    parameters = subcommands()[words[0],].params
    return not any(words[-1] in parameter.opts and not parameter.is_flag for parameter in parameters)


def mentions(text):
    """(command, option) of all spans that begin with a command, whole or not: `export --format a | b`."""
    known = {words[0] for words in subcommands() if len(words) == 1}
    for span in _SPAN.findall(re.sub(r"\n(?=\S)", " ", text)):
        words = span.removeprefix(" ".join(PROGRAM)).split()
        if words and words[0] in known:
            yield from ((words[0], word) for word in words if word.startswith("--"))


def options(words):
    """Names of all options of the command that a line calls, and its own words, e.g. ("data", "check")."""
    table = subcommands()
    name = next((n for n in (tuple(words[:2]), tuple(words[:1])) if n in table), None)
    if name is None:
        return None, set()
    return name, {text for parameter in table[name].params for text in parameter.opts}
