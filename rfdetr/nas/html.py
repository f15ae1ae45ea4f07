"""An executed notebook as one HTML file that needs no network: text, tables, pictures, charts; the code is
left out.

Readable on a phone and in the dark; charts draw themselves (`rfdetr.plots.scatter`).
"""

import html
from collections.abc import Mapping
from typing import Any

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
th:first-child, td:first-child { min-width: 9.5rem; }
/* A caption stays in sight when its table is wider than a phone. */
caption {
  position: sticky; left: 0; width: max-content; max-width: min(58rem, calc(100vw - 2rem));
  text-align: left; color: inherit; opacity: 0.8; padding: 0.2rem 0;
}
img { max-width: 100%; height: auto; }
.nas-scatter { margin: 0.8rem 0; }
pre, code { font-family: ui-monospace, monospace; font-size: 0.86rem; background: var(--soft); }
pre { padding: 0.7rem; overflow-x: auto; } code { overflow-wrap: anywhere; }
footer { margin-top: 3rem; opacity: 0.75; font-size: 0.85rem; }
"""


def page(notebook: Mapping[str, Any], title: str) -> str:
    """The HTML of an executed notebook (nbformat 4, as a mapping)."""
    parts = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(markdown(_text(cell["source"])))
        elif cell["cell_type"] == "code":
            for output in cell.get("outputs", []):
                parts.append(_output(output.get("data", {}), output.get("metadata", {})))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}\n</main></body></html>\n"
    )


def markdown(text: str) -> str:
    """HTML of Markdown with tables; HTML inside it is shown as text."""
    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return rendered.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def _output(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    for mime in ("image/png", "image/jpeg"):
        if mime in data:
            alt = html.escape(metadata.get(mime, {}).get("alt", "figure"))
            code = _text(data[mime]).replace("\n", "")
            return f'<p><img alt="{alt}" src="data:{mime};base64,{code}"></p>'
    if "text/html" in data and metadata.get("text/html", {}).get("alt"):
        return _text(data["text/html"])  # a chart follows the width by itself
    if "text/html" in data:
        return f'<div class="scroll">{_text(data["text/html"])}</div>'
    if "text/markdown" in data:
        return markdown(_text(data["text/markdown"]))
    return ""


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)
