"""The pages as a browser shows them: a small site without problems, and each kind of problem, once planted.

The whole book is looked at in the same way by `python -m rfdetr book --check`.
"""

import re
import shutil

import pytest

from rfdetr.book.browser import find_browser, running
from rfdetr.book.cache import Project
from rfdetr.book.check import FIRST_LOAD, NARROW, WIDE, check_page, check_site, chosen, dead_links, reported
from rfdetr.book.filter_tables import filter_data, filtered_table, filters
from rfdetr.book.printed import combined, print_book
from rfdetr.errors import UserError
from rfdetr.sources import package_root

try:
    find_browser()
    NO_BROWSER = ""
except UserError as error:
    NO_BROWSER = str(error)
needs_browser = pytest.mark.skipif(bool(NO_BROWSER), reason=NO_BROWSER)

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A page</title><meta name="description" content="A page.">
<link rel="icon" href="favicon.svg"><link rel="stylesheet" href="book.css"><script src="filters.js"></script>
</head><body style="color: #222; background: #fff"><article class="bd-article"><h1>A page</h1>"""
TAIL = "</article></body></html>"
TABLE = filtered_table(
    "claims",
    ("claim", "verdict"),
    [
        f"<tr {filter_data(verdict=word, section=place)}><td>C{n}</td><td>{word}</td></tr>"
        for n, (word, place) in enumerate([("consistent", "Table 1|Section 2"), ("contradicted", "Table 1")])
    ],
)
CHOICES = {"verdict": ["consistent", "contradicted"], "section": ["Table 1", "Section 2"]}
GOOD = (
    filters("claims", CHOICES)
    + TABLE
    + '<h2 id="end">End</h2><p>Text. <a href="#end">To the end</a></p><p><label>patch'
    ' <input type="range" min="0" max="3" oninput="out.textContent = this.value"></label>'
    ' <output id="out">1</output></p>'
)
WIDE_TABLE = (
    '<div style="overflow-x: auto"><table><tr>'
    + "".join(f'<th scope="col" style="min-width: 10rem">column {n}</th>' for n in range(12))
    + "</tr></table></div>"
)
LONG_CODE = (
    "<details><summary>code</summary>"
    f'<div class="cell_input"><pre style="overflow-x: auto">{"x" * 300}</pre></div></details>'
)
PROBLEMS = {
    "<script>throw new Error('broken')</script>": "an error in a script: Error: broken",
    "<script>console.error('no', 'good')</script>": "the console says: no good",
    '<img alt="" src="http://127.0.0.1:9/x.png">': "asks another host: http://127.0.0.1:9/x.png",
    '<div style="width: 2000px">long</div>': "px too wide",
    WIDE_TABLE: "a table's last column is hidden",
    LONG_CODE: "a code cell's lines are hidden",
    '<img src="favicon.svg">': "an image without alternative text",
    '<img alt="there" src="gone.png">': "an image that is not there",
    "<button></button>": "a control without a name",
    "<select><option>1</option></select>": "a field without a label",
    "<h4>Too deep</h4>": "a heading skips a level",
    "<h1>Another</h1>": "not exactly one first heading",
    "<table><tr><th>head</th></tr></table>": "head without scope",
    '<div role="img" aria-label="chart"><button>menu</button></div>': "a control inside another or inside an",
    '<p id="a">1</p><p id="a">2</p>': "two elements with the identifier a",
    '<p style="color: #999">faint</p>': "contrast 2.8",
    '<label>knob <input type="range"></label><output>same</output>': "a slider moves nothing",
}


@pytest.fixture
def site(tmp_path):
    for name in ("favicon.svg", "book.css", "filters.js"):
        shutil.copyfile(package_root() / "assets" / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def tab():
    with running() as browser:
        yield browser.tab()


def problems(tab, site, body):
    (site / "page.html").write_text(HEAD + body + TAIL)
    return check_page(tab, site, "page.html")


@needs_browser
def test_a_page_without_problems(tab, site):
    assert problems(tab, site, GOOD) == []


@needs_browser
@pytest.mark.parametrize(("body", "said"), PROBLEMS.items(), ids=[said[:30] for said in PROBLEMS.values()])
def test_each_kind_of_problem_is_found_and_no_other(tab, site, body, said):
    found = problems(tab, site, GOOD + body)
    assert any(said in problem for problem in found), found


@needs_browser
def test_a_page_that_is_heavy_to_open_is_a_problem_unless_it_has_an_explorer(tab, site):
    (site / "large.js").write_text("//" + "x" * FIRST_LOAD)
    heavy = GOOD + '<script src="large.js"></script><script src="large.js"></script>'
    loads: dict[str, int] = {}
    (site / "page.html").write_text(HEAD + heavy + TAIL)
    assert check_page(tab, site, "page.html", loads) == ["opening it loads 4.0 MB, more than 4"]
    parts = ("page.html", "large.js", "favicon.svg", "book.css", "filters.js")
    assert loads["page.html"] in (
        sum((site / part).stat().st_size for part in parts if part != leave) for leave in ("", "favicon.svg")
    )
    assert problems(tab, site, heavy + '<div class="nas-explorer"></div>') == []


@needs_browser
def test_a_filter_that_does_nothing_is_a_problem(tab, site):
    (site / "filters.js").write_text("")
    assert any("the filter verdict = consistent" in problem for problem in problems(tab, site, GOOD))


@needs_browser
def test_dark_mode_and_narrow_windows_are_looked_at(tab, site):
    dark = "<style>@media (prefers-color-scheme: dark) { p.x { color: #ddd } }</style><p class='x'>gone</p>"
    narrow = '<div style="width: 500px">wide</div>'
    found = problems(tab, site, GOOD + dark + narrow)
    assert len(found) == 4
    assert all("dark)" in problem or f"({NARROW} px" in problem for problem in found), found
    assert not any(f"({WIDE} px, light)" in problem for problem in found)


@needs_browser
def test_a_link_to_a_row_shows_it_whatever_was_chosen(tab, site):
    (site / "page.html").write_text(HEAD + GOOD.replace("<tr data", '<tr id="C9" data', 1) + TAIL)
    tab.show(WIDE)
    tab.open((site / "page.html").as_uri())
    rows = "[...document.querySelectorAll('tbody tr:not([hidden])')].map(r => r.cells[0].innerText).join()"
    choose = "const f = document.querySelector('[data-filter=verdict]'); f.value = 'contradicted';"
    tab.run(f"{{ {choose} f.dispatchEvent(new Event('input', {{bubbles: true}})); }}")
    assert tab.run(rows) == "C1"
    tab.run("location.hash = '#C9'; new Promise(done => setTimeout(done, 50))")
    assert tab.run(rows) == "C0,C1"


@needs_browser
def test_a_whole_site_is_checked_with_its_links(site):
    (site / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=page.html" />')
    (site / "page.html").write_text(
        HEAD + GOOD + '<a href="other.html#no">a</a> <a href="no.html">b</a>' + TAIL
    )
    (site / "other.html").write_text(HEAD + GOOD + TAIL)
    assert check_site(site) == [
        "page.html: a link to nothing: no.html",
        "page.html: a link to an anchor that is not there: other.html#no",
    ]


def test_pages_become_one_document_whose_links_work_inside_it(site):
    link = '<a href="b.html#end">b</a> <a href="../data/x/y.csv">y</a> <a href="https://arxiv.org">p</a>'
    hidden = '<details class="hide"><pre>long code</pre></details>'
    pages = {
        "book/a": HEAD + f'{link}{hidden}<img alt="" src="../_images/c.png">' + TAIL,
        "book/b": HEAD + '<h2 id="end">End</h2><a href="#end">up</a>' + TAIL,
    }
    whole = combined(pages)
    assert '<a href="#book-b--end">b</a>' in whole and 'id="book-b--end"' in whole
    assert '<a href="#book-b--end">up</a>' in whole and 'href="https://arxiv.org"' in whole
    assert 'src="_images/c.png"' in whole and "long code" not in whole
    assert whole.count('href="book/book.css"') == 1
    (site / "print.html").write_text(whole)
    texts = {"print.html": re.sub("<link[^>]*>", "", whole)}
    assert list(dead_links(site, texts)) == ["print.html: a link to nothing: _images/c.png"]


@needs_browser
def test_a_book_is_printed(site, capsys):
    (site / "book").mkdir()
    (site / "book/_toc.yml").write_text("format: jb-book\nroot: book/a\nchapters:\n  - file: book/b\n")
    for name in ("a", "b"):
        (site / f"book/{name}.md").write_text("# A page\n")
        (site / f"book/{name}.html").write_text(HEAD + GOOD + TAIL)
    printed = print_book(Project(site), site)
    assert printed == site / "build/book.pdf" and printed.read_bytes().startswith(b"%PDF")
    assert "book.pdf: 3 pages" in capsys.readouterr().out  # a cover and two pages
    assert not (site / "print.html").exists()
    with pytest.raises(UserError, match="no pages"):
        print_book(Project(site), site / "elsewhere")


def test_links_of_code_are_no_links(tmp_path):
    text = '<pre>f\'<a href="{x}">\'</pre><script>"<a href=\'y\'>"</script> <a href="https://arxiv.org">p</a>'
    assert list(dead_links(tmp_path, {"page.html": text})) == []


def test_few_pages_of_source_code_are_opened():
    names = ["book/a.html", *(f"source/m{n}.html" for n in range(9)), "_static/x.html", "notebooks/b.html"]
    assert chosen(names, 2) == ["book/a.html", "source/m0.html", "source/m1.html", "notebooks/b.html"]


def test_files_and_data_are_no_other_host():
    asked = ["file:///a.css", "data:image/png;base64,aa", "blob:null/1", "https://cdn.example/x.js"]
    events = [{"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}} for url in asked]
    assert list(reported(events)) == ["asks another host: https://cdn.example/x.js"]


def test_no_browser_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/chromium")
    with pytest.raises(UserError, match="CHROMIUM=/no/such/chromium is no program; install it"):
        find_browser()
