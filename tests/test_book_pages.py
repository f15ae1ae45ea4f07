"""Parts of the pages that are made without executing anything: origins, sources, API, light files."""

import html
import json
import re

import pytest

from rfdetr.book import source_pages
from rfdetr.book.api_pages import api_pages, markdown
from rfdetr.book.audit_page import sections
from rfdetr.book.cache import Project
from rfdetr.book.lighter import drop_source_maps, keep_used_icons, light_notebook
from rfdetr.book.origins import Origins, line
from rfdetr.book.pages import readable_tables
from rfdetr.book.source_pages import modules, source_files
from rfdetr.book.sphinx_pages import chapter_number, description
from rfdetr.sources import package_root

COMPUTE = '''"""Computes."""

LIMIT = 3
"""How many there are at most."""


def rows(count: int, *, seed: int = 0) -> list[int]:
    """Rows < 10 of the `table`.

    count   how many; [N] of them
    seed    of the draw, which
            goes on

    ValueError for none.
    """
    return [1] * count


class Maker:
    """Makes."""

    size: int = 1

    def make(self) -> str:
        """It."""
        return f"{self.size!r:>3}"


def _hidden() -> None:
    return None
'''


@pytest.fixture
def known(tmp_path):
    package = tmp_path / "lib"
    (package / "search").mkdir(parents=True)
    (package / "__init__.py").write_text("from lib.compute import rows\n")
    (package / "compute.py").write_text(COMPUTE)
    (package / "kept.py").write_text("def load(name):\n    return name\n")
    (package / "search/__init__.py").write_text("")
    (package / "search/draw.py").write_text(
        "from lib.compute import rows\n\n\ndef bars(x):\n    return rows(x)\n"
    )
    return modules(Project(tmp_path, "lib"))


def origins_of(known, *cells):
    reader = Origins(known)
    return [origin for cell in cells for origin in reader.shown(cell)]


def test_an_output_names_the_files_and_functions_of_its_very_call(known):
    cells = (
        "from lib import compute, kept\nfrom lib.search import draw as figures",
        "from lib import rows as other",
        "df = compute.rows(3)\nmore = other(2)\nfull = kept.load('long-run')",
        "table(df)\nchapter.save(df, 'few')\nshow(figures.bars(more), alt='a')\ntable(full.tables['x'])",
    )
    # The file is known only where it is saved, in the cell that shows it or before.
    first, second, third = origins_of(known, *cells)
    assert list(first.code) == [("lib.compute", "rows")] and not first.kept
    assert list(second.code) == [("lib.search.draw", "bars"), ("lib.compute", "rows")] and not second.saved
    assert third.kept == {"long-run"} and list(third.code) == [("lib.kept", "load")]


def test_what_a_function_of_the_chapter_shows_is_told_from_what_stands_beside_its_call(known):
    cells = (
        "from lib import compute, kept\ndef both(x):\n    table(x)\n    show(x)",
        "df = compute.rows(3)\nchapter.save(df, 'few')\nfull = kept.load('long-run')",
        "few = df[:1]\nchapter.save(few, 'few')\ntable(few)\nboth(full)",
    )
    first, *others = origins_of(known, *cells)
    assert first.saved == {"few"} and not first.kept
    assert [(origin.kept, origin.saved) for origin in others] == [({"long-run"}, set())] * 2


def test_a_value_made_from_a_saved_one_names_its_file(known):
    cells = (
        "from lib import compute\ndf = compute.rows(3)\nchapter.save(df, 'all')",
        "best = df[df > 1]\nbest['x'] = 1",
        "if True:\n    for _ in range(2):\n        table(best, caption='b')",
        "broken (",
    )
    (origin,) = origins_of(known, *cells)
    assert origin.saved == {"all"}
    files = {"data/05_search/all.csv", "data/05_search/other.csv"}
    text = line(origin, "05_search", files, known, "../")
    assert text == (
        '<p class="origin">data: <a href="../data/05_search/all.csv">all.csv</a> · code:'
        ' <a href="../source/lib/compute.html#rows">compute.rows</a></p>'
    )
    # A file that this copy does not have is not named; the chapter's others are.
    other = line(origin, "05_search", files - {"data/05_search/all.csv"}, known, "../")
    assert '"../book/data.html#05_search"' in other
    assert "data:" not in line(origin, "06_other", files, known, "../")


