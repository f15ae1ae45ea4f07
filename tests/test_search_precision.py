"""A search for another precision than float32: the front of what is timed, by its own accuracy."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.benchmark import int8_layers
from rfdetr.benchmark.runtimes import check_executes
from rfdetr.cli import main
from rfdetr.errors import UserError
from rfdetr.search import deployed
from rfdetr.search.pareto import front_mask

GRID = ["--tokens", "4", "--patch-sizes", "12,16", "--windows", "1", "--queries", "12"]


def test_the_front_is_that_of_what_is_timed_and_select_follows_it(run, tmp_path, capsys):
    out = tmp_path / "bf16"
    command = ["search", str(run), "--out", str(out), *GRID, "--decoder-layers", "0,2", "--measured", "2"]
    assert main([*command, "--runtime", "torch", "--precision", "bf16"]) == 0
    said = capsys.readouterr().out
    assert "deployed AP" in said and "fp32 AP" in said and "of the very file that was timed" in said
    table, best = (pd.read_csv(out / f"{name}.csv") for name in ("table", "front"))
    evaluated = table["deployed_AP"].notna()
    assert (table["accuracy_of"] == np.where(evaluated, "timed file", "float32 network")).all()
    assert table.loc[evaluated, "latency_ms"].notna().all() and best["deployed_AP"].notna().all()
    assert (best["precision"] == "bf16").all() and best["deployed_AP"].is_monotonic_increasing
    # Found again without evaluating anything: as fast as reading, and the same.
    kept = {path.name: path.read_text() for path in (out / "deployed").iterdir()}
    assert main([*command, "--runtime", "torch", "--precision", "bf16"]) == 0
    assert {path.name: path.read_text() for path in (out / "deployed").iterdir()} == kept
    assert pd.read_csv(out / "front.csv")["deployed_AP"].equals(best["deployed_AP"])
    capsys.readouterr()
    # A row that was not evaluated as it runs cannot win by its float32 accuracy.
    table.loc[~evaluated, "AP"] = 0.99
    table.assign(deployed_AP=np.where(evaluated, 0.25, np.nan)).to_csv(out / "table.csv", index=False)
    chosen = tmp_path / "chosen.onnx"
    options = ["--max-latency-ms", "1e6", "--weights", str(run), "--out", str(chosen)]
    assert main(["select", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "deployed_AP 0.250" in said and "this file is float32" in said and chosen.is_file()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), min_size=1, max_size=30))
def test_contenders_are_the_front_and_what_lies_little_below(points):
    names = [f"r{32 + 16 * n}-p16-w1-d1-q4" for n in range(len(points))]
    ms, ap = np.array([p[0] for p in points]) + 1.0, np.array([p[1] for p in points]) / 1000
    table = pd.DataFrame({"arch": names, "latency_ms": ms, "AP": ap})
    found = {arch.id for arch in deployed.contenders(table, "AP")}
    on_front = {name for name, mask in zip(names, front_mask(ap, ms), strict=True) if mask}
    assert on_front <= found
    best = {name: ap[ms <= m].max() for name, m in zip(names, ms, strict=True)}
    for name, value in zip(names, ap, strict=True):
        if best[name] - value <= deployed.SLACK - 1e-9:
            assert name in found
    far = [
        name
        for name, value, m in zip(names, ap, ms, strict=True)
        if ap[ms < m].max(initial=-1) - value > 0.0051
    ]
    assert not found & set(far)


class Timed:
    """The timings of a search whose files were changed after they were timed."""

    def __init__(self, table, folder):
        self.rows = table[["arch"]].assign(sha256="old")
        self.folder, self.asked = folder, []
        self.protocol = types.SimpleNamespace(runtime="torch", check=lambda: "bf16", images=None)

    def measure_again(self, archs):
        self.asked += [arch.id for arch in archs]

    def onto(self, table, seed):
        return table.assign(latency_ms=table["latency_ms"] / 2, time_ms=table["time_ms"] / 2)


def test_another_order_under_the_precision_is_another_front(tmp_path, monkeypatch):
    names = [f"r{side}-p16-w1-d1-q4" for side in (32, 48, 64, 80)]
    table = pd.DataFrame({"arch": names, "AP": [0.3, 0.299, 0.5, 0.2], "latency_ms": [1.0, 2.0, 3.0, 4.0]})
    table = table.assign(time_ms=table["latency_ms"])
    lower = dict(zip(names, [0.29, 0.298, 0.28, 0.9], strict=True))

    def evaluated(model, archs, *_):
        assert names[3] not in {arch.id for arch in archs}  # far below the front in float32
        return {a: deployed.Deployed({"AP": lower[a.id]}, "bf16", "new", None) for a in archs}

    monkeypatch.setattr(deployed, "deployed_accuracy", evaluated)
    timings = Timed(table, tmp_path)
    table, best, _, _ = deployed.deployed_front(None, table, timings, None, "AP")
    # What float32 puts on the front is dominated; what it leaves out leads.
    assert list(best["arch"]) == names[:2] and timings.asked == names[:3]
    assert list(best["time_ms"]) == [0.5, 1.0] and np.isnan(table["deployed_AP"].iloc[3])


@pytest.mark.parametrize("command", [["search", "runs/none"], ["nas", "--data", "digits"]])
def test_a_runtime_that_is_missing_is_said_before_anything_is_loaded(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--runtime", "openvino", "--precision", "bf16"]) == 2
    assert "[openvino]" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("precision", "able", "words"),
    [
        ("bf16", ["FP32", "INT8"], "does not compute in BF16 .*choose --precision fp32, int8$"),
        ("int8+bf16", ["FP32", "INT8"], "does not compute in BF16"),
        ("fp16", ["FP32", "INT8", "BF16"], "choose --precision fp32, bf16, int8, int8.bf16$"),
        ("int8", ["FP32"], "does not compute in INT8"),
    ],
)
def test_a_processor_without_the_type_is_said(precision, able, words, monkeypatch):
    module = types.SimpleNamespace(Core=lambda: types.SimpleNamespace(get_property=lambda *_: able))
    monkeypatch.setitem(sys.modules, "openvino", module)
    monkeypatch.setattr("rfdetr.export.int8.load_nncf", lambda: None)
    with pytest.raises(UserError, match=words):
        check_executes("openvino", precision)
    assert check_executes("openvino", "fp32") == "fp32"


@given(st.integers(2, 12), st.data())
def test_parts_are_kept_until_the_loss_is_within_the_limit(count, data):
    enough = data.draw(st.integers(0, count + 1))  # so many parts have to stay in floating point
    ranking = int8_layers.Ranking(1.0, tuple((f"part {i}", (f"node {i}",), i / 10) for i in range(count)))
    made, ranked = [], []

    def make(keep, about):
        made.append((tuple(keep), about["parts_kept"]))
        return len(keep)

    def accuracy(file, precision):
        return 0.8 if precision == "fp32" or file >= enough else 0.7 + file / 1000

    rank = lambda: ranked.append(1) or ranking  # noqa: E731
    found = int8_layers.select_parts("fp32", rank, make, accuracy, limit=0.005)
    assert len(ranked) == (enough > 0)  # nothing is ranked where nothing is lost
    assert found.reached == (enough < count) and found.file == len(found.kept)
    assert list(found.kept) == [f"part {i}" for i in range(found.file)]  # those that lose most
    if found.reached:
        assert enough <= found.file < max(2, 2 * enough)
    else:
        assert found.file == count - 1  # never all: that were no INT8
    assert len(found.tries) <= 6 and made[-1][1] == ", ".join(found.kept)


def test_a_limit_below_zero_is_refused(capsys):
    assert main(["search", "runs/none", "--max-loss", "0"]) == 2
    assert "--max-loss is a part of AP above 0" in capsys.readouterr().err
