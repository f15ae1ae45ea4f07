"""Kept results: the sampling study and the full search on the smoke profile, and what reading them
refuses.
"""

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, scramble
from study_parts import perform_all

from rfdetr import RFDETR
from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import evaluate
from rfdetr.experiments import (
    ch05_full_parts,
    ch05_full_search,
    ch05_real,
    ch05_real_reading,
    ch05_regret,
    ch09_study,
    kept_studies,
)
from rfdetr.experiments.base import fitting, kept, supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.parts import Place, perform
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.experiments.ch09_data import Mixture
from rfdetr.experiments.ch09_domains import SIZES
from rfdetr.experiments.ch09_parts import open_domain
from rfdetr.export.onnx import export_onnx
from rfdetr.plots import regret as regret_figures
from rfdetr.plots import search as figures
from rfdetr.provenance import provenance
from rfdetr.search import budget
from rfdetr.search.grid import GridEvaluator, evaluate_grid

SMOKE = get_profile("smoke")
REAL_PARTS = "latencies", "network", "exact", "real"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def full(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "full-search"
    study = replace(ch05_full_parts.STUDY, profile="smoke")
    task = study.task(0, store, ["unit-"])
    perform_all(task)
    with pytest.raises(UserError, match="not done, first latency: run `python -m rfdetr results full-"):
        study.keep(folder, 0, store)
    perform_all(study.task(0, store))
    study.keep(folder, 0, store)
    return kept.load("full-search", folder.parent)


def test_the_kept_network_gives_the_kept_table(full):
    model, data = full.network(), supernet.data(SMOKE, "val")
    made = full.record["made_by"]
    assert {stage: rows[0]["parts"] for stage, rows in made.items()} == {
        "train": 1,
        "latency": 1,
        "unit-": len(SMOKE.recipe.search.triples()),
    }
    exact = evaluate_grid(model, data, SMOKE.recipe.search).drop_duplicates(list(Arch.KNOBS))
    table = full.tables["table"]
    assert len(table) == len(exact) == len(SMOKE.recipe.search.distinct())
    np.testing.assert_allclose(table["AP"], exact["AP"], rtol=1e-5)
    again = ch05_full_search.recomputed(model, data, table, SMOKE.recipe.search, 2)
    assert again[["resolution", "patch_size", "windows"]].drop_duplicates().shape[0] == 2
    np.testing.assert_allclose(again["AP"], again["kept_AP"], rtol=1e-5)


def test_nested_aps_are_those_of_the_first_scenes(store):
    """With 60 scenes there are levels of 20 and 60; each is the grid's AP on so many scenes alone."""
    study = replace(ch05_full_parts.STUDY, profile="smoke")
    plan = study.task(0, store, ["train"]).plan
    place = Place(plan.folder, "unit", "cpu", {"train": plan.stems["train"]})
    triple = SMOKE.recipe.search.triples()[0]
    value = ch05_full_parts.unit_part(place, "smoke", 60, list(triple))
    assert list(value["nested"]) == ["20", "60"]
    model = kept.read_network(place.needed("train", ".safetensors"))
    for count in (20, 60):
        data = fitting.scenes_of(place, SMOKE, "val", count)
        found = GridEvaluator(model, data).unit(triple, [tuple(pair) for pair in value["pairs"]])
        by_pair = dict(zip(map(tuple, found["pairs"]), found["rows"], strict=True))
        wanted = [by_pair[tuple(pair)]["AP"] for pair in value["pairs"]]
        np.testing.assert_allclose(value["nested"][str(count)], wanted, rtol=1e-9)


def test_latencies_are_joined_and_held_out_ones_are_not_fitted(full):
    timed = full.tables["latency"]
    assert timed["held_out"].sum() == 3 and (~timed["held_out"]).sum() == SMOKE.recipe.measured
    table, model = ch05_full_search.with_latency(full.tables["table"], timed)
    assert model.measured == SMOKE.recipe.measured
    assert table["latency_ms"].notna().sum() == len(timed)
    assert (table["predicted_ms"] > 0).all()
    errors = ch05_full_search.held_out_errors(timed)
    assert errors["count"].tolist() == [3, 3] and (errors["measured"] == SMOKE.recipe.measured).all()
    assert (ch05_full_search.undisturbed(timed)["latency_ms"] <= timed["latency_ms"]).all()
    assert figures.predicted(timed.assign(predicted_ms=model.predict(timed))).axes


def test_ways_to_search_are_compared_on_the_kept_table(full, store, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "results_root", lambda: full.folder.parent)
    monkeypatch.setattr(ch05_regret, "BUDGETS", (0.3, 1.0))
    monkeypatch.setattr(budget, "SAMPLERS", ("random", "token-rule", "multifidelity"))
    study = replace(ch05_regret.STUDY, profile="smoke")
    perform_all(study.task(0, store, ["kept", "small"]))
    study.keep(tmp_path / "search-regret", 0, store)
    found = kept.load("search-regret", tmp_path)
    rows = found.tables["regret"]
    # Two sets, two budgets; two seeds of what draws, one of the rule. No real domain has its network yet.
    assert len(rows) == 2 * 2 * (2 + 1 + 2) and set(found.tables) == {"regret", "small"}
    assert {name.split("-")[0] for name in found.record["missing"]} == {*REAL_PARTS}
    assert rows["spent"].le(rows["budget"] + 1e-9).all() and rows["regret_mean"].ge(0).all()
    whole = rows[(rows["budget"] == 1) & (rows["sampler"] == "random")]
    assert (whole["regret_worst"] == 0).all() and (whole["hypervolume"] == 1).all()
    # The second table is the grid's on scenes of its own.
    model, data = full.network(), ch05_regret.small_scenes(8)
    assert data.fingerprint != ch05_regret.scenes("digits", "val", size=8, canvas=288).fingerprint
    exact = evaluate_grid(model, data, SMOKE.recipe.search).drop_duplicates(list(Arch.KNOBS))
    both = found.tables["small"].merge(exact, on=list(Arch.KNOBS), suffixes=("", "_exact"))
    assert len(both) == len(exact)
    np.testing.assert_allclose(both["AP"], both["AP_exact"], rtol=1e-4)
    medians = ch05_regret.summary(rows)
    assert set(medians["seeds"]) == {1, 2} and (medians["lowest"] <= medians["regret_mean"]).all()
    assert regret_figures.against_cost(medians[medians["set"] == "small"], ch05_regret.NAMES).axes
    words = ch05_regret.timing_words(full, 60)
    assert f"from {SMOKE.recipe.measured + 3} exported" in words and "a fiftieth of the grid" in words
    # Another table is searched anew.
    assert ch05_regret.current(found, full)
    other = replace(full, record={**full.record, "tables": {**full.record["tables"], "table": "0" * 64}})
    assert not ch05_regret.current(found, other)
    monkeypatch.setattr(ch05_regret.kept, "load", lambda *_: other)
    missing = study.task(0, store, ["kept", "small"]).plan.missing()
    assert len(missing) == 10 and all(name.startswith("kept-") for name in missing)


def test_real_domains_are_searched_with_the_networks_that_were_tuned_on_them(
    full, store, tmp_path, monkeypatch
):
    monkeypatch.setattr(kept, "results_root", lambda: full.folder.parent)
    monkeypatch.setattr(ch05_real, "BUDGETS", (0.4, 1.0))
    monkeypatch.setattr(budget, "SAMPLERS", ("random", "token-rule", "multifidelity"))
    study = replace(ch05_regret.STUDY, profile="smoke")
    task = study.task(0, store, ["real-"])
    # Without the benchmark's parts one line says how to make them.
    with pytest.raises(
        UserError, match=r"tuned on crowd .* `python -m rfdetr results fourteen-domains --part"
    ):
        perform(task.plan, "network-crowd", "cpu", "smoke", 0)
    benchmark = replace(ch09_study.STUDY, profile="smoke").task(0, store, ["first-tune-crowd"])
    perform_all(benchmark)
    perform_all(task)
    study.keep(tmp_path / "search-regret", 0, store)
    found = kept.load("search-regret", tmp_path)
    rows = found.tables["regret"]
    rows = rows[rows["set"] == "crowd"]
    assert len(rows) == 2 * (2 + 1 + 2) and rows["spent"].le(rows["budget"] + 1e-9).all()
    whole = rows[(rows["budget"] == 1) & (rows["sampler"] != "token-rule")]
    assert whole["regret_worst"].abs().max() < 1e-12
    # "latencies" alone is a part of the other searches.
    real = tuple(f"{part}-" for part in REAL_PARTS)
    assert not [name for name in found.record["missing"] if name.startswith(real)]
    # The exact table is the grid's, of the tuned network on the pictures it was not trained on.
    sizes, place = SIZES["smoke"], Place(store.root / "parts" / "fourteen-domains", "", "cpu")
    pictures = Mixture([open_domain(place, sizes, "crowd", split) for split in ("val", "test")])
    network = kept.read_network(place.folder / f"{benchmark.plan.stems['first-tune-crowd']}.safetensors")
    exact = evaluate_grid(network, pictures, sizes.search).drop_duplicates(list(Arch.KNOBS))
    both = found.tables["crowd"].merge(exact, on=list(Arch.KNOBS), suffixes=("", "_exact"))
    assert len(both) == len(exact) == len(found.tables["crowd"])
    np.testing.assert_allclose(both["AP"], both["AP_exact"], rtol=1e-4, atol=1e-9)
    facts = found.record["real"]["crowd"]
    assert (facts["images"], facts["levels"]) == (len(pictures), [len(pictures)]) and facts["error"] >= 0
    # No budget is that of an aim here.
    assert ch05_real_reading.names(found) == ["crowd"] and ch05_real_reading.aims(found).empty
    assert regret_figures.by_set(ch05_real_reading.medians(found), ch05_regret.NAMES).axes


def test_aims_on_real_domains_hold_or_not():
    def result(lost):
        rows = [
            {"set": name, "sampler": sampler, "budget": cut, "seed": seed, "spent": cut, "hypervolume": 1.0,
             "units": 7, "regret_mean": lost * k, "regret_p90": 2 * lost * k, "regret_worst": 4 * lost * k}
            for name in ("one", "two") for sampler, k in (("multifidelity", 1), ("token-rule", 2))
            for cut in (0.01, 0.02, 0.1) for seed in range(3)
        ]  # fmt: skip
        regret = pd.DataFrame(rows)
        dear = (regret["set"] == "one") & (regret["budget"] < 0.1)
        regret.loc[dear, ["regret_mean", "regret_p90", "regret_worst"]] *= 10
        facts = {"images": 60, "settings": 100, "error": 0.03}
        exact = pd.DataFrame({"AP": [0.1, 0.2]})
        record = {"real": {"one": facts, "two": facts, "three": facts}}
        return kept.Kept({"regret": regret, "one": exact, "two": exact}, record, Path("x"))

    full = kept.Kept({"units": pd.DataFrame(index=range(141))}, {"images": 2000}, Path("full"))

    found = result(0.002)
    table = ch05_real_reading.aims(found)
    assert table.groupby("set")["holds"].agg(["size", "sum"]).to_numpy().tolist() == [[5, 0], [5, 5]]
    assert table["limit"].head(5).tolist() == [0.012, 0.05, 0.006, 0.012, 0.024]
    money = ch05_real_reading.bought(found).set_index("set")
    assert money["enough"].tolist() == [0.1, 0.01] and money["passes"].eq(120).all()
    said = ch05_real_reading.words(found, full)
    assert "Of 10 aims on 2 domains 5 hold." in said and "spend 120 passes" in said and "table 5,640" in said
    assert "10% (one), 1% (two)" in said
    assert "loses more than the search on 2 of 2 domains" in said
    assert "All 10 aims hold on 2 domains." in ch05_real_reading.words(result(0.0001), full)
    never = ch05_real_reading.words(result(1.0), full)
    assert "Of 10 aims on 2 domains 0 hold." in never and " hold from " not in never


def test_aims_and_rules_are_held_against_what_was_reached():
    rows = [(s, cut, 0.004 * k, 0.005 * k, 0.01 * k)
            for s, k in (("multifidelity", 1), ("token-rule", 2), ("token-rule-tenth", 0.5), ("random", 9))
            for cut in (0.01, 0.02)]  # fmt: skip
    names = ["sampler", "budget", "regret_mean", "regret_p90", "regret_worst"]
    medians = pd.DataFrame(rows, columns=names)
    aims = ch05_regret.bounds(medians)
    assert aims["limit"].tolist() == [0.006, 0.025, 0.003, 0.006, 0.012]
    assert aims["holds"].tolist() == [True, True, False, True, True]
    rules = ch05_regret.against_rules(medians)
    assert rules["rule"].tolist() == [0.002, 0.002] and not rules["better"].any()
    later = medians[medians["sampler"] != "token-rule-tenth"]
    assert ch05_regret.against_rules(later)["better"].all()


def test_held_out_networks_have_graphs_of_their_own():
    space = PROFILES["cpu"].recipe.search
    taken = space.distinct()[::7][:40]
    away = ch05_full_search.held_out_archs(space, taken, 30, seed=1)
    assert len(away) == len(set(away)) == 30
    assert not {(a.encoder, a.queries) for a in away} & {(a.encoder, a.queries) for a in taken}


def test_the_printed_grid_has_its_printed_size():
    """Eleven resolutions, seven patch sizes, three window counts, seven depths, four query counts: Appendix
    A.
    """
    space = PROFILES["full"].recipe.search
    counts = [
        len(v)
        for v in (space.resolutions, space.patch_sizes, space.windows, space.decoder_layers, space.queries)
    ]
    assert counts == [11, 7, 3, 7, 4] and len(space) == 6468
    assert space.windows == PROFILES["full"].recipe.training.windows


def test_a_changed_table_is_noticed(full, tmp_path):
    kept.keep(tmp_path / "x", {"t": pd.DataFrame({"a": [1.0, 2.5]})}, provenance("smoke", 0), note="n")
    found = kept.load("x", tmp_path)
    assert found.tables["t"]["a"].tolist() == [1.0, 2.5] and found.record["note"] == "n"
    assert "results x" in found.origin
    (tmp_path / "x" / "t.csv").write_text("a\n1.0\n9.9\n")
    with pytest.raises(UserError, match="is not the table"):
        kept.load("x", tmp_path)
    with pytest.raises(UserError, match="no kept result"):
        kept.load("y", tmp_path)
    with pytest.raises(UserError, match="unknown result 'y'; choose one of sampling-study"):
        kept_studies.make("y", tmp_path)


def test_kept_weights_round_once_and_damage_is_refused(tmp_path):
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY))
    path = tmp_path / "n.safetensors"
    kept.write_network(model, path)
    first = kept.read_network(path)
    assert first.config == model.config and not first.training
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name].half().float(), rtol=0, atol=0)
    kept.write_network(first, path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            first.state_dict().values(), kept.read_network(path).state_dict().values(), strict=True
        )
    )
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot read the network"):
        kept.read_network(path)


def test_an_exported_file_is_as_accurate_as_the_trained_network(tmp_path):
    """With the committed network, whose AP is far from zero: the artifact's AP is the eager one within
    0.001.
    """
    model, data = kept.load("full-search").network(), supernet.data(PROFILES["full"], "test").subset(30)
    arch = PROFILES["full"].recipe.reference
    eager = evaluate(model, data, arch, masks=False).ap
    exported = evaluate_artifact(export_onnx(model, arch, tmp_path / "n.onnx"), data, masks=False).ap
    assert eager > 0.5
    assert exported == pytest.approx(eager, abs=1e-3)
