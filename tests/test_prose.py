"""The book's prose: no result typed by hand, no plural of one, every place of the paper has its place."""

import ast
import json
import re
from dataclasses import replace

import pytest

from rfdetr.book import coverage
from rfdetr.book.cache import Project
from rfdetr.errors import UserError
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.files import write_json
from rfdetr.paper import tables
from rfdetr.sources import package_root

ROOT = package_root()
_UNITS = r"AP\b|mAP\b|ms\b|GFLOPs?\b|TFLOPs?\b|%|million\b|M\b"
_BEFORE = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)[\s\u00a0-]*(?:{_UNITS})")
"""12.5 ms"""
_AFTER = re.compile(
    r"(?:\bm?AP\d*|R²|τ|latency|GFLOPs?|accuracy)(?:[\s:=≈]+[a-z]+){0,4}[\s:=≈]+(\d[\d,]*\.\d+)"
)
"""AP of 0.512, AP rises to 0.512"""
_FACTOR = re.compile(r"(?<![\w.,])(\d[\d,]*\.\d+) times\b")
_SUM = re.compile(r"[×+/−] [\d,.]+[²³]? = ?$")
"""Arithmetic that ends in its result, in front of which this is."""
SETTINGS = {"95", "99", "90", "100", "5", "1", "10", "200", "400", "800", "45", "0.25"}
"""Levels, tolerances, budgets and pauses: choices of this project, no results."""
_WITH_TEXT = ("experiments", "plots", "book", "paper")
"""Parts of the package whose texts are shown on pages."""


def prose():
    """(place, text) of every piece of prose, exercises and their solutions included."""
    for path in sorted((ROOT / "book").glob("*.md")):
        yield path.name, path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield f"{path.name}, {cell['id']}", "".join(cell["source"])


def texts_in_code():
    """(place, text) of every literal in the notebooks' code and in the modules behind the pages."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield from literals(f"{path.name}, {cell['id']}", "".join(cell["source"]))
    for part in _WITH_TEXT:
        for path in sorted((ROOT / "rfdetr" / part).rglob("*.py")):
            yield from literals(path.name, path.read_text("utf-8"))


def literals(place, code):
    """(place, text) of the texts of a piece of code, the fixed parts of f-strings and docstrings included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield place, node.value


def typed(text, known):
    """Numbers beside a unit or a measure that neither the paper nor a setting has."""
    for pattern in (_BEFORE, _AFTER, _FACTOR):
        for found in pattern.finditer(text):
            if found[1].replace(",", "") not in known and not _SUM.search(text[: found.start(1)]):
                yield found[0]


def printed_numbers():
    """Every number in the paper's data files."""
    texts = [p.read_text("utf-8") for p in tables.FOLDER.rglob("*") if p.suffix in (".csv", ".yaml")]
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", "\n".join(texts)))


@pytest.mark.parametrize("pieces", [prose, texts_in_code])
def test_no_result_is_typed_by_hand(pieces):
    """A number with a unit in prose is the paper's or a setting; results are printed by code."""
    known = printed_numbers() | SETTINGS
    assert not [(place, number) for place, text in pieces() for number in typed(text, known)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.0317 mAP more, 12.5 ms or 3,5 %", ["0.0317 mAP", "12.5 ms", "3,5 %"]),
        ("it reaches an AP of 0.5123", ["AP of 0.5123"]),
        ("AP then rises to 0.5123, 3.7 times as much", ["AP then rises to 0.5123", "3.7 times"]),
        ("with AP 0.5123, R² = 0.9876 and Kendall's τ = 0.87", ["AP 0.5123", "R² = 0.9876", "τ = 0.87"]),
        ("the latency is about 4.51", ["latency is about 4.51"]),
        ("a tolerance of 5 %; 4 × 1,296² × 384 = 2.58 GFLOPs; Table 12", []),
    ],
)
def test_numbers_typed_into_a_sentence_are_found(text, found):
    assert list(typed(text, {"5", "95"})) == found
    if found:
        code = f'"""A docstring."""\nsay(f"{{x}} and {text}")\n'
        assert [n for _, t in literals("", code) for n in typed(t, {"5", "95"})] == found


@pytest.mark.parametrize(
    "wrong", ["1 layers", "1 windows", "1 cores", "dearer", "mind the log", "M printed", " ape"]
)
def test_words_that_readers_stumbled_over_are_gone(wrong):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            assert not re.search(rf"(?<![\w\d]){re.escape(wrong)}\b", text), (path.name, cell["id"])


