"""`search` and `select` as a user has them: defaults from the checkpoint, latencies kept, choices checked."""

import json
import shutil
import sys

import fake_tensorrt
import numpy as np
import pandas as pd
import pytest
from fake_cuda import Device
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.arch import Arch, SearchSpace
from rfdetr.cli import main
from rfdetr.networks import open_network
from rfdetr.search import spending, timing
from rfdetr.search.space import TokenSpace, default_space

GRID = ["--tokens", "4", "--patch-sizes", "12,16", "--windows", "1", "--queries", "4,12"]


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """Folder of a finished search of two encoder settings and twelve sub-networks."""
    folder = tmp_path_factory.mktemp("search")
    assert main(["search", str(run), "--out", str(folder), *GRID, "--measured", "2"]) == 0
    return folder


def copied(found, tmp_path):
    shutil.copytree(found, tmp_path / "search")
    return tmp_path / "search"


def test_the_table_has_a_time_for_all_and_the_front_is_measured(found):
    table, best = (pd.read_csv(found / f"{name}.csv") for name in ("table", "front"))
    assert len(table) == 12 and table["arch"].is_unique
    assert [Arch.parse(name).to_dict() for name in table["arch"]] == table[list(Arch.KNOBS)].to_dict(
        "records"
    )
    assert (table["time_ms"] > 0).all() and (table["predicted_ms"] > 0).all()
    measured = table["latency_ms"].notna()
    assert 2 <= measured.sum() < 12
    assert (table.loc[measured, "time_ms"] == table.loc[measured, "latency_ms"]).all()
    assert (table.loc[~measured, "time_ms"] == table.loc[~measured, "predicted_ms"]).all()
    assert best["latency_ms"].notna().all() and best["time_ms"].is_monotonic_increasing
    assert (best["AP_low"] <= best["AP"]).all() and (best["AP"] <= best["AP_high"]).all()
    # 64 px with patch 16 was trained, 48 px with patch 12 was not.
    assert (table["trained"] == (table["patch_size"] == 16)).all()
    record = json.loads((found / "search.json").read_text())
    assert record["metric"] == "AP" and record["provenance"]["commit"]
    readme = (found / "README.md").read_text()
    assert "| onnx/ | " in readme and " kB |" in readme and "latency.csv" in readme


def test_latencies_are_kept_until_they_are_asked_for_again(run, found, tmp_path, monkeypatch, capsys):
    folder = copied(found, tmp_path)
    before = (folder / "front.csv").read_text()
    real, asked = timing.measure_latency, []
    monkeypatch.setattr(timing, "measure_latency", lambda *a, **k: asked.append(a) or real(*a, **k))
    command = ["search", str(run), "--out", str(folder), *GRID, "--measured", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert not asked and (folder / "front.csv").read_text() == before
    assert "kept from an earlier run; --time-again repeats them" in out
    # Another number of threads is another measurement, and the first ones stay.
    assert main([*command, "--threads", "2"]) == 0 and asked
    rows = pd.read_csv(folder / "latency.csv")
    assert set(rows["threads"]) == {1, 2}
    asked.clear()
    assert main([*command, "--time-again"]) == 0 and asked
    again = pd.read_csv(folder / "latency.csv")
    assert len(again[again["threads"] == 1]) >= 2 and set(again["threads"]) == {1, 2}


def test_the_printed_names_are_those_that_other_commands_take(run, found, tmp_path, capsys):
    folder = copied(found, tmp_path)
    assert main(["search", str(run), "--out", str(folder), *GRID, "--measured", "2"]) == 0
    out = capsys.readouterr().out
    for name in pd.read_csv(folder / "front.csv")["arch"]:
        assert name in out
    assert "grid: tokens a side 4, patch sizes 12 16" in out and "sub-networks were timed" in out
    assert main(["select", str(folder), "--max-latency-ms", "1000"]) == 0
    name = capsys.readouterr().out.split(":")[0]
    assert main(["evaluate", str(run), "--arch", name, "--split", "val"]) == 0


def test_select_exports_the_searched_network_and_no_other(run, found, tmp_path, capsys):
    path = tmp_path / "chosen.onnx"
    given = ["select", str(found), "--max-latency-ms", "1000", "--out", str(path)]
    assert main([*given, "--weights", str(run)]) == 0
    chosen = capsys.readouterr().out.split(":")[0]
    assert path.is_file() and chosen in pd.read_csv(found / "table.csv")["arch"].tolist()
    other = tmp_path / "other"
    assert main(["train", "--data", "digits", "--profile", "smoke", "--out", str(other), "--steps", "1"]) == 0
    path.unlink()
    assert main([*given, "--weights", str(other)]) == 2
    assert "another network" in capsys.readouterr().err and not path.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--max-latency-ms", "--target-latency-ms", "--like", "none of them"]),
        (["--max-latency-ms", "1", "--like", "d-fine-s"], ["--max-latency-ms and --like"]),
        (["--like", "d-fine-s"], ["T4 with TensorRT", "--device"]),
        (["--max-latency-ms", "1e-9"], ["nearest"]),
        (["--max-latency-ms", "9", "--metric", "mask_AP"], ["mask_AP"]),
    ],
)
def test_select_says_what_is_wrong_in_its_own_options(found, options, words, capsys):
    assert main(["select", str(found), *options]) == 2
    message = capsys.readouterr().err
    assert "max_latency_ms" not in message
    for word in words:
        assert word in message


