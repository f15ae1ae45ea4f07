"""The audit: complete, counted, printed by the command and on its page; places of the paper are covered."""

import csv
import io
import json
import re

import pytest

from rfdetr.book import audit as audits
from rfdetr.book import audit_page
from rfdetr.cli import main
from rfdetr.errors import UserError
from rfdetr.experiments.base.artifacts import Store
from rfdetr.paper import tables
from rfdetr.paper.audit import needs
from rfdetr.paper.verdicts import WORDS, claims, kind_of


@pytest.fixture(scope="module")
def empty():
    """The audit of a copy in which no chapter was run."""
    return audits.audit({})


def test_every_claim_has_a_verdict_a_remark_a_need_or_a_chapter(empty):
    assert [c.id for c in empty.claims] == [c["id"] for c in tables.document("claims")]
    for claim in empty.claims:
        assert claim.state in ("verdict", "remark", "needs", "not run"), claim.id
        assert kind_of(claim.verdict) in {*WORDS, "needs more", ""}, claim.id
        assert claim.why or claim.verdict.startswith("needs "), claim.id
        assert claim.state != "not run" or claim.command == f"python -m rfdetr book --chapter {claim.chapter}"
    # Arithmetic decides without any run, and with the chapters at least 120 are decided.
    decided = sum(c.state == "verdict" for c in empty.claims)
    assert decided >= 95 and decided + sum(c.state == "not run" for c in empty.claims) >= 120
    assert set(needs()) <= set(claims())


def test_every_disagreement_is_recomputed_or_said_to_be_words(empty):
    states = [entry.state for entry in empty.entries]
    assert len(states) == 77 and states.count("words only") <= 5 and "not confirmed" not in states
    assert all(entry.shown for entry in empty.entries if entry.state == "confirmed")


def test_findings_of_chapters_take_their_place():
    row = {"kind": "verdict", "claim": "C013", "statement": "s", "verdict": "not resolved"}
    row |= {"numbers": {"a": [0.1, None]}, "why": "w"}
    check = {**row, "kind": "check", "claim": "", "verdict": "passed"}
    found = audits.audit({"04_supernet_training": [row, check]})
    claim = audits.one(found, "c013")
    assert (claim.state, claim.verdict, claim.chapter) == ("verdict", "not resolved", "04_supernet_training")
    # Decided by the tables, placed in the chapter that shows it; what nobody decides has no place.
    assert audits.one(found, "C021").chapter == "07_coco_detection"
    assert audits.one(found, "C001").chapter == ""
    assert sum(found.counts().values()) == len(claims())


def test_page_lists_everything_once_with_anchors_and_filters(empty):
    html = audit_page.page(empty)
    for entry in (*empty.claims, *empty.entries):
        assert html.count(f'<tr id="{entry.id}"') == 1
    shown = set(re.findall(r'data-verdict="([^"]+)"', html))
    offered = set(re.findall(r'<option value="([^"]+)">', html))
    assert shown <= offered and {claim.kind for claim in empty.claims} <= offered
    links = re.findall(r'href="#(I\d+)"', html)
    assert links and set(links) <= {entry.id for entry in empty.entries}


def test_command_line_formats(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RFDETR_STORE", str(tmp_path))
    assert main(["audit", "--claim", "C021"]) == 0
    one = capsys.readouterr().out
    assert "disagrees with itself" in one and "D-FINE M, D-FINE L, D-FINE XL" in one
    assert main(["audit", "--claim", "i17", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "confirmed"
    assert main(["audit", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 178 + 77 and {row["type"] for row in rows} == {"claim", "inconsistency"}
    assert main(["audit", "--format", "csv"]) == 0
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in read] == [row["id"] for row in rows]
    assert main(["audit"]) == 0
    text = capsys.readouterr().out
    assert "C001  needs COCO" in text and "words only of the inconsistencies" in text
    for arguments, words in (
        (["--claim", "C999"], "no claim or inconsistency 'C999'; claims are C001 to C178"),
        (["--format", "xml"], "unknown format 'xml'; choose one of table, json, csv"),
        (["--profile", "huge"], "unknown profile 'huge'"),
        (["--claim", "C001", "--format", "csv"], "--format csv is for all of them"),
    ):
        assert main(["audit", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_runs_of_this_copy_come_before_the_kept_ones(monkeypatch, tmp_path):
    def write(path, word):
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "kind": "verdict",
            "claim": "C030",
            "statement": "s",
            "verdict": word,
            "numbers": {},
            "why": "",
        }
        path.write_text(json.dumps({"findings": [row]}))

    kept, store = tmp_path / "results", Store(tmp_path / "store")
    monkeypatch.setattr(audits, "results_root", lambda: kept)
    write(kept / audits.KEPT / "A_recipe.json", "contradicted")
    assert audits.saved_findings("cpu", store)["A_recipe"][0]["verdict"] == "contradicted"
    assert audits.saved_findings("gpu", store) == {}
    write(store.results("cpu", "A_recipe") / "findings.json", "consistent")
    assert audits.saved_findings("cpu", store)["A_recipe"][0]["verdict"] == "consistent"
    with pytest.raises(UserError, match="has not been executed with the profile cpu"):
        audits.collect(tmp_path / "out", store)
    for chapter in audits.CHAPTERS:
        write(store.results("cpu", chapter) / "findings.json", "consistent")
    audits.collect(tmp_path / "out", store)
    assert len(list((tmp_path / "out").glob("*.json"))) == len(audits.CHAPTERS)