def test_source_pages_show_every_character_and_have_the_anchors(known):
    pages = source_files(known)
    assert set(pages) == {module.page for module in known.values()}
    for module in known.values():
        text = module.code
        assert html.unescape(re.sub(r"</?[ib][^>]*>", "", text)) == module.text
        assert set(re.findall(r'<b id="([^"]+)"', text)) == set(module.definitions)
    assert 'href="../../../source/lib/compute.html"' in pages["source/lib/search/draw.html"].decode()
    assert set(known["lib.compute"].definitions) == {"rows", "Maker", "Maker.make", "_hidden"}


def test_every_file_of_this_package_becomes_a_page():
    for module in modules(Project(package_root())).values():
        assert html.unescape(re.sub(r"</?[ib][^>]*>", "", module.code)) == module.text, module.name


def test_pages_of_modules_that_did_not_change_are_kept(tmp_path, monkeypatch):
    project, read = Project(tmp_path, "lib"), []
    make = source_pages.highlighted
    monkeypatch.setattr(source_pages, "highlighted", lambda *given: read.append(given[0]) or make(*given))
    (tmp_path / "build").mkdir()
    (tmp_path / "lib").mkdir()
    texts = {"__init__": "", "one": "from lib import two\n", "two": "x = 1\n"}
    for name, text in texts.items():
        (tmp_path / f"lib/{name}.py").write_text(text)

    def build():
        read.clear()
        found = modules(project)
        return list(read), {name: page.decode() for name, page in source_files(found).items()}, found

    first, pages, _ = build()
    assert sorted(first) == sorted(texts.values()) and build() == ([], pages, modules(project))
    (tmp_path / "lib/two.py").write_text("x = 2\n")
    again, changed, found = build()
    assert again == ["x = 2\n"] and found["lib.two"].text == "x = 2\n"
    assert {name for name in pages if pages[name] != changed[name]} == {"source/lib/two.html"}
    # A module that comes or goes may change which names are modules: all pages are made again.
    (tmp_path / "lib/two.py").unlink()
    assert len(build()[0]) == 2 and build()[2]["lib.one"].imports == ("lib",)
    (tmp_path / "build/source-pages.json").write_text("[")
    assert len(build()[0]) == 2


def test_api_pages_have_what_is_public(known):
    pages = api_pages(known, "lib")
    assert set(pages) == {"book/api", "book/api-search"}
    text = pages["book/api"]
    assert "rows(count: int, *, seed: int = 0) -> list[int]" in text and "_hidden" not in text
    assert "### `LIMIT`\n\nHow many there are at most." in text
    assert "- `count`: how many; \\[N\\] of them\n- `seed`: of the draw, which goes on\n" in text
    assert "Rows \\< 10 of the `table`." in text
    assert 'href="../source/lib/compute.html#Maker.make"' in text and "class Maker(size: int = 1)" in text


def test_docstrings_mean_nothing_else_in_markdown():
    assert markdown("A*b* $x$ {y} `a_b` #1 {{z}}") == "A\\*b\\* \\$x\\$ \\{y\\} `a_b` \\#1 \\{\\{z\\}\\}\n"
    assert markdown("See:\n\n    x = 1\n      y\n") == "See:\n\n```text\nx = 1\n  y\n```\n"


def test_tables_get_scopes_and_wide_ones_a_class():
    narrow = "<table><thead><tr><th>a</th></tr></thead><tbody><tr><th>b</th></tr></tbody></table>"
    assert readable_tables(narrow) == narrow.replace("<th>a", '<th scope="col">a').replace(
        "<th>b", '<th scope="row">b'
    )
    wide = f"<table><thead><tr>{'<th>a</th>' * 8}</tr></thead><tbody></tbody></table>"
    assert readable_tables(f"<p>{wide}</p>").startswith('<p><div class="wide-table"><table>')


