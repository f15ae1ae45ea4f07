"""The book's prose: no result typed by hand, no plural of one, every place of the paper has its place."""

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
_NUMBER = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)[\s\u00a0-]*(?:{_UNITS})")
SETTINGS = {"95", "100", "5", "1", "10", "200"}
"""Levels, tolerances and pauses: choices of this project, no results."""


def prose():
    """(place, text) of every piece of prose that is neither generated nor an exercise with its solution."""
    for path in sorted((ROOT / "book").glob("*.md")):
        yield path.name, path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown" and "```{exercise}" not in text:
                yield f"{path.name}, {cell['id']}", text


def printed_numbers():
    """Every number in the paper's data files."""
    texts = [p.read_text("utf-8") for p in tables.FOLDER.rglob("*") if p.suffix in (".csv", ".yaml")]
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", "\n".join(texts)))


def test_no_result_is_typed_by_hand():
    """A number with a unit in prose is the paper's or a setting; results are printed by code."""
    known = printed_numbers() | SETTINGS
    typed = [
        (place, found[0])
        for place, text in prose()
        for found in _NUMBER.finditer(text)
        if found[1].replace(",", "") not in known
    ]
    assert not typed


def test_numbers_typed_into_a_sentence_are_found():
    assert [m[1] for m in _NUMBER.finditer("AP rises by 0.0317 AP in 12.5 ms, or 3,5 %")] == [
        "0.0317",
        "12.5",
        "3,5",
    ]


@pytest.mark.parametrize(
    "wrong", ["1 layers", "1 windows", "1 cores", "dearer", "mind the log", "M printed", " ape"]
)
def test_words_that_readers_stumbled_over_are_gone(wrong):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            assert not re.search(rf"(?<![\w\d]){re.escape(wrong)}\b", text), (path.name, cell["id"])


def test_every_place_of_the_paper_has_a_chapter_or_a_reason():
    found = coverage.places(Project(ROOT))
    assert len(found) == len(tables.numbering())
    chapters = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for place in found:
        assert place.chapter in chapters or (not place.chapter and place.missing), place
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


def test_a_t4_trains_for_minutes_and_holds_its_largest_network():
    """Chapters 04, 05 and B on a T4 stay within two hours, and far below the paper's 120 x 120 tokens."""
    t4, gpu = PROFILES["t4"], PROFILES["gpu"]
    hours, longer = (coverage.t4_minutes(coverage.training_operations(p)) / 60 for p in (t4, gpu))
    assert hours < 2 < longer and coverage.t4_minutes(coverage.search_operations(t4)) < 60
    assert t4.recipe.training.largest.tokens <= 1600
    assert t4.recipe.training.position_grid <= t4.recipe.model["position_grid"]
