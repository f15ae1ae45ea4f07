"""Sphinx extension that makes the site whole without a network: mathematics, captions of figures, charts.

Sphinx would fetch MathJax from another host; here it is copied from an installed package into the site.
Numbers of figures and what search engines and auditors of pages look for is in `sphinx_pages`, links to the
glossary in `terms`.
"""

import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rfdetr.book import bibliography, sphinx_pages, terms
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

IMAGE_MIMES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
FIGURE_MIMES = (*IMAGE_MIMES, "text/html")
"""Of outputs that are figures if they have an alternative text; a chart is HTML that draws itself."""
# The part of MathJax that TeX input with HTML output needs: 2 of its 24 MB.
_MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def _captioned(renderer: Any, content: "nodes.Node", alt: str) -> "nodes.Node":
    """A numbered figure whose caption is its alternative text."""
    from docutils import nodes

    figure = nodes.figure("", content, nodes.caption("", alt))
    figure["ids"] = [f"figure-{renderer.renderer.sphinx_env.new_serialno('figure') + 1}"]
    return figure


class AltTextRenderer:
    """Plugin of myst-nb that makes a figure of an image or chart whose output metadata has an `alt` (see
    `rfdetr.plots.display.show`).
    """

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = []

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> "list[nodes.Node] | None":
        """The image or chart with its alternative text and caption; None for an output that has no text."""
        alt = figure_alt(data.output_metadata, data.mime_type)
        if not alt or inline:
            return None
        if data.mime_type == "text/html":
            return [_captioned(renderer, node, alt) for node in renderer.render_text_html(data)]
        rendered = renderer.render_image(data)
        for image in rendered:
            image["alt"] = alt
        return [_captioned(renderer, image, alt) for image in rendered]


# Environments that were installed when charts were plotly's name this, too.
PlotlyRenderer = AltTextRenderer


def figure_alt(metadata: Mapping[str, Any], mime: str) -> str:
    """Alternative text of an output's part, from the output's metadata; empty for what is no figure."""
    return str(metadata.get(mime, {}).get("alt", "")) if mime in FIGURE_MIMES else ""


def _mathjax_folder() -> Path:
    try:
        files = metadata.files("sphinx-mathjax-offline") or []
        return next(Path(str(file.locate())).parent for file in files if file.name == "tex-chtml.js")
    except (metadata.PackageNotFoundError, StopIteration):
        raise UserError("the site needs sphinx-mathjax-offline: pip install '.[book]'") from None


def _copy_new(source: Path, target: Path) -> None:
    """Copy a file or folder, skipping files that are there already with the same size."""
    for path in [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]:
        to = target / path.relative_to(source)
        if not to.is_file() or to.stat().st_size != path.stat().st_size:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def _copy_scripts(app: "Sphinx") -> None:
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    mathjax = _mathjax_folder()
    for part in _MATHJAX:
        _copy_new(mathjax / part, static / "mathjax" / part)


def setup(app: "Sphinx") -> dict[str, Any]:
    """Entry point of the Sphinx extension."""
    app.connect("builder-inited", _copy_scripts)
    sphinx_pages.connect(app)
    terms.connect(app)
    bibliography.register()
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