def test_tables_too_wide_for_a_phone_become_cards():
    """By what does not break: long words and numbers, not by the length of a sentence."""

    def made(heads, row, style=' class="dataframe"'):
        heads, row = (f"<th>{'</th><th>'.join(heads)}</th>", f"<td>{'</td><td>'.join(row)}</td>")
        table = f"<table{style}><thead><tr>{heads}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
        return readable_tables(table)

    names = ["a network", 'AP &amp; "more"', "95 % from", "to", "operations", "milliseconds", "resolved"]
    found = made(names, ["r104-p8-w1-d3-q30", "0.123", "0.111", "1,234,567", "123.456", "1.5", "yes"])
    assert '<table class="cards dataframe">' in found and found.count("data-label=") == 7
    assert '<td data-label="AP &amp; &quot;more&quot;">0.123</td>' in found
    assert "cards" not in made(["word", "why"], ["one", "a sentence of many words, which break " * 9])
    assert "cards" in made(["word", "why"], ["one", "w" * 60], "")
    assert "cards" not in made(names, ["1"] * 7, ' class="dataframe findings"')  # cards already
    assert "cards" not in made(names, ["1"] * 6)  # a table of another form is left as it is
    empty = f"<table><thead><tr>{'<th>something</th>' * 9}</tr></thead><tbody></tbody></table>"
    assert "cards" not in readable_tables(empty)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (
            "Abstract; Section 1; Section 2 (v2); Table 12 caption (v1, v2)",
            "Abstract|Section 1|Section 2|Table 12",
        ),
        ("Sections 1 and 4 (v1, v2)", "Section 1|Section 4"),
        ("Section 1 (v1, v2); Tables 3, 13", "Section 1|Table 3|Table 13"),
        ("Figure 7 (v1 5) caption", "Figure 7"),
        ("Appendix A, Table 7 (v1, v2)", "Appendix A|Table 7"),
        ("Section 4, limitations (v1, v2)", "Section 4"),
    ],
)
def test_sections_of_a_claim(where, named):
    assert sections(where) == named.split("|")


def test_chapter_numbers_and_descriptions():
    names = ("notebooks/05_search", "notebooks/12_configurations", "notebooks/B_query_drop", "book/about")
    assert [chapter_number(name) for name in names] == ["5", "12", "B", ""]
    assert description("short  text\nhere") == "short text here"
    cut = description("word, " * 60)
    assert len(cut) <= 160 and cut.endswith("word…")


def test_a_light_site_loses_maps_unused_icons_and_large_outputs(tmp_path):
    scripts = tmp_path / "_static/scripts"
    scripts.mkdir(parents=True)
    (scripts / "a.js").write_text("run();\n//# sourceMappingURL=a.js.map\n")
    (scripts / "a.js.map").write_text("{}")
    (scripts / "fontawesome.js").write_text(
        'x={bars:[448,512,["navicon"],"f0c9","M0 96"],"arrow-up":[1,2,[],"f062","M1"],'
        'moon:[1,2,[],"f186",["a","b"]]}'
    )
    (tmp_path / "index.html").write_text('<i class="fa-solid fa-navicon"></i><i class="fa-arrow-up"></i>')
    drop_source_maps(tmp_path / "_static")
    keep_used_icons(tmp_path)
    assert [path.name for path in scripts.iterdir() if path.suffix == ".map"] == []
    assert (scripts / "a.js").read_text() == "run();\n"
    assert (scripts / "fontawesome.js").read_text() == (
        'x={bars:[448,512,["navicon"],"f0c9","M0 96"],"arrow-up":[1,2,[],"f062","M1"],'
        'moon:[1,2,[],"f186",""]}'
    )
    chart = {"data": {"text/html": "1" * 200_000, "text/plain": "a chart"}}
    link = {"data": {"text/html": ['<p class="origin">', "data</p>"]}}
    picture = {"data": {"image/png": "1" * 200_000}}
    lines = {"output_type": "stream", "text": "said"}
    light = light_notebook({"cells": [{"source": "x"}, {"outputs": [chart, link, picture, lines]}]})
    assert light["cells"][1]["outputs"] == [{"data": {"text/plain": "a chart"}}, picture, lines]
    assert json.dumps(light)
