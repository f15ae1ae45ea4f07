"""Sphinx extension that makes the site whole without a network: mathematics, charts, captions of figures.

Sphinx would fetch MathJax, and plotly its script, from other hosts. Here both are copied from installed
packages into the site, and only the pages with a chart load the chart script. Numbers of figures and what
search engines and auditors of pages look for is in `sphinx_pages`.
"""

import json
import shutil
from collections.abc import Sequence
from html import escape
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rfdetr.book import sphinx_pages
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

PLOTLY_MIME = "application/vnd.plotly.v1+json"
IMAGE_MIMES = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")
_CHART_CLASS = "plotly-chart"
# The part of MathJax that TeX input with HTML output needs: 2 of its 24 MB.
_MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")
# The chart editor and sharing of plotly would send the figure to another host.
_DRAW_CHARTS = """
document.addEventListener("DOMContentLoaded", () => {
  const config = {
    responsive: true, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false,
    plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "editInChartStudio"],
  };
  for (const box of document.querySelectorAll("div.plotly-chart")) {
    const figure = JSON.parse(box.querySelector("script").textContent);
    Plotly.newPlot(box, figure.data, figure.layout, {...figure.config, ...config});
  }
});
"""


def _raw(html: str) -> "nodes.Node":
    from docutils import nodes

    return nodes.raw("", html, format="html")


def _captioned(renderer: Any, content: "nodes.Node", alt: str) -> "nodes.Node":
    """A numbered figure whose caption is its alternative text."""
    from docutils import nodes

    figure = nodes.figure("", content, nodes.caption("", alt))
    figure["ids"] = [f"figure-{renderer.renderer.sphinx_env.new_serialno('figure') + 1}"]
    return figure


class PlotlyRenderer:
    """Plugin of myst-nb that renders a plotly figure. Its text for screen readers is `layout.meta["alt"]`."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = [("*", PLOTLY_MIME, 1)]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> "list[nodes.Node] | None":
        """A plotly figure with its caption, or None for any other output."""
        if data.mime_type != PLOTLY_MIME or inline:
            return None
        figure = data.content if isinstance(data.content, dict) else json.loads(data.content)
        alt = figure_alt(figure) or "interactive chart"
        # A closing tag inside the JSON would end the script element.
        text = json.dumps(figure).replace("</", "<\\/")
        # A group, not an image: its menus and buttons are for everybody.
        chart = _raw(
            f'<div class="{_CHART_CLASS}" role="group" aria-label="{escape(alt)}">'
            f'<script type="application/json">{text}</script><noscript>{escape(alt)}</noscript></div>'
        )
        return [_captioned(renderer, chart, alt)]


class AltTextRenderer:
    """Plugin of myst-nb that gives an image the `alt` of its output metadata (see
    `rfdetr.plots.display.show`).
    """

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = []

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> "list[nodes.Node] | None":
        """The image with its alternative text and caption, or None for an output that has none."""
        alt = (
            data.output_metadata.get(data.mime_type, {}).get("alt") if data.mime_type in IMAGE_MIMES else None
        )
        if not alt:
            return None
        rendered = renderer.render_image(data)
        for image in rendered:
            image["alt"] = alt
        return [_captioned(renderer, image, alt) for image in rendered]


def figure_alt(figure: dict[str, Any]) -> str:
    """Alternative text of a plotly figure given as a dict; empty if it has none."""
    meta = figure.get("layout", {}).get("meta")
    return str(meta.get("alt", "")) if isinstance(meta, dict) else ""


def _mathjax_folder() -> Path:
    try:
        files = metadata.files("sphinx-mathjax-offline") or []
        return next(Path(str(file.locate())).parent for file in files if file.name == "tex-chtml.js")
    except (metadata.PackageNotFoundError, StopIteration):
        raise UserError("the site needs sphinx-mathjax-offline: pip install '.[book]'") from None


def _plotly_script() -> Path:
    spec = find_spec("plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UserError("the site needs plotly with its script: pip install '.[book]'")
    return path


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
    _copy_new(_plotly_script(), static / "plotly.min.js")


def _load_chart_script(
    app: "Sphinx", page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    from docutils import nodes

    if doctree is None or not any(
        f'class="{_CHART_CLASS}"' in raw.astext() for raw in doctree.findall(nodes.raw)
    ):
        return
    app.add_js_file("plotly.min.js", loading_method="defer")
    app.add_js_file(None, body=_DRAW_CHARTS)


def setup(app: "Sphinx") -> dict[str, Any]:
    """Entry point of the Sphinx extension."""
    app.connect("builder-inited", _copy_scripts)
    app.connect("html-page-context", _load_chart_script)
    sphinx_pages.connect(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
