"""Chapters 04, 05 and B on the smoke profile: every function that makes one of their tables or figures."""

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.arch import Arch
from rfdetr.benchmark.nms import nms
from rfdetr.experiments import (
    ch04_learning,
    ch04_recipe,
    ch04_unseen,
    ch05_knobs,
    ch05_search,
    ch_b_query_drop,
)
from rfdetr.experiments.base import supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.plots import learning as learning_figures
from rfdetr.plots import search as search_figures
from rfdetr.search.latency_model import LatencyModel

PROFILE = get_profile("smoke")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def trained(store):
    return supernet.train_supernet(PROFILE, 0, store, show=False)


def test_the_same_supernet_is_never_trained_twice(trained, store, capsys):
    again = supernet.train_supernet(PROFILE, 0, store)
    assert capsys.readouterr().out == ""
    assert again.folder == trained.folder
    assert all(
        (a == b).all()
        for a, b in zip(again.model.state_dict().values(), trained.model.state_dict().values(), strict=True)
    )


def test_log_and_snapshots(trained):
    assert trained.log["step"].tolist() == list(range(1, PROFILE.recipe.train["steps"] + 1))
    assert list(trained.snapshots()) == list(PROFILE.recipe.snapshots)


def test_losses_are_named_by_layer(trained):
    losses = ch04_learning.loss_table(trained.log, window=1)
    assert set(losses["layer"]) == {"encoder", "decoder 1", "decoder 2"}
    last = losses[(losses["layer"] == "decoder 2") & (losses["loss"] == "class")]["value"]
    np.testing.assert_allclose(last, trained.log["loss_ce"])
    assert learning_figures.losses(losses).axes


def test_updates_count_every_step_once(trained):
    table = ch04_learning.update_table(trained.log, PROFILE.recipe.training)
    assert table.drop_duplicates("setting")["updates"].sum() == len(trained.log)
    assert table.groupby("setting")["fields"].agg(lambda x: x.iloc[0] == len(x)).all()
    assert learning_figures.updates(table).axes


def test_sweeps_change_one_knob_and_mark_unseen_values(trained):
    sweep = ch04_learning.knob_sweeps(PROFILE.recipe)
    never = sweep[~sweep["seen"]][["knob", "value"]].to_numpy().tolist()
    assert never == [["patch_size", 12], ["queries", 6]]
    test = supernet.data(PROFILE, "test")
    table = ch04_learning.accuracy_table(trained.model, test, sweep["arch"], resamples=20)
    assert len(table) == sweep["arch"].nunique()
    assert (table["low"] <= table["AP"] + 1e-9).all()
    joined = sweep.merge(table, on="arch")
    assert len(joined) == len(sweep)
    assert set(joined["training"]) == {"drawn", "supervised", "never"}
    assert learning_figures.sweeps(joined).axes


def test_unseen_networks_lie_between_trained_ones():
    for profile in PROFILES.values():
        training, search = profile.recipe.training, profile.recipe.search
        grids = ch04_unseen.unseen_token_grids(training, 1, 5)
        drawn = ch04_unseen.seen_sides(training)
        for row in grids.to_dict("records"):
            assert row["side"] not in drawn
            assert row["below"].grid < row["side"] == row["arch"].grid < row["above"].grid
            assert {row["below"].encoder, row["above"].encoder} <= set(training.triples())
        patches = ch04_unseen.unseen_patch_sizes(training, search, 1, 5)
        assert {row.patch_size for row in patches["arch"]} <= set(search.patch_sizes)
        for row in patches.to_dict("records"):
            assert row["arch"].patch_size not in training.patch_sizes
            assert row["below"].grid == row["side"] == row["above"].grid == row["arch"].grid
            assert {row["below"].encoder, row["above"].encoder} <= set(training.triples())
    cpu = PROFILES["cpu"].recipe
    assert ch04_unseen.unseen_token_grids(cpu.training, 3, 30)["side"].tolist() == [13, 15]
    patches = ch04_unseen.unseen_patch_sizes(cpu.training, cpu.search, 3, 30)
    assert [arch.patch_size for arch in patches["arch"]] == [14]


