"""Chapters 04, 05 and B on the smoke profile: every function that makes one of their tables or figures."""

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest

from rfdetr import Arch
from rfdetr.benchmark.nms import nms
from rfdetr.experiments import ch04_learning, ch05_search, ch_b_query_drop
from rfdetr.experiments.base import supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.plots import learning as learning_figures
from rfdetr.plots import search as search_figures

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
    assert table["updates"].sum() == len(trained.log)
    assert table["expected"].sum() == pytest.approx(len(trained.log))
    assert learning_figures.updates(table).axes


def test_sweeps_change_one_knob_and_mark_unseen_values(trained):
    sweep = ch04_learning.knob_sweeps(PROFILE.recipe)
    assert sweep[~sweep["seen"]][["knob", "value"]].to_numpy().tolist() == [["patch_size", 12]]
    test = supernet.data(PROFILE, "test")
    table = ch04_learning.accuracy_table(trained.model, test, sweep["arch"], resamples=20)
    assert len(table) == sweep["arch"].nunique()
    assert (table["low"] <= table["AP"] + 1e-9).all()
    joined = sweep.merge(table, on="arch")
    assert len(joined) == len(sweep)
    assert {v.claim for v in ch04_learning.sweep_verdicts(joined)} == {"C037", "C045", "C013"}
    assert learning_figures.sweeps(joined).axes


@pytest.mark.parametrize(
    ("low_a", "high_a", "low_b", "high_b", "expected"),
    [(0.5, 0.6, 0.3, 0.4, "higher"), (0.3, 0.4, 0.5, 0.6, "lower"), (0.3, 0.5, 0.4, 0.6, "not resolved")],
)
def test_overlapping_intervals_are_not_resolved(low_a, high_a, low_b, high_b, expected):
    a, b = Arch(64, 16, 1, 2, 4), Arch(64, 16, 1, 1, 4)
    table = pd.DataFrame({"arch": [a, b], "low": [low_a, low_b], "high": [high_a, high_b]})
    assert ch04_learning.compare(table, a, b) == expected


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
    importance = ch05_search.knob_importance(table)
    assert set(importance["knob"]) == set(Arch.KNOBS)
    assert importance["share"].dropna().between(0, 1).all()
    assert search_figures.front(best, "gflops", "GFLOPs", "GFLOPs").data
    assert search_figures.importance(importance).axes
    rows = ch05_search.tested(trained.model, supernet.data(PROFILE, "test"), table.head(2))
    assert rows["test_AP"].notna().all()


def test_queries_and_layers_can_be_dropped(trained):
    recipe = PROFILE.recipe
    space = ch_b_query_drop.drop_space(recipe.reference, recipe.search.decoder_layers, recipe.search.queries)
    latency = pd.DataFrame(
        [{**a.to_dict(), "latency_ms": float(i + 1)} for i, a in enumerate(space.distinct())]
    )
    table = ch_b_query_drop.drop_table(trained.model, supernet.data(PROFILE, "test"), space, latency)
    assert len(table) == len(recipe.search.decoder_layers) * len(recipe.search.queries)
    assert table[["AP", "gflops", "latency_ms"]].notna().all().all()
    assert search_figures.drop_curves(table).axes


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
