"""The interleaved run of many detectors, and the study of INT8, as far as a copy without the extras can."""

import shutil

import pandas as pd
import pytest
from lab_fixtures import exported

from rfdetr.benchmark import int8_layers
from rfdetr.cli import main
from rfdetr.errors import UserError
from rfdetr.experiments import ch06_int8, ch06_int8_losses, ch07_contest, kept_studies
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.files import write_json
from rfdetr.peers import timing

SMALL = {"samples": 3, "pause_ms": 0.0, "seconds": 0.05, "warm_seconds": 0.05}
MADE = {"commit": "0" * 40, "device": "cpu", "machine": "a machine", "versions": {"torch": "2"}}


def done(plan, part, value):
    """Keep a part as a process of the study would."""
    record = {"part": part, "code": plan.code, "seconds": 1.0, "made": MADE, "value": value}
    write_json(plan.path(part), record)


def test_a_run_that_is_cut_off_keeps_whole_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(ch07_contest, "_has_openvino", lambda: False)
    study = ch07_contest.study(("one", "two"), rounds=2, **SMALL)
    store = Store(tmp_path / "store")
    plan = study.task(0, store).plan
    names = list(plan.parts)
    assert names[:2] == ["file-one", "file-two"] and len(names) == 2 + 2 * 2 * 2
    # One sweep after the other, every model in each of them.
    assert ["-".join(name.split("-")[1:3]) for name in names[2::2]] == ["0-1", "0-2", "1-1", "1-2"]
    with pytest.raises(UserError, match=r"no sweep is complete yet \(0 of the 2"):
        study.keep(tmp_path / "kept", 0, store)
    for model, masks in (("one", False), ("two", True)):
        place = plan.place(f"file-{model}", "cpu")
        place.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported(masks).file, place.file(".onnx"))
        done(plan, f"file-{model}", {"sha256": "x", "int8_sha256": "", "file_mb": 1.0})
    first = ch07_contest.time_part(plan.place(names[2], "cpu"), **plan.parts[names[2]].options)
    assert [row["protocol"] for row in first] == ["buffered", "sustained"]
    assert all(row["median_ms"] > 0 and row["memory_mb"] > 0 for row in first)
    assert {(row["precision"], row["threads"]) for row in first} == {("fp32", 1)}
    for name in names[2:5]:
        given = {key: plan.parts[name].options[key] for key in ("model", "round", "threads")}
        done(plan, name, [{**row, **given} for row in first])
    study.keep(tmp_path / "kept", 0, store)
    result = kept.load("kept", tmp_path)
    # Half of the sweep on two threads was done: it is not taken.
    assert result.record["sweeps"] == [{"round": 0, "threads": 1, "models": 2}]
    assert set(result.tables["rows"]["threads"]) == {1} and result.record["models"] == ["one", "two"]
    assert (result.tables["models"].groupby("model").size() == 2).all()
    assert result.record["missing"] == names[5:]
    said = ch07_contest.scope(result.record)
    assert "2 of 2 models" in said and "2 rounds each on 1 and 2 threads" in said and "not known" in said


def test_a_short_run_has_twenty_models_of_every_family():
    names = (*ch07_contest.OURS, *ch07_contest.PEERS)
    needed = ch07_contest.core(names)
    assert set(needed) == set(ch07_contest.CORE) <= set(names) and len(needed) >= 20
    for seed in ("0-0-1", "0-1-2"):
        order = ch07_contest._order(names, seed)
        assert sorted(order) == sorted(names) and set(order[: len(needed)]) == set(needed)
    assert ch07_contest._order(names, "a") != ch07_contest._order(names, "b")


def test_a_cell_that_cannot_run_is_one_line(tmp_path):
    cell = timing.Cell(str(tmp_path / "no.onnx"), "onnxruntime", "fp32", 1)
    with pytest.raises(UserError, match=r"no\.onnx in onnxruntime fp32: there is no file"):
        timing.timed_apart(cell)


