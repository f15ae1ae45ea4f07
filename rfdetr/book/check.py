"""Look at every page of the built site with a browser: what a reader would trip over, as a list of problems.

Every page is opened from its file, in a wide and a narrow window, light and dark. Errors of the console,
requests to other hosts, files and anchors that are not there, pages that are heavy to load or wider than the
window, tables whose last column and cells whose lines are hidden, controls that do nothing, and what stops
readers who do not see: see `page_checks.js`.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rfdetr.book.browser import Tab, running

WIDE, NARROW = 1280, 375
FIRST_LOAD = 4_000_000
"""Bytes that opening a page may take, all its files together. A page with an explorer, whose data are a whole
grid, may take more.
"""
_EXPLORER = 'class="nas-explorer"'
SMALL_PAGES = "source/"
"""Pages of source code are many and alike; `few` of them are opened."""
_TOOLS = ("search.html", "genindex.html", "_static/")
"""Pages of the site generator without text of the book."""
# Colours on their way from light to dark are nobody's fault.
_STILL = """document.head.appendChild(
  Object.assign(document.createElement("style"), {textContent: "* { transition: none !important; }"})
) && null"""
_SCRIPT = (Path(__file__).with_name("page_checks.js")).read_text(encoding="utf-8")


def check_site(
    site: Path, few: int = 3, pages: Iterable[str] | None = None, loads: dict[str, int] | None = None
) -> list[str]:
    """Problems of a built site, one sentence each, with the page's name in front.

    site    folder with index.html
    few     how many pages of source code are opened
    pages   only these, e.g. "book/about.html"; None means all
    loads   gets the bytes of each page's first load

    UserError where there is no Chromium.
    """
    names = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    texts = {name: (site / name).read_text(encoding="utf-8") for name in names}
    found = list(dead_links(site, texts)) if pages is None else []
    with running() as browser:
        tab = browser.tab()
        whole = [name for name in chosen(names, few) if not _REDIRECT.search(texts[name])]
        for name in whole if pages is None else pages:
            found += [f"{name}: {problem}" for problem in check_page(tab, site, name, loads)]
    return found


def report(site: Path) -> int:
    """Print the problems of a built site and what it weighs; 1 if there is a problem, else 0."""
    started = time.perf_counter()
    loads: dict[str, int] = {}
    problems = check_site(site, loads=loads)
    for problem in problems:
        print(f"    {problem}", flush=True)
    files = [path for path in site.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(
        f"pages ... {len(problems) or 'no'} problems in {time.perf_counter() - started:.0f} s;"
        f" the site has {len(files)} files, {size:.1f} MB; heaviest to open: {heaviest(loads)}",
        flush=True,
    )
    return int(bool(problems))


def heaviest(loads: Mapping[str, int], count: int = 3) -> str:
    """The pages with the largest first loads in words."""
    pages = sorted(loads, key=lambda name: -loads[name])[:count]
    return ", ".join(f"{name} {loads[name] / 1e6:.1f} MB" for name in pages) or "none"


def chosen(names: Iterable[str], few: int) -> list[str]:
    """The pages to open: none of the site generator's fragments, and a few of the pages of source code."""
    names = [name for name in names if not name.startswith("_static/")]
    small = [name for name in names if name.startswith(SMALL_PAGES)]
    left_out = set(small[few:])
    return [name for name in names if name not in left_out]


def check_page(tab: Tab, site: Path, name: str, loads: dict[str, int] | None = None) -> list[str]:
    """Problems of one page. `loads` gets the bytes of its first load."""
    tab.show(WIDE)
    tab.open((site / name).as_uri())
    problems: dict[str, None] = {}
    size = loaded_bytes(tab.events)
    if loads is not None:
        loads[name] = size
    if size > FIRST_LOAD and _EXPLORER not in (site / name).read_text(encoding="utf-8"):
        problems[f"opening it loads {size / 1e6:.1f} MB, more than {FIRST_LOAD / 1e6:g}"] = None
    tab.run(_STILL)
    text_page = not name.startswith(_TOOLS)
    for width, dark in ((WIDE, False), (WIDE, True), (NARROW, True), (NARROW, False)):
        tab.show(width, dark=dark)
        tab.settle()
        first = width == WIDE and not dark
        options = {
            "width": width,
            "structure": first and text_page,
            "code": first,
            "described": text_page and not name.startswith(SMALL_PAGES),
            "controls": not dark and text_page,
        }
        where = f" ({width} px, {'dark' if dark else 'light'})"
        for problem in tab.run(_SCRIPT + f"({json.dumps(options)})"):
            problems.setdefault(problem + ("" if options["structure"] else where))
    for problem in reported(tab.events):
        problems.setdefault(problem)
    return list(problems)


def loaded_bytes(events: Iterable[Mapping[str, Any]]) -> int:
    """Size of all files that the browser asked for, each once."""
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    paths = {unquote(urlsplit(address).path) for address in asked if address.startswith("file:")}
    return sum(Path(path).stat().st_size for path in paths if Path(path).is_file())


def reported(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Problems among what the browser reported of a page."""
    for event in events:
        method, about = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            address = about["request"]["url"]
            if urlsplit(address).scheme not in ("file", "data", "blob", "about"):
                yield f"asks another host: {address}"
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            yield f"an error in a script: {details.get('exception', {}).get('description', details['text'])}"
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            yield "the console says: " + " ".join(str(part.get("value", "")) for part in about["args"])
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            entry = about["entry"]
            yield f"the console says: {entry['text']} {entry.get('url', '')}".rstrip()


_REDIRECT = re.compile(r"<meta[^>]+http-equiv=.refresh", re.IGNORECASE)
_LINK = re.compile(r"""\s(?:href|src)=["']([^"']+)["']""")
_CODE = re.compile(r"<(script|pre)\b.*?</\1>", re.DOTALL)
_ANCHOR = re.compile(r"""\s(?:id|name)=["']([^"']+)["']""")


def dead_links(site: Path, texts: Mapping[str, str]) -> Iterator[str]:
    """Links and sources within the site whose file or anchor does not exist."""
    anchors = {name: {unescape(anchor) for anchor in _ANCHOR.findall(text)} for name, text in texts.items()}
    for name, text in texts.items():
        if name.startswith("_static/"):
            continue
        for link in sorted(set(_LINK.findall(_CODE.sub("", text)))):
            parts = urlsplit(unescape(link))
            if parts.scheme or parts.netloc:
                continue
            path = ((site / name).parent / unquote(parts.path)).resolve() if parts.path else site / name
            if not path.exists():
                yield f"{name}: a link to nothing: {link}"
                continue
            inside = path.relative_to(site.resolve()).as_posix() if parts.path else name
            anchor = unquote(parts.fragment)
            if anchor and inside in anchors and anchor not in anchors[inside]:
                yield f"{name}: a link to an anchor that is not there: {link}"
