"""The study of INT8 itself, where OpenVINO and NNCF are installed."""

import pytest
from lab_fixtures import network

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra openvino is not installed")

from rfdetr.benchmark import int8_layers
from rfdetr.experiments import ch06_int8
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Place


def test_a_sub_network_is_tested_at_every_precision_and_its_parts_one_by_one(tmp_path, monkeypatch):
    (tmp_path / "full-search").mkdir()
    kept.write_network(network(), tmp_path / "full-search" / "network.safetensors")
    monkeypatch.setattr(kept, "results_root", lambda: tmp_path)
    for name in ("CALIBRATION", "RANKING", "SCENES", "PROBES"):
        monkeypatch.setattr(ch06_int8, name, 4)
    place = Place(tmp_path / "parts", "net-x", "cpu")
    value = ch06_int8.network_part(place, "smoke", "", "r48-p8-w1-d2-q8")
    assert value["fp32"]["built"] == "fp32" and value["int8"]["built"] == "int8"
    assert len({value[p]["sha256"] for p in ("fp32", "int8")}) == 2
    assert all(0 <= value[p]["AP"] <= 1 for p in ch06_int8.PRECISIONS)
    # Two of the parts are enough to test how a part is kept: each costs a quantisation.
    whole = int8_layers.parts_of
    chosen = ("block 1: MLP", "heads")
    monkeypatch.setattr(int8_layers, "parts_of", lambda file: {part: whole(file)[part] for part in chosen})
    layers = ch06_int8.layers_part(place, "smoke", "", "r48-p8-w1-d2-q8")
    assert {row["part"] for row in layers["parts"]} == set(chosen) and layers["int8"] > 0
    assert all(row["error"] != layers["int8"] for row in layers["parts"])
    errors = [row["error"] for row in layers["parts"]]
    assert errors == sorted(errors)
    # Within the limit with all in INT8: nothing is ranked, and the file is tested on other scenes.
    monkeypatch.setattr(ch06_int8, "LIMIT", 1.0)
    found = ch06_int8.kept_part(place, "smoke", "", "r48-p8-w1-d2-q8")
    assert [count for count, _ in found["tries"]] == [0] and found["reached"] and not found["kept"]
    assert 0 <= found["test_int8"] <= 1