def test_summary_is_over_rounds():
    base = {"model": "a", "runtime": "r", "asked": "fp32", "threads": 1, "protocol": "buffered"}
    base |= {"precision": "fp32", "memory_mb": 1.0, "load_s": 1.0}
    times = (10.0, 12.0, 11.0)
    rows = [{**base, "round": i, "median_ms": ms, "noisy": i == 1} for i, ms in enumerate(times)]
    (row,) = ch07_contest.summary(pd.DataFrame(rows)).to_dict("records")
    assert (row["median_ms"], row["low_ms"], row["high_ms"], row["rounds"]) == (11, 10, 12, 3)
    assert row["spread"] == pytest.approx(2 / 11) and row["noisy"] == pytest.approx(1 / 3)


def test_the_command_knows_both_and_times_one_at_a_time(capsys, tmp_path):
    assert {"int8", "peers-bench", "full-search"} <= set(kept_studies.STUDIES)
    assert main(["results", "nothing", "--out", str(tmp_path)]) == 2
    assert "peers-bench" in capsys.readouterr().err
    assert main(["results", "peers-bench", "--jobs", "2", "--out", str(tmp_path)]) == 2
    assert "--jobs 1" in capsys.readouterr().err


def test_parts_of_a_network_under_int8():
    found = int8_layers.parts_of(exported())
    assert {"embedding", "block 1: attention", "block 1: MLP", "decoder layer 1", "heads"} <= set(found)
    nodes = [name for names in found.values() for name in names]
    assert all(found.values()) and len(nodes) == len(set(nodes))
    assert int8_layers.part_of("projector.blocks.0/Conv") == "projector"


def test_int8_study_of_sub_networks(tmp_path):
    archs = ch06_int8.archs()
    assert len(archs) >= 12 and archs["patch_size-6"].patch_size == 6
    assert len({arch.id for arch in archs.values()}) == len(archs)
    store = Store(tmp_path)
    plan = ch06_int8.STUDY.task(0, store).plan
    with pytest.raises(UserError, match="no sub-network is done"):
        ch06_int8.STUDY.keep(tmp_path / "int8", 0, store)
    loss = {"reference": 0.001, "patch_size-6": 0.004, "patch_size-12": 0.0, "queries-10": 0.002}
    noise = [0.01, -0.01] * 5
    for name, value in loss.items():
        cells = {p: {"AP": 0.8, "built": p, "samples": noise} for p in ch06_int8.PRECISIONS}
        cells["int8"] |= {"AP": 0.8 - value, "samples": [x - value for x in noise]}
        if name == "queries-10":  # its loss changes from scene to scene
            cells["int8"]["samples"] = [-x for x in noise]
        done(plan, f"net-{name}", {"arch": archs[name].id, **cells})
    rows = [{"part": "heads", "nodes": 2, "error": 0.01}]
    done(plan, "layers-reference", {"arch": archs["reference"].id, "int8": 0.02, "parts": rows})
    ch06_int8.STUDY.keep(tmp_path / "int8", 0, store)
    result = kept.load("int8", tmp_path)
    knobs = ch06_int8_losses.by_knob(result.tables["networks"]).set_index("knob")
    assert knobs.networks["patch_size"] == 3 and knobs.range["patch_size"] == pytest.approx(0.004)
    assert knobs.most["queries"] == pytest.approx(0.002) and "windows" not in knobs.index
    assert knobs.resolved["patch_size"] == 2 and knobs.resolved["queries"] == 0
    found = ch06_int8_losses.losses(result.tables["networks"]).set_index("name")
    # Paired on the same scenes: what both lose alike is no uncertainty.
    assert found["more low"]["patch_size-6"] == pytest.approx(0.003)
    assert found["int8 low"]["queries-10"] < 0 < found["int8 high"]["queries-10"]
    text = ch06_int8_losses.said(result.tables["networks"])
    assert "4 sub-networks lose from +0.0000 to +0.0040" in text and "patch_size-6 (+0.0030)" in text
    assert "queries-10" not in text
    assert result.tables["layers"].error[0] == 0.01 and "kept" not in result.tables
