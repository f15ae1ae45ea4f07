"""Few timings, chosen where they tell most, on a machine whose true latency is known."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_latency_model import SPACE, machine

from rfdetr import RFDETR
from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.experiments import ch05_latency
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.search.latency_model import LatencyModel, measurement_plan
from rfdetr.search.latency_plan import measure_actively, next_measurements

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "latency_model.py"


class Machine:
    """Times what it is asked to, once each, and answers with all that it has timed."""

    def __init__(self, noise, seed):
        self.noise, self.seed, self.asked = noise, seed, []

    def __call__(self, archs):
        assert not set(archs) & set(self.asked)
        self.asked += archs
        frame = pd.DataFrame([a.to_dict() for a in self.asked])
        return frame.assign(latency_ms=machine(self.asked, self.noise, self.seed))


def test_two_per_cent_are_enough_and_cost_few_exports():
    count = round(0.02 * len(SPACE))
    reports, graphs = [], []
    for seed in range(2):
        timer = Machine(0.02, seed)
        measured = measure_actively(timer, SPACE, count, seed)
        assert len(measured) == count == len(set(timer.asked))
        rest = [a for a in SPACE.distinct() if a not in set(timer.asked)]
        truth = pd.DataFrame([a.to_dict() for a in rest]).assign(latency_ms=machine(rest, 0.0))
        reports.append(LatencyModel.fit(measured, "terms+process", folds=2).report(truth))
        graphs.append(len({(a.encoder, a.queries) for a in timer.asked}))
    assert np.median([r["median_ape"] for r in reports]) < 5
    assert np.median([r["p95_ape"] for r in reports]) < 15
    assert max(graphs) < count


def test_every_choice_narrows_the_prediction_most():
    """Extremes come first: what lies between known points is known."""
    archs = [Arch(r, 8, 1, d, 30) for r in (64, 80, 96, 112) for d in range(7)]
    measured = Machine(0.0, 0)(measurement_plan(SPACE, 14, 3))
    first = next_measurements(measured, SPACE.distinct(), 5)
    assert first == next_measurements(measured, SPACE.distinct(), 9)[:5]
    known = set(map(tuple, measured[list(Arch.KNOBS)].to_numpy().tolist()))
    assert not known & {tuple(a.to_dict().values()) for a in first}
    assert next_measurements(measured, archs[:1] * 1, 5, of_interest=archs) == archs[:1]


def test_what_was_timed_before_counts_and_a_small_space_is_timed_whole():
    few = measurement_plan(SPACE, 20, 1)
    timer = Machine(0.01, 0)
    timer(few)
    again = Machine(0.01, 0)
    again.asked = list(few)
    measured = measure_actively(
        lambda archs: again([a for a in archs if a not in set(again.asked)]), SPACE, 30, seed=2
    )
    assert 30 <= len(measured) < 40
    small = type(SPACE)((64,), (8,), (1,), tuple(range(7)), (8, 30))
    assert len(measure_actively(Machine(0.01, 0), small, 99)) == len(small.distinct())


def test_the_script_fits_few_and_is_tested_on_others(tmp_path, monkeypatch, capsys):
    """On two machines whose latencies are known, one of them disturbed."""
    torch.manual_seed(0)
    smoke = get_profile("smoke")
    kept.write_network(RFDETR(num_classes=10, **smoke.recipe.model), tmp_path / "n.safetensors")
    calls = []

    def measure_latency(model, archs, runtime, threads, rounds, cache_dir, max_seconds=None):
        calls.append((runtime, list(archs)))
        true = machine(archs, 0.0) * (2 if runtime == "slow" else 1)
        frame = pd.DataFrame([a.to_dict() for a in archs]).assign(
            arch=[a.id for a in archs], latency_ms=true * (1.5 if runtime == "slow" else 1),
            latency_low_ms=true, noisy=runtime == "slow", runtime=runtime,
        )  # fmt: skip
        frame.attrs = {"environment": {"cpu": "made up"}}
        return frame

    monkeypatch.setattr(ch05_latency, "measure_latency", measure_latency)
    monkeypatch.setattr(ch05_latency, "PART", 0.4)

    def check_runtime(name):
        if name == "gone":
            raise UserError("gone is not installed")

    monkeypatch.setattr(ch05_latency, "check_runtime", check_runtime)
    spec = importlib.util.spec_from_file_location("script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    given = [
        "--profile",
        "smoke",
        "--network",
        str(tmp_path / "n.safetensors"),
        "--out",
        str(tmp_path / "out"),
        "--files",
        str(tmp_path / "files"),
    ]
    # A runtime that is missing is told before anything is timed.
    with pytest.raises(SystemExit, match="error: gone is not installed"):
        script.main([*given, "--runtimes", "quick", "gone"])
    assert not calls
    script.main([*given, "--part", "0.4", "--held-out", "9", "--runtimes", "quick", "slow"])
    found = kept.load("out", tmp_path)
    errors, timings = found.tables["errors"], found.tables["timings"]
    space = smoke.recipe.search
    fit = timings[~timings["held_out"] & (timings["runtime"] == "quick")]
    assert len(fit) <= 0.4 * len(space.distinct()) and errors["share"].le(0.4).all()
    assert set(errors["runtime"]) == {"quick", "slow"} and (errors["count"] == 9).all()
    # What was chosen was timed again together with the others, on both; no graph is in both parts.
    assert [set(archs) for runtime, archs in calls if runtime == "slow"] == [set(calls[-2][1])]
    graphs = timings.groupby("held_out")[["resolution", "patch_size", "windows", "queries"]].apply(
        lambda rows: set(map(tuple, rows.to_numpy().tolist()))
    )
    assert not graphs[True] & graphs[False]
    lines = [line for line in capsys.readouterr().out.splitlines() if "held out, from" in line]
    assert len(lines) == 4 and all(": within 3 % and 8 %" in line for line in lines)
    words = ch05_latency.words(found)
    assert "They are reached on quick and slow." in words and "0 on quick, " in words
    assert f"{len(timings) // 2} timings on each runtime" in words
    worse = errors.assign(p95_ape=errors["p95_ape"].where(errors["runtime"] == "quick", 8.1))
    tables = {"errors": worse, "timings": timings}
    assert "reached on quick. They are not reached on slow." in ch05_latency.words(
        replace(found, tables=tables)
    )
    assert "`python benchmarks/latency_model.py` makes it anew" in ch05_latency.origin(
        replace(found, folder=tmp_path / "latency-model")
    )
    with pytest.raises(SystemExit, match="error: cannot read the network"):
        script.main([*given, "--network", str(tmp_path / "none")])
