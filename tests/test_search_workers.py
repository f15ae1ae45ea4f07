"""The exact search by workers gives the table of the exact grid, and says beforehand what it will cost."""

import pytest
import torch
from conftest import TINY, scramble

from rfdetr import RFDETR
from rfdetr.arch import SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.search import grid, study

SPACE = SearchSpace((64, 72), (8, 12), (1, 2), (0, 2), (4, 10))


@pytest.fixture(scope="module")
def data():
    return scenes("parity", "val", size=6, canvas=64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return scramble(RFDETR(**TINY | {"num_classes": 2}).double()).eval()


@pytest.mark.parametrize("kind", ["sqlite:///{}/s.db", "journal://{}/s.log"])
def test_workers_in_turn_give_the_grid(model, data, tmp_path, kind):
    storage = kind.format(tmp_path)
    part = study.run_worker(model, data, SPACE, storage, limit=3)
    assert 0 < len(part) < len(SPACE)
    seen = []
    table = study.run_worker(model, data, SPACE, storage, on_progress=seen.append)
    exact = grid.evaluate_grid(model, data, SPACE)
    assert table.equals(exact)
    assert seen[-1].done == seen[-1].total == len(SPACE.triples())
    assert table.attrs["seconds"]["encoder"] > 0
    # All done: a worker that joins late leaves with the table at once.
    late = []
    assert study.run_worker(model, data, SPACE, storage, on_progress=late.append).equals(exact)
    assert not late


def test_other_weights_are_another_search(model, data, monkeypatch):
    name = study.search_name(grid.GridEvaluator(model, data), SPACE)
    assert name == study.search_name(grid.GridEvaluator(model, data), SPACE)
    torch.manual_seed(1)
    other = RFDETR(**TINY | {"num_classes": 2}).double()
    assert name != study.search_name(grid.GridEvaluator(other, data), SPACE)
    assert name != study.search_name(grid.GridEvaluator(model, data.subset(3)), SPACE)
    # So is one by an evaluator that gives other numbers.
    monkeypatch.setattr(grid, "EVALUATOR_VERSION", grid.EVALUATOR_VERSION + 1)
    assert name != study.search_name(grid.GridEvaluator(model, data), SPACE)


def test_dry_run(model, data):
    plan = study.dry_run(model, data, SPACE, workers=2).iloc[0]
    assert (plan["units"], plan["points"], plan["images"]) == (len(SPACE.triples()), len(SPACE), 6)
    assert plan["one_by_one_pflops"] > 2 * plan["shared_pflops"] > 0
    assert plan["one_by_one_hours"] > plan["hours"] > 0


def test_choice_is_exported(model, data, tmp_path, monkeypatch):
    """The chosen row's knobs reach the exporter, whose own work is tested with it."""
    from rfdetr.export import onnx as export

    asked = []
    monkeypatch.setattr(export, "export_onnx", lambda *given: asked.append(given) or "artifact")
    table = grid.evaluate_grid(model, data, SPACE)
    table["latency_ms"] = range(1, len(table) + 1)
    assert study.export_selected(model, table, tmp_path / "chosen.onnx", max_latency_ms=1) == "artifact"
    assert asked == [(model, SPACE.archs()[0], tmp_path / "chosen.onnx")]