def test_unseen_networks_are_held_against_their_neighbours(trained):
    recipe = PROFILE.recipe
    unseen = ch04_unseen.unseen_token_grids(recipe.training, 2, 12)
    test = supernet.data(PROFILE, "test")
    found = ch04_unseen.against_neighbours(trained.model, test, unseen, resamples=20)
    assert len(found) == len(unseen) > 0
    np.testing.assert_allclose(found["difference"], found["AP"] - found["neighbours"])
    assert (found["low"] <= found["difference"] + 1e-9).all()


def test_recipe_names_what_differs_and_why():
    table = ch04_recipe.recipe_table(PROFILES["cpu"]).set_index("setting")
    assert table["here"]["schedule"].startswith("cosine") and "scheduler-free" in table["paper"]["schedule"]
    assert (table["why"] != "").sum() >= 8 and table.notna().all().all()


def test_a_query_count_is_not_important_because_small_grids_clip_it():
    """On the nominal grid of a table whose AP is a function of tokens alone, queries explain nothing."""
    space = PROFILES["cpu"].recipe.search
    table = pd.DataFrame([arch.to_dict() for arch in space.distinct()]).assign(gflops=1.0)
    table = ch05_knobs.with_side(table).assign(AP=lambda t: 1 - np.exp(-t["side"] / 5))
    shares = ch05_knobs.importance(ch05_knobs.nominal_table(table, space)).set_index("knob")["share"]
    assert shares["queries"] == pytest.approx(0, abs=1e-12) and shares.sum() <= 1 + 1e-12
    assert shares["resolution"] > 0.2 and shares["patch_size"] > 0.2
    law = ch05_knobs.law(table).set_index("explained by")["r_squared"]
    assert law["tokens a side alone"] == pytest.approx(1)
    assert law["resolution, layers, queries"] < 0.9
    assert ch05_knobs.spread_at_equal_tokens(table).max() == pytest.approx(0)


@given(st.integers(1, 60), st.integers(1, 15))
def test_spread_rows_keep_both_ends(length, count):
    rows = pd.DataFrame({"x": range(length)})
    found = ch05_search.spread_rows(rows, count)["x"].tolist()
    assert found[0] == 0 and found == sorted(set(found)) and len(found) <= max(count, 1)
    assert count == 1 or found[-1] == length - 1


def test_equal_searches_are_named():
    rows = [
        (s, seed, 1, 0.01, 0.5 + 0.1 * seed * moves)
        for s, moves in (("a", 1), ("b", 1), ("c", 0))
        for seed in (0, 1)
    ]
    curves = pd.DataFrame(rows, columns=["sampler", "seed", "step", "spent", "hypervolume"])
    words = ch05_search.sampler_words(curves, 0.05)
    assert "all seeds of c make one and the same search" in words
    assert words.count("The searches of a and b are the same") == 1


def test_training_cost_grows_with_every_step(trained):
    cost = ch04_learning.training_cost(trained.model, trained.log, batch_size=4)
    assert len(cost) == len(trained.log)
    assert (np.diff(cost) > 0).all()


def test_search_is_an_artifact_with_a_front(trained, store):
    found = ch05_search.exact_search(PROFILE, trained, 0, store, measured=14, show=False)
    table = ch05_search.mark_seen(found.table, PROFILE.recipe.training)
    assert len(table) == len(PROFILE.recipe.search.distinct())
    assert table["latency_ms"].notna().sum() == 14
    assert not table.loc[table["patch_size"] == 12, "seen"].any()
    best = ch05_search.fronts(table, "gflops")
    assert best["front"].any()
    importance = ch05_knobs.importance(ch05_knobs.nominal_table(table, PROFILE.recipe.search))
    assert set(importance["knob"]) == set(Arch.KNOBS)
    assert importance["share"].dropna().between(0, 1).all()
    chart = search_figures.front(best, "gflops", "GFLOPs", "")
    assert [layer.label for layer in chart.layers][-1] == "front"
    assert search_figures.importance(importance).axes
    rows = ch05_search.tested(trained.model, supernet.data(PROFILE, "test"), table.head(2))
    assert rows["test_AP"].notna().all()
    model = LatencyModel.rough(found.latency)
    points = table.assign(predicted_ms=model.predict(table))
    few = ch05_search.few_images(trained.model, PROFILE, points, model, 1.0)
    assert few["spent"] == pytest.approx(1) and few["units"] == len(PROFILE.recipe.search.triples())
    assert few["regret_worst"] == pytest.approx(0, abs=1e-6)


