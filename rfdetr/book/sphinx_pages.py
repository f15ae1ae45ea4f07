"""Numbers of figures and exercises by chapter, descriptions and footers of pages, and a light site."""

import re
from html import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.book.lighter import lighten

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_DESCRIPTION = 160
"""Characters of a page's description that search engines show."""


def connect(app: "Sphinx") -> None:
    """Register the handlers of this module."""
    # After Sphinx has numbered everything through the whole book.
    app.connect("env-get-updated", _number_by_chapter, priority=900)
    app.connect("html-page-context", _describe)
    app.connect("html-page-context", _add_footer)
    app.connect("html-page-context", _mend_html)
    app.connect("build-finished", _lighten)


def chapter_number(document: str) -> str:
    """Number or letter of a chapter: "5" for notebooks/05_search, "B" for B_query_drop; else empty."""
    match = re.match(r"0*(\d+|[A-Z])_", document.rpartition("/")[2])
    return match[1] if match else ""


def _number_by_chapter(app: "Sphinx", env: "BuildEnvironment") -> list[str]:
    """Figure 5.2, Exercise 5.1: a new chapter does not move the numbers of the others."""
    numbered = []
    for document, kinds in env.toc_fignumbers.items():
        chapter = chapter_number(document)
        if chapter:
            for kind, ids in kinds.items():
                # Sphinx writes the parts of a number with points between them, whatever they are.
                by_chapter: dict[str, Any] = {name: (chapter, place) for place, name in enumerate(ids, 1)}
                kinds[kind] = by_chapter
            numbered.append(document)
    return numbered


def description(text: str) -> str:
    """The beginning of a text on one line, cut between words."""
    words = " ".join(text.split())
    if len(words) <= _DESCRIPTION:
        return words
    return words[: _DESCRIPTION - 1].rpartition(" ")[0].rstrip(",;:") + "…"


def _describe(app: "Sphinx", page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """A description for search engines and previews: the page's first paragraph."""
    from docutils import nodes

    if doctree is None:
        return
    texts = (paragraph.astext() for paragraph in doctree.findall(nodes.paragraph))
    first = next((t for t in texts if len(t) > 40 and not re.match("The paper.s objects?:", t)), "")
    if first:
        text = escape(description(first), quote=True)
        context["metatags"] = context.get("metatags", "") + f'<meta name="description" content="{text}">\n'


def _add_footer(app: "Sphinx", page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Licence, commit and citation below every page."""
    made, address = context.get("companion_commit", ""), context.get("companion_address", "")
    head = re.match(r"commit ([0-9a-f]+)$", made)
    made = escape(made)
    if head and address:
        made = f'<a href="{escape(address)}/commit/{head[1]}">{made}</a>'
    cite = "CITATION.cff"
    if "book/about" in app.env.found_docs:
        about = context["pathto"]("book/about").rstrip("#")  # "#" on the page itself
        cite = f'<a href="{about}#how-to-cite">how to cite</a>'
    context["theme_extra_footer"] = (
        f"<p>Code and text under the Apache License 2.0; {cite}. Made from"
        f" {made or 'code of no known commit'}.</p>"
    )


def _mend_html(app: "Sphinx", page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Heads of tables with their scope, one first heading, and one element per identifier: exercises and
    their solutions all come with the same one.
    """
    if "body" not in context:
        return
    body = re.sub(r"<th(?![^>]*scope=)(?= |>)", '<th scope="col"', context["body"])
    # A heading in a cell's output cannot be the page's first.
    body = re.sub(r'<h1( class="rubric".*?)</h1>', r"<h2\1</h2>", body, flags=re.DOTALL)
    numbers = count(1)
    context["body"] = re.sub(
        r'id="(exercise|solution)-content"', lambda found: f'id="{found[1]}-content-{next(numbers)}"', body
    )


def _lighten(app: "Sphinx", exception: Exception | None) -> None:
    if app.builder.format == "html" and not exception:
        lighten(Path(app.outdir))
