"""An executed notebook as one HTML file that needs no network: text, tables, pictures, charts; the code is
left out.

Readable on a phone and in the dark; charts are plotly's, whose script is put into the page once.
"""

import html
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PLOTLY = "application/vnd.plotly.v1+json"
_STYLE = """
:root {
  color-scheme: light dark;
  --text: #1a1a1a; --back: #ffffff; --line: #d0d0d0; --soft: #f4f4f4; --link: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --back: #16181b; --line: #44484e; --soft: #22262b; --link: #7db7ff; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
a { color: var(--link); } h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.8rem 0; }
th, td { border-bottom: 1px solid var(--line); text-align: left; }
th:first-child, td:first-child { white-space: nowrap; }
caption { text-align: left; color: inherit; opacity: 0.8; padding: 0.2rem 0; }
img { max-width: 100%; height: auto; } .chart { margin: 0.8rem 0; }
pre, code { font-family: ui-monospace, monospace; font-size: 0.86rem; background: var(--soft); }
pre { padding: 0.7rem; overflow-x: auto; } code { overflow-wrap: anywhere; }
footer { margin-top: 3rem; opacity: 0.75; font-size: 0.85rem; }
"""
_DRAW = """
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const lines = dark ? "#44484e" : "#d0d0d0";
for (const box of document.querySelectorAll(".chart")) {
  const figure = JSON.parse(box.querySelector("script").textContent);
  const {xaxis, yaxis, font} = figure.layout;
  const style = {gridcolor: lines, linecolor: lines, zerolinecolor: lines};
  const layout = {
    ...figure.layout, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {...font, color: dark ? "#e6e6e6" : "#1a1a1a"},
    xaxis: {...xaxis, ...style}, yaxis: {...yaxis, ...style},
  };
  Plotly.newPlot(box, figure.data, layout, {responsive: true, displaylogo: false,
    displayModeBar: false});
}
"""


def page(notebook: Mapping[str, Any], title: str) -> str:
    """The HTML of an executed notebook (nbformat 4, as a mapping)."""
    parts, charts = [], False
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(markdown(_text(cell["source"])))
        elif cell["cell_type"] == "code":
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                charts = charts or PLOTLY in data
                parts.append(_output(data, output.get("metadata", {})))
    script = f"<script>{_plotly()}</script><script>{_DRAW}</script>" if charts else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}\n</main>{script}</body></html>\n"
    )


def markdown(text: str) -> str:
    """HTML of Markdown with tables; HTML inside it is shown as text."""
    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return rendered.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def _output(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    if PLOTLY in data:
        figure = data[PLOTLY]
        alt = figure.get("layout", {}).get("meta", {}).get("alt", "chart")
        # A closing tag inside the JSON would end the script element.
        text = json.dumps(figure).replace("</", "<\\/")
        return (
            f'<div class="chart" role="img" aria-label="{html.escape(alt)}">'
            f'<script type="application/json">{text}</script><noscript>{html.escape(alt)}</noscript></div>'
        )
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            alt = html.escape(metadata.get(mime, {}).get("alt", "figure"))
            code = _text(data[mime]).replace("\n", "")
            return f'<p><img alt="{alt}" src="data:{mime};base64,{code}"></p>'
    if "text/html" in data:
        return f'<div class="scroll">{_text(data["text/html"])}</div>'
    if "text/markdown" in data:
        return markdown(_text(data["text/markdown"]))
    return ""


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def _plotly() -> str:
    spec = find_spec("plotly")
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return script.read_text(encoding="utf-8").replace("</script", "<\\/script")