def test_queries_and_layers_can_be_dropped(trained):
    recipe = PROFILE.recipe
    space = ch_b_query_drop.drop_space(recipe.reference, recipe.search.decoder_layers, recipe.search.queries)
    test = supernet.data(PROFILE, "test")
    table = ch_b_query_drop.drop_table(trained.model, test, space)
    assert len(table) == len(recipe.search.decoder_layers) * len(recipe.search.queries)
    assert table[["AP", "gflops"]].notna().all().all()
    arch = recipe.reference
    fewer = ch_b_query_drop.fewer_queries(trained.model, test, arch, (0, 2), 10)
    assert fewer["queries"].tolist() == [8, 8] and (fewer["gflops_ratio"] < 1).all()
    lower = ch_b_query_drop.fewer_layers(trained.model, test, arch, 10)
    assert lower["decoder_layers"].tolist() == [1, 0] and lower["gflops_ratio"].is_monotonic_decreasing
    depths = ch_b_query_drop.depth_table(trained.model, test, arch, (0, 1, 2), 10)
    assert depths["gflops"].is_monotonic_increasing and (depths["low"] <= depths["high"]).all()
    assert search_figures.drop_curves(table).axes
    printed = ch_b_query_drop.against_print(fewer, lower)
    assert printed["printed"].iloc[1] == "-0.02 AP, -10 % latency"
    assert printed["nano_saved"].iloc[2] > printed["nano_saved"].iloc[1] > 0
    assert printed["change"].iloc[1] == lower["change"].iloc[0]


def test_queries_are_decoded_in_company(trained):
    test, arch = supernet.data(PROFILE, "test"), PROFILE.recipe.reference
    found = ch_b_query_drop.company(trained.model, test, arch, (0, 2), 4, 10).set_index("decoder_layers")
    # Proposals do not see each other; queries in the decoder do.
    assert found["alone"][0] == found["beside"][0] and found["difference"][0] == 0
    images = torch.rand(1, 3, arch.resolution, arch.resolution)
    alone = trained.model(images, arch.replace(queries=4))
    beside = ch_b_query_drop._Beside(trained.model, arch, 4)(images)
    assert beside.logits.shape == alone.logits.shape
    assert not torch.allclose(beside.logits, alone.logits)
    everyone = ch_b_query_drop._Beside(trained.model, arch, arch.queries)(images)
    assert torch.equal(everyone.logits, trained.model(images, arch).logits)


def test_suppression_keeps_the_best_of_each_cluster():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10]], dtype=float)
    kept = nms(boxes, np.array([0.5, 0.9, 0.3, 0.2]), np.array([0, 0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 2, 3]


def test_suppression_table(trained):
    archs = {"full": PROFILE.recipe.reference}
    table = ch_b_query_drop.nms_table(trained.model, supernet.data(PROFILE, "test"), archs, thresholds=(0.5,))
    assert table["per_image"].iloc[1] <= table["per_image"].iloc[0]
    assert search_figures.suppression(table).axes


def test_every_profile_fits_its_own_grids():
    from rfdetr.model.config import ModelConfig

    for profile in PROFILES.values():
        recipe = profile.recipe
        config = ModelConfig(num_classes=10, **recipe.model)
        config.check(recipe.search.largest)
        config.check(recipe.training.largest)
        config.check(recipe.reference)
        assert max(recipe.snapshots) <= recipe.train["steps"]
        supernet.train_config(profile, 0)
