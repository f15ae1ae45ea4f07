"""INT8 on a network of the miniature benchmark, where OpenVINO and NNCF are installed."""

import pytest
from lab_fixtures import network

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra openvino is not installed")

from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.experiments import ch06_int8_domains as study
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.ch09_data import pack
from rfdetr.files import write_json


def test_a_set_is_tested_at_every_precision(tmp_path):
    place = Place(tmp_path / study.NAME, "set-x", "cpu")
    with pytest.raises(UserError, match="first-tune-x"):
        study.set_part(place, "x", "tuned", "data")
    source = tmp_path / study.BENCHMARK
    source.mkdir()
    kept.write_network(network(), source / "tuned.safetensors")
    write_json(source / "tuned.json", {"value": {"chosen": {"N": "r48-p8-w1-d2-q8"}}})
    pack([scenes("digits", split, size=4, canvas=48) for split in ("train", "test")], source / "data.zip")
    (row,) = study.set_part(place, "x", "tuned", "data")
    assert (row["domain"], row["target"], row["pictures"], row["calibration"]) == ("x", "N", 4, 4)
    assert row["int8 built"] == "int8" and all(0 <= row[f"{p} AP"] <= 1 for p in study.PRECISIONS)
    assert row["int8 loss"] == row["fp32 AP"] - row["int8 AP"] and row["int8 low"] <= row["int8 high"]
