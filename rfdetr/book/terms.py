"""Links to the glossary at each term's first use in a chapter; per cent signs stay with their numbers.

Both are done to running text only: not to headings, code, links, captions and heads of tables.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

GLOSSARY = "book/glossary"
_LINKED = re.compile(r"notebooks/|book/measuring-latency$")
"""Pages whose terms are linked: the chapters. Elsewhere words like "window" mean something else."""
_ORDINARY = {"artifact", "group", "latency", "matching", "parity", "profile"}
"""Terms that running text uses as ordinary words as well; these are linked by hand."""
_PER_CENT = re.compile(r"(?<=\d) ?%")


def connect(app: "Sphinx") -> None:
    """Register the handlers of this module."""
    app.connect("doctree-read", _read)


def glossary_terms(text: str) -> dict[str, str]:
    """The glossary's terms by the words that stand for them in a text. text: the page's Markdown."""
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^(\S.*)$", block[1], flags=re.MULTILINE) if block else []
    found: dict[str, str] = {}
    for term in map(str.strip, lines):
        words = term.split(", ")
        # Of several words in one entry only abbreviations are sure to mean it.
        found |= {word: term for word in words if len(words) == 1 or re.fullmatch(r"[A-Z]+\d*", word)}
    return {word: term for word, term in found.items() if word not in _ORDINARY}


def pattern(words: dict[str, str]) -> "re.Pattern[str]":
    """Finds any of the words, also in the plural and at the beginning of a sentence; longer ones first."""
    return re.compile(
        r"(?<![\w-])(?:" + "|".join(map(_variants, sorted(words, key=len, reverse=True))) + r")(?![\w-])"
    )


def _variants(word: str) -> str:
    text = re.escape(word).replace("'", "['’]")
    text = re.sub(r"\btau$", "(?:tau|τ)", text)
    if word in ("FLOPs", "MACs"):
        return f"[GT]?{text}"
    if re.match(r"[a-z]", word, flags=re.IGNORECASE) and not word[1:2].isupper():
        text = f"[{word[0].lower()}{word[0].upper()}]{text[1:]}"
    plural = text[:-1] + "(?:y|ies)" if word.endswith("y") else text + "(?:s|es)?"
    return plural if word[-1:].islower() else text


def _read(app: "Sphinx", doctree: "nodes.document") -> None:
    path = Path(app.srcdir) / f"{GLOSSARY}.md"
    document = app.env.docname
    words = {}
    if path.is_file() and _LINKED.match(document):
        words = glossary_terms(path.read_text(encoding="utf-8"))
    refine(doctree, words, document)


def refine(doctree: "nodes.document", words: dict[str, str], document: str) -> None:
    """Change a document in place. words: as of `glossary_terms`; document: its name, for the links."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    linked = {
        found["reftarget"].lower() for found in doctree.findall(pending_xref) if found["reftype"] == "term"
    }
    look_for = pattern(words) if words else None
    for text in list(doctree.findall(nodes.Text)):
        if not _runs(text):
            continue
        plain = _PER_CENT.sub("\N{NO-BREAK SPACE}%", text.astext())
        parts = list(_linked(plain, look_for, words, linked, document)) if look_for else [nodes.Text(plain)]
        if plain != text.astext() or any(isinstance(part, pending_xref) for part in parts):
            parent = text.parent
            place = parent.index(text)
            parent.remove(text)
            for part in reversed(parts):
                parent.insert(place, part)


def _runs(text: "nodes.Text") -> bool:
    """Whether a text stands in a paragraph or table of the page, as running text."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    without = (
        nodes.title, nodes.rubric, nodes.caption, nodes.thead, nodes.term, nodes.reference, pending_xref,
        nodes.literal, nodes.literal_block, nodes.raw, nodes.math, nodes.math_block, nodes.comment,
    )  # fmt: skip
    node: Any = text.parent
    running = False
    while node is not None and not isinstance(node, nodes.document):
        if isinstance(node, without):
            return False
        running = running or isinstance(node, nodes.paragraph)
        node = node.parent
    return running


def _linked(
    text: str, look_for: "re.Pattern[str]", words: dict[str, str], linked: set[str], document: str
) -> "Iterator[nodes.Node]":
    """The text in pieces: what it was, and links of terms not yet in `linked`, to which they are added."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    done = 0
    for found in look_for.finditer(text):
        term = next(words[word] for word in words if re.fullmatch(_variants(word), found[0]))
        if term.lower() in linked:
            continue
        linked.add(term.lower())
        if found.start() > done:
            yield nodes.Text(text[done : found.start()])
        shown = nodes.inline("", found[0], classes=["xref", "std", "std-term"])
        yield pending_xref(
            "", shown, refdomain="std", reftype="term", reftarget=term, refexplicit=True, refwarn=True,
            refdoc=document,
        )  # fmt: skip
        done = found.end()
    if done < len(text):
        yield nodes.Text(text[done:])
