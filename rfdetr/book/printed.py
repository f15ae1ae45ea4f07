"""The whole book as one PDF: the pages' articles in one document, printed by Chromium.

Identifiers get their page's name in front, so that links between the pages work inside the PDF. The document
lies beside the pages while it is printed, because it uses their pictures and styles.
"""

import re
from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from rfdetr.book.api_pages import API
from rfdetr.book.browser import running
from rfdetr.book.cache import Project
from rfdetr.book.data_page import DATA_PAGE
from rfdetr.book.stage import read_toc, toc_documents
from rfdetr.errors import UserError
from rfdetr.files import atomic_path

PDF = "book.pdf"
_PRINT = "print.html"
_STYLE = """
@page { size: A4; }
html { font-size: 10.5pt; scroll-padding: 0; }
body { background: #fff; }
body > section { break-before: page; }
body > section.cover { break-before: auto; }
pre, code { font-size: 8pt; white-space: pre-wrap !important; overflow-wrap: anywhere; }
h1, h2, h3, caption, summary { break-after: avoid; }
figure, table.dataframe tr, .nas-scatter, .admonition-title { break-inside: avoid; }
img { max-width: 100%; height: auto; max-height: 22cm; }
table { font-size: 8.5pt; }
.wide-table table.dataframe { font-size: 7.5pt !important; }
.text_html, .pst-scrollable-table-container { background: none !important; overflow: visible !important; }
.headerlink, form.table-filters, .copybtn, noscript { display: none !important; }
table.findings thead { display: table-header-group; }
.cover ol { columns: 1; list-style: none; padding-left: 0; }
"""
# Charts and mathematics are drawn before it is printed.
_READY = """(async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
})()"""
_FOOTER = (
    '<div style="width: 100%; font-size: 7pt; text-align: center; color: #555">'
    '<span class="title"></span> &nbsp; <span class="pageNumber"></span> / '
    '<span class="totalPages"></span></div>'
)


def print_book(project: Project, site: Path) -> Path:
    """Print the pages of the table of contents into build/book.pdf; returns its path. UserError without a
    browser or without the site.
    """
    # The API is for looking up, which paper is not, and would be most of the pages.
    documents = [name for name in toc_documents(read_toc(project)[0]) if not name.startswith(API)]
    pages = {
        document: (site / f"{document}.html").read_text(encoding="utf-8")
        for document in documents
        if (site / f"{document}.html").is_file()
    }
    if not pages:
        raise UserError(f"there are no pages in {site}: run `python -m rfdetr book` first")
    source, target = site / _PRINT, project.build / PDF
    source.write_text(combined(pages), encoding="utf-8")
    try:
        with running() as browser:
            tab = browser.tab()
            tab.show(1000)
            tab.open(source.as_uri())
            tab.run(_READY)
            tab.settle()
            content = tab.print(**_print_options())
    finally:
        source.unlink()
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    count = len(re.findall(rb"/Type\s*/Page\b", content))
    print(f"{target}: {count} pages, {len(content) / 1e6:.1f} MB", flush=True)
    return target


def _print_options() -> dict[str, Any]:
    margins = {"marginTop": 0.6, "marginBottom": 0.7, "marginLeft": 0.65, "marginRight": 0.65}  # inches
    return {
        "paperWidth": 8.27,
        "paperHeight": 11.69,
        **margins,
        "printBackground": True,
        "displayHeaderFooter": True,
        "headerTemplate": "<span></span>",
        "footerTemplate": _FOOTER,
        "generateTaggedPDF": True,
        "generateDocumentOutline": True,
    }


def combined(pages: Mapping[str, str]) -> str:
    """One HTML document of the articles of all pages; `pages` maps documents to their HTML, in order."""
    from bs4 import BeautifulSoup

    parsed = {document: BeautifulSoup(text, "html.parser") for document, text in pages.items()}
    sections, contents = [], []
    for document, page in parsed.items():
        article = page.find("article")
        if article is None:
            continue
        _prepare(article, document, set(pages))
        heading = article.find("h1")
        title = heading.get_text().strip().rstrip("#¶") if heading else document
        contents.append(f'<li><a href="#{_name(document)}">{escape(title)}</a></li>')
        sections.append(
            f'<section id="{_name(document)}" class="bd-content"><article class="bd-article">'
            f"{article.decode_contents()}</article></section>"
        )
    first = next(iter(parsed.values()))
    title = (first.title.get_text() if first.title else "").rpartition("—")[2].strip()
    footer = first.select_one(".extra_footer")
    cover = (
        f'<section class="cover"><h1>{escape(title)}</h1>{footer.decode_contents() if footer else ""}'
        f"<h2>Contents</h2><ol>{''.join(contents)}</ol></section>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>{_head(parsed)}<style>{_STYLE}</style></head>"
        f"<body>{cover}{''.join(sections)}</body></html>"
    )


def _head(parsed: Mapping[str, Any]) -> str:
    """Styles, and the scripts that draw mathematics: each once."""
    lines: dict[str, None] = {}
    for document, page in parsed.items():
        for node in page.head.find_all(["link", "script"]):
            address = node.get("href") or node.get("src") or ""
            is_style = node.name == "link" and "stylesheet" in (node.get("rel") or [])
            is_drawing = node.name == "script" and re.search(
                r"mathjax", address + (node.string or ""), re.IGNORECASE
            )
            if not (is_style or is_drawing):
                continue
            for key in ("href", "src"):
                if node.get(key):
                    node[key] = _from_root(node[key], document)
            lines[str(node)] = None
    return "".join(lines)


def _prepare(article: Any, document: str, documents: set[str]) -> None:
    """Change an article in place: its identifiers, links and sources, and what paper cannot show."""
    for node in article.select("details.hide, .headerlink, form.table-filters"):
        node.decompose()  # code that the page hides, and what is for the mouse
    for node in article.find_all("details"):
        node["open"] = ""
    prefix = _name(document)
    for node in article.find_all(id=True):
        node["id"] = f"{prefix}--{node['id']}"
    for key in ("aria-labelledby", "for", "aria-describedby"):
        for node in article.find_all(attrs={key: True}):
            node[key] = f"{prefix}--{node[key]}"
    for node in article.find_all(src=True):
        node["src"] = _from_root(node["src"], document)
    for node in article.find_all("a", href=True):
        node["href"] = _inside(node["href"], document, documents)


def _inside(link: str, document: str, documents: Collection[str]) -> str:
    """A link of a page as a link in the PDF; one to a file of the site becomes the anchor of its page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return link
    target = unquote(urlsplit(urljoin(f"{document}.html", parts.path)).path) if parts.path else document
    target = target.removesuffix(".html")
    if target not in documents:  # a file of the site: where the files are listed, or here
        return f"#{_name(DATA_PAGE if DATA_PAGE in documents else document)}"
    return f"#{_name(target)}--{parts.fragment}" if parts.fragment else f"#{_name(target)}"


def _from_root(address: str, document: str) -> str:
    if urlsplit(address).scheme:
        return address
    return urljoin(f"{document}.html", address)


def _name(document: str) -> str:
    return document.replace("/", "-")
