"""What a finished site can do without: maps of scripts, icons of no page, large outputs of notebooks."""

import json
import re
from pathlib import Path
from typing import Any

_ICON = re.compile(
    r'([{,]"?)([\w-]+)("?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",)(?:"[^"]*"|\["[^"]*"(?:,"[^"]*")*\])\]'
)
_LARGE = 100_000
"""Characters of an output that a notebook for download does not repeat."""


def lighten(site: Path) -> None:
    """Make a built site smaller in place; its pages look the same."""
    drop_source_maps(site / "_static")
    keep_used_icons(site)
    for notebook in (site / "_sources").rglob("*.ipynb"):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        text = json.dumps(light_notebook(content), ensure_ascii=False, separators=(",", ":"))
        notebook.write_text(text + "\n", encoding="utf-8")


def drop_source_maps(folder: Path) -> None:
    """Remove the scripts' maps to their sources: 3 MB that no reader's browser asks for."""
    for path in folder.rglob("*.map"):
        script = path.with_suffix("")
        if script.is_file():
            text = script.read_text(encoding="utf-8")
            text = re.sub(r"\n?(//|/\*)# sourceMappingURL=\S+( \*/)?\s*$", "\n", text)
            script.write_text(text, encoding="utf-8")
        path.unlink()


def keep_used_icons(site: Path) -> None:
    """Empty the drawings of icons that neither a page nor a script names: 1.3 of the 1.5 MB of every page."""
    icons = site / "_static/scripts/fontawesome.js"
    if not icons.is_file():
        return
    readers = [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]
    names = {
        name
        for path in readers
        if path != icons
        for name in re.findall(r"fa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))
    }

    def kept(found: re.Match[str]) -> str:
        other_names = re.findall(r'"([^"]+)"', found[4])
        if names.isdisjoint([found[2], *other_names]):
            return f'{found[1]}{found[2]}{found[3]}""]'
        return found[0]

    icons.write_text(_ICON.sub(kept, icons.read_text(encoding="utf-8")), encoding="utf-8")


def light_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook for download: without the lines whose links only the site has, and without large charts."""
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in map(_light, cell["outputs"]) if output is not None]
    return notebook


def _light(output: dict[str, Any]) -> dict[str, Any] | None:
    data = output.get("data", {})
    if "".join(data.get("text/html", "")).startswith('<p class="origin">'):
        return None
    sizes = {mime: len(json.dumps(content)) for mime, content in data.items() if "image" not in mime}
    large = [mime for mime, size in sizes.items() if size > _LARGE]
    if large:
        data = {mime: content for mime, content in data.items() if mime not in large}
        return {**output, "data": data or {"text/plain": "(on the page: too large for this file)"}}
    return output