def test_printed_latencies_are_compared_where_the_user_says_so(found, tmp_path, capsys):
    folder = copied(found, tmp_path)
    table = pd.read_csv(folder / "table.csv")
    table["time_ms"] = 3.5  # about the printed one of D-FINE S
    table.to_csv(folder / "table.csv", index=False)
    device = table["device"].iloc[0]
    assert main(["select", str(folder), "--like", "d-fine-s", "--device", device, "--tolerance", "0.2"]) == 0
    table.assign(device="NVIDIA Tesla T4", runtime="tensorrt 10.4").to_csv(folder / "table.csv", index=False)
    assert main(["select", str(folder), "--like", "d-fine-s", "--tolerance", "0.2"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--storage", "mysql://user@host/db"], "of no kind that is known here"),
        (["--worker", "--storage", "mysql://user@host/db"], "of no kind that is known here"),
        (["--runtime", "tensorrt"], "[tensorrt]"),
        (["--runtime", "coreml"], "unknown runtime 'coreml'"),
        (["--precision", "bf16"], "bf16 runs in openvino"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--measured", "0"], "--measured must be at least 1"),
        (["--tokens", "8", "--resolutions", "64"], "--tokens or --resolutions"),
        (["--budget", "2"], "at most 1"),
        (["--budget", "0.5", "--sampler", "magic"], "unknown sampler"),
        (["--budget", "0.5", "--dry-run"], "leave out --dry-run"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(options, words, capsys, monkeypatch):
    module = sys.modules["rfdetr.cli.search"]  # the package's own `search` is the command
    monkeypatch.setattr(module, "open_network", lambda *a: pytest.fail("opened the network"))
    assert main(["search", "runs/none", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_metric_that_will_not_be_there_is_refused_before_the_work(run, tmp_path, capsys):
    assert main(["search", str(run), "--out", str(tmp_path), "--metric", "mask_AP"]) == 2
    assert "no masks" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_dry_run_explains_its_units(run, capsys):
    assert main(["search", str(run), "--dry-run", *GRID]) == 0
    out = capsys.readouterr().out
    assert "2 encoder settings (the unit of work" in out and "12 sub-networks" in out and "timed" in out


def test_engines_of_the_search_are_evaluated_as_they_are_timed(run, tmp_path, monkeypatch, capsys):
    fake_tensorrt.install(monkeypatch, Device())
    grid = [*GRID[:2], "--patch-sizes", "16", "--windows", "1", "--queries", "12", "--decoder-layers", "0,2"]
    command = ["search", str(run), "--out", str(tmp_path), *grid, "--runtime", "tensorrt", "--measured", "2"]
    assert main(command) == 0
    best = pd.read_csv(tmp_path / "front.csv")
    assert (best["runtime"].str.startswith("tensorrt") & (best["precision"] == "fp16")).all()
    assert (best["latency_ms"] == 4.0).all() and best["deployed_AP"].notna().all()
    assert "deployed AP" in capsys.readouterr().out
    assert main(["select", str(tmp_path), "--max-latency-ms", "4"]) == 0


def test_a_budget_counts_everything_and_looks_at_the_whole_range(run, tmp_path, capsys):
    grid = ["--tokens", "4,6,8", "--patch-sizes", "12,16", "--windows", "1", "--queries", "12"]
    command = ["search", str(run), "--out", str(tmp_path), *grid, "--decoder-layers", "0,2"]
    assert main([*command, "--budget", "0.001", "--measured", "3", "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert "for accuracies" in out and "were not looked at" in out
    table = pd.read_csv(tmp_path / "table.csv")
    settings = table[["resolution", "patch_size"]].drop_duplicates()
    assert 3 <= len(settings) < 6
    record = json.loads((tmp_path / "search.json").read_text())
    assert record["shares"]["timed"] == 3 and 0 < record["spent"] < 1
    kept = json.loads((tmp_path / "budget.json").read_text())
    assert main([*command, "--budget", "0.001", "--measured", "3", "--profile", "smoke"]) == 0
    assert json.loads((tmp_path / "budget.json").read_text()) == kept
    assert pd.read_csv(tmp_path / "table.csv")["AP"].equals(table["AP"])


@given(
    st.floats(1e-3, 1),
    st.floats(0.01, 1e5),
    st.floats(0.01, 100),
    st.integers(1, 200),
    st.integers(1, 12),
)
def test_shares_stay_within_the_budget(budget, exact, each, measured, fewest):
    fewest = min(fewest, measured)
    found = spending.shares(budget, exact, each, measured, fewest)
    assert fewest <= found.timed <= measured and 0 <= found.accuracies <= 1
    spent = found.timed * each + found.accuracies * exact
    assert spent <= max(budget * (exact + measured * each), fewest * each) * (1 + 1e-9)


@given(st.sets(st.integers(0, 17)), st.integers(0, 100))
def test_every_part_of_the_range_has_a_setting(seen, seed):
    space = TokenSpace.of((4, 6, 8), (8, 12, 16), (1, 2), (0, 1), (4,))
    triples = space.triples()
    done = {triples[i] for i in seen if i < len(triples)}
    rng = np.random.default_rng(seed)
    cost = pd.Series(rng.random(len(triples)), index=pd.MultiIndex.from_tuples(triples, names=Arch.KNOBS[:3]))

    def latency(points):
        return (points["resolution"] / points["patch_size"]) ** 2

    added = spending.spread(spending.levels(space, latency), cost, done)
    assert not done & set(added) and len(added) <= 3
    sides = {r // p for r, p, _ in done | set(added)}
    # Thirds of the logarithm: 4 tokens a side alone, 6 alone, 8 alone.
    assert sides == {4, 6, 8}


def test_the_default_grid_is_what_the_network_was_trained_with(run):
    model = open_network(run)
    space = default_space(model)
    assert {r // p for r, p, _ in space.triples()} <= {4, 6, 8, 12}
    assert set(space.sides) == {r // p for r, p, _ in model.origin.space.triples()}
    assert space.patch_sizes == (8, 10, 12, 14, 16) and space.windows == model.origin.space.windows
    assert space.decoder_layers == tuple(range(model.config.decoder_layers + 1))
    assert space.queries[-1] == model.config.queries
    for arch in (space.largest, space.smallest, *space.distinct()):
        model.config.check(arch)


@given(
    st.sets(st.integers(1, 20), min_size=1, max_size=3),
    st.sets(st.integers(4, 20), min_size=1, max_size=3),
    st.sets(st.integers(1, 4), min_size=1, max_size=2),
)
def test_a_token_grid_is_a_search_space(sides, patches, windows):
    if min(sides) < max(windows):
        with pytest.raises(ValueError, match="fewer than"):
            TokenSpace.of(tuple(sides), tuple(patches), tuple(windows), (0, 2), (5, 9))
        return
    space = TokenSpace.of(tuple(sides), tuple(patches), tuple(windows), (0, 2), (5, 9))
    archs = space.archs()
    assert len(archs) == len(space) == len(list(space.nominal()))
    assert {a.encoder for a in archs} == set(space.triples())
    assert all(a.grid <= max(sides) and a.grid % a.windows == 0 for a in archs)
    assert space.largest in archs and space.smallest in archs and isinstance(space, SearchSpace)
