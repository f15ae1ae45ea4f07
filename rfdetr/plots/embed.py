"""Drawings that a page draws itself: a box with data as JSON, and the plain JavaScript and CSS beside this
file.

All that a drawing needs is in its HTML, so it works offline, on the site, in a report and in a notebook.
"""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def box(kind: str, data: Mapping[str, Any], instead: str, **attributes: str) -> str:
    """HTML of a drawing.

    kind        its script and style are `<kind>.js` and `<kind>.css`, its box has the class `nas-<kind>`
    data        what the script computes with
    instead     text that stands there until the script has drawn
    attributes  of the box
    """
    # A closing tag inside the JSON would end the script element.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    style, code, shared = (
        (_FOLDER / name).read_text(encoding="utf-8") for name in (f"{kind}.css", f"{kind}.js", "drawing.js")
    )
    given = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return (
        f'<div class="nas-{kind}"{given}><script type="application/json">{text}</script>'
        f"<p>{escape(instead)}</p></div>"
        f'<style>{style}</style><script>(() => {{\n"use strict";\n{shared}\n{code}}})();</script>'
    )
