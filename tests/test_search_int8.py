"""A search for INT8, where OpenVINO and NNCF are installed, to the end."""

import pandas as pd
import pytest
from lab_fixtures import network

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra openvino is not installed")

from rfdetr.arch import SearchSpace
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.data.scenes import scenes
from rfdetr.export.artifact import load_artifact
from rfdetr.search import run
from rfdetr.search.timing import timed_file


@pytest.fixture(scope="module")
def data():
    return {split: scenes("digits", split, size=size) for split, size in (("train", 4), ("val", 6))}


def search(data, folder, depths, **options):
    given = {"runtime": "openvino", "precision": "int8", "images": data["train"], "measured": 2}
    space = SearchSpace((48,), (8,), (1,), depths, (8,))
    return run.search(network(), data["val"], space, folder, progress=False, **given, **options)


def test_the_front_is_of_quantised_files_and_each_can_be_checked(data, tmp_path):
    found = search(data, tmp_path, (2,), max_loss=None)
    best = found.front
    assert best["precision"].isin(["int8", "mixed"]).all() and "deployed_AP_low" in best
    for _, row in best.iterrows():
        file = timed_file(tmp_path, row["arch"])
        assert file.name.endswith("-int8.xml")
        with load_runtime("openvino", load_artifact(file), "int8") as runtime:
            assert evaluate_artifact(runtime, data["val"]).ap == pytest.approx(row["deployed_AP"], abs=1e-9)
    assert any("of the very file that was timed" in note for note in found.notes)


def test_a_loss_beyond_the_limit_keeps_parts_and_times_the_new_file(data, tmp_path, monkeypatch):
    from rfdetr.benchmark import int8_layers

    whole = int8_layers.parts_of
    # Each part costs a quantisation: two are enough to see how they are kept.
    monkeypatch.setattr(int8_layers, "parts_of", lambda file: dict(list(whole(file).items())[-2:]))
    first = search(data, tmp_path, (2,), max_loss=None)
    before = pd.read_csv(tmp_path / "latency.csv").set_index("arch")["sha256"]
    # No file reaches a loss of less than -1: every contender is made anew.
    again = search(data, tmp_path, (2,), max_loss=-1.0)
    after = pd.read_csv(tmp_path / "latency.csv").set_index("arch")["sha256"]
    evaluated = list(again.table.loc[again.table["accuracy_of"] == "timed file", "arch"])
    assert set(first.front["arch"]) <= set(evaluated)
    files = {arch: load_artifact(timed_file(tmp_path, arch)) for arch in evaluated}
    for arch, file in files.items():
        assert file.sha256 == after[arch]
        # It was made anew (NNCF gives no two equal files), and the latency is its own.
        assert file.sha256 != before[arch] and "parts_kept" in file.metadata
    kept = [arch for arch, file in files.items() if file.metadata["parts_kept"]]
    assert [n.partition(":")[0] for n in again.notes if "in floating point stay" in n] == kept
    # A third call finds all of it.
    third = search(data, tmp_path, (2,), max_loss=-1.0)
    assert third.front["deployed_AP"].equals(again.front["deployed_AP"])
    assert [n for n in third.notes if "floating point" in n] == [n for n in again.notes if "floating" in n]
    assert (pd.read_csv(tmp_path / "latency.csv").set_index("arch")["sha256"] == after).all()
