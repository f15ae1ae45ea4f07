"""What commands say of a dataset before they work on it."""

import json

import numpy as np
import pytest

from rfdetr.cli import main
from rfdetr.cli.arguments import shown
from rfdetr.data.checks import before_training, compare_splits, summary_line
from rfdetr.data.report import DataReport, Problem
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.files import write_json


def test_scenes_have_nothing_to_report(capsys):
    train, val = scenes("digits", "train", size=3), scenes("digits", "val", size=3)
    before_training(train, val)
    assert summary_line(train) == "" and capsys.readouterr().out == ""


def test_splits_of_other_classes_are_refused_by_name():
    problems = compare_splits(scenes("digits", "train", size=2), scenes("parity", "val", size=2))
    assert problems and all(problem.stops for problem in problems)
    with pytest.raises(UserError, match=r"of the class '(even|odd)', which train does not have"):
        before_training(scenes("digits", "train", size=2), scenes("parity", "val", size=2))


def test_a_report_is_structured_and_survives_a_file(tmp_path):
    report = DataReport("mine/train")
    for number in range(7):
        report.add("box without area (left out)", f"annotation {number}", file="a.json", annotation=number)
    report.put(Problem("unreadable picture", "b.jpg is damaged", "b.jpg", stops=True))
    report.note("16-bit pictures (divided by 257)", 3)
    assert report.total == 8 and [p.file for p in report.stopping] == ["b.jpg"]
    text = str(report)
    assert "8 problem(s)" in text and "annotation 4; ..." in text and "16-bit" in text
    write_json(tmp_path / "report.json", report.to_dict())
    again = DataReport.from_json((tmp_path / "report.json").read_text())
    assert again == report and DataReport.from_json("[]") == DataReport()
    both = DataReport()
    both.merge(report)
    both.merge(again)
    assert both.total == 16 and len(both.problems["unreadable picture"]) == 2


def test_undefined_numbers_are_null_in_files_and_words_on_the_screen(tmp_path):
    values = {"AP": float("nan"), "deep": [{"x": (np.float32("inf"), np.float64(0.5))}], "n": np.int64(3)}
    write_json(tmp_path / "n.json", {**values, "array": np.array([1.0, np.nan]), "path": tmp_path})

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "n.json").read_text(), parse_constant=refuse)
    assert found == {
        "AP": None,
        "deep": [{"x": [None, 0.5]}],
        "n": 3,
        "array": [1.0, None],
        "path": str(tmp_path),
    }
    assert shown(float("nan")) == shown(None) == "undefined: no objects" and shown(0.25, 2) == "0.25"


def test_letters_that_a_console_cannot_show_are_replaced(capsys, monkeypatch):
    import io
    import sys

    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "stderr", console)
    assert main(["data", "check", "/no/such/猫"]) == 2
    console.flush()
    assert b"/no/such/?" in console.buffer.getvalue()