def named(chapter):
    """(kind, number or letter) of everything that the head of a chapter says to be about."""
    head = json.loads((ROOT / "notebooks" / f"{chapter}.ipynb").read_text("utf-8"))["cells"][0]["source"]
    return {
        (kind.lower().replace("appendices", "appendix"), name)
        for kind, names in re.findall(
            r"(Table|Figure|Appendix|Appendices)s? ((?:(?:, | and )?\b(?:\d+|[A-M])\b)+)", "".join(head)
        )
        for name in re.findall(r"\d+|[A-M]", names)
    }


def test_every_place_of_the_paper_has_a_chapter_or_a_reason():
    found = coverage.places(Project(ROOT))
    assert len(found) == len(tables.numbering())
    chapters = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for place in found:
        assert place.chapter in chapters or (not place.chapter and place.missing), place
        name = place.name.removeprefix("v1 ")
        assert not place.chapter or (place.kind, name) in named(place.chapter), place
    shown = coverage.places_table(found, Project(ROOT))
    assert shown.count("\n| ") == len(found) + 1
    first, *rest = found
    listed = coverage.missing_list([replace(first, chapter="", missing="a key"), *rest])
    assert f"- {first.kind} {first.name}: needs a key" in listed and "table 2" not in listed
    assert "has its place" in coverage.missing_list(rest) or any(not p.chapter for p in rest)
    with pytest.raises(UserError, match=r"says nothing about table 1, 'Standardizing"):
        list(coverage._places({}))


def test_markers_are_filled():
    text = coverage.filled("{{missing}}\n{{places}}\n{{trained}}\n{{took}}", Project(ROOT))
    assert "{{" not in text and "| `t4` |" in text
    assert coverage.filled("no marker", Project(ROOT)) == "no marker"


def test_minutes_and_memory_are_those_of_this_copy(tmp_path):
    project = Project(tmp_path)
    assert "no measured times" in coverage.took_table(project)
    record = {"seconds": 90.0, "peak_mb": 1500, "machine": "two cores"}
    failed = {"seconds": 3.0, "error": "broken"}
    write_json(
        project.build / "records.json",
        {"smoke": {"01_one": record}, "cpu": {"01_one": {**record, "seconds": 660.0}, "02_two": failed}},
    )
    rows = coverage.took_table(project).splitlines()
    assert rows[0] == "| Chapter | `smoke` | `cpu` | `t4`, estimated |"
    assert rows[-1] == "Measured on two cores."
    assert rows[2] == "| 01 one | 1.5 min, 1.5 GB | 11.0 min, 1.5 GB | as `cpu` |" and len(rows) == 5


def test_what_a_profile_does_is_said_of_every_chapter():
    """Each chapter is in one row of the table, and the row of those that do the same in all is right."""
    page = (ROOT / "book" / "run-one-chapter.md").read_text("utf-8")
    table = page.partition("| Chapters | `smoke` |")[2].partition("\n\n")[0]
    short = {"questions": "Q", "exercises": "T", "Search your own data": "S"}
    rows = {}
    for line in table.splitlines()[2:]:
        chapters, smoke = line.strip("| ").split(" | ")[:2]
        for name in chapters.split(", "):
            assert rows.setdefault(short.get(name, name), smoke) is smoke, name
    notebooks = {path.stem.partition("_")[0]: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(rows) == set(notebooks)
    for name, path in notebooks.items():
        code = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
        texts = ["".join(c["source"]) for c in code if "parameters" not in c["metadata"].get("tags", ())]
        asks = any(re.search(r"chapter\.profile|profile [!=]= ", text) for text in texts)
        assert asks != (rows[name] == "the same in every profile"), name


def test_a_t4_trains_for_minutes_and_holds_its_largest_network():
    """Chapters 04, 05 and B on a T4 stay within two hours, and far below the paper's 120 x 120 tokens."""
    t4, gpu = PROFILES["t4"], PROFILES["gpu"]
    hours, longer = (coverage.t4_minutes(coverage.training_operations(p)) / 60 for p in (t4, gpu))
    assert hours < 2 < longer and coverage.t4_minutes(coverage.search_operations(t4)) < 60
    assert t4.recipe.training.largest.tokens <= 1600
    assert t4.recipe.training.position_grid <= t4.recipe.model["position_grid"]
