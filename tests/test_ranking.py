"""The ranking study: which architectures, a whole run on the smoke profile, Kendall's tau on made numbers."""

import numpy as np
import pandas as pd
import pytest
from study_parts import perform_all

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.experiments import ch04_ranking as ranking
from rfdetr.experiments import ch04_ranking_summary as summary
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.experiments.base.studies import Study


def test_the_architectures_cover_the_space():
    profile = PROFILES["cpu"]
    archs = ranking.architectures(profile)
    assert archs == ranking.architectures(profile) and len(set(archs)) == 16
    training = set(profile.recipe.training.triples())
    assert all(arch.encoder in training for arch in archs)
    for knob in ("windows", "decoder_layers"):
        counts = pd.Series([getattr(arch, knob) for arch in archs]).value_counts()
        assert set(counts.index) == set(getattr(profile.recipe.search, knob))
        assert counts.max() - counts.min() <= 1
    assert len({arch.tokens for arch in archs}) >= 7
    assert max(arch.tokens for arch in archs) == max(
        arch.tokens for arch in profile.recipe.training.distinct()
    )
    with pytest.raises(ValueError, match="no 999 different architectures"):
        ranking.chosen_archs(get_profile("smoke").recipe.search, 999)


def test_shares_cost_what_the_supernet_costs():
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.model.config import ModelConfig

    profile = PROFILES["cpu"]
    archs, recipe = ranking.architectures(profile), profile.recipe
    config = ModelConfig(num_classes=10, **recipe.model)
    supernet = recipe.train["steps"] * analytic_table(config, recipe.training.archs())["gflops"].mean()
    alone = ranking.share_steps(profile, archs) * analytic_table(config, archs)["gflops"].sum()
    assert alone == pytest.approx(supernet, rel=0.01)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A whole run of the study, and the kept result after its first seed and at its end."""
    root = tmp_path_factory.mktemp("ranking")
    study = Study("ranking", "smoke", ranking.parts, ranking.collect, ranking.STUDY.modules)
    store = Store(root / "store")
    task = study.task(0, store)
    with pytest.raises(UserError, match="no part is done yet"):
        study.keep(root / "none", 0, store)
    perform_all(task)
    study.keep(root / "ranking", 0, store)
    return kept.load("ranking", root)


def test_a_whole_run(smoke):
    networks, arrays = smoke.tables["networks"], smoke.arrays["resampled"]
    sizes = ranking.SIZES["smoke"]
    assert set(networks["kind"]) == set(ranking.KINDS)
    assert (networks.groupby(["kind", "seed"]).size() == sizes["archs"]).all()
    assert len(networks) == len(arrays) == 4 * sizes["seeds"] * sizes["archs"]
    assert (networks.loc[networks["kind"] == "alone", "steps"] == sizes["alone"]).all()
    assert (networks.loc[networks["kind"] == "tuned", "steps"] == sizes["tuned"]).all()
    supernets = networks[networks["kind"] == "inherited"]
    assert (supernets["steps"] == get_profile("smoke").recipe.train["steps"]).all()
    assert (supernets["updates"] <= supernets["steps"]).all()
    assert smoke.record["missing"] == [] and smoke.record["made_by"][0]["parts"] == len(
        ranking.parts(get_profile("smoke"), 0)
    )
    found = summary.summary(networks, arrays, draws=20)
    assert {"alone", "alone, another", "tuned"} <= set(found["second"])
    assert len(summary.training_share(networks)) == sizes["archs"]
    assert (summary.regret(networks)["regret"].dropna() >= 0).all()


def made(aps, resamples=40, noise=0.0, seed=0):
    """Networks and resampled APs from APs by kind, [seeds, archs] each."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind, values in aps.items():
        for number, per_arch in enumerate(values):
            for i, ap in enumerate(per_arch):
                arch = Arch(64, 8, 1, i % 3, 10 + i)
                rows.append(
                    {"kind": kind, "seed": number, "arch": arch.id, "gflops": 1.0 + i, "AP": ap}
                    | {"tokens": arch.tokens, "updates": 3}
                )
    table = pd.DataFrame(rows)
    return table, table["AP"].to_numpy()[:, None] + noise * rng.standard_normal((len(table), resamples))


def test_equal_orders_have_tau_one_and_reversed_ones_minus_one():
    ap = np.linspace(0.2, 0.6, 8)
    networks, arrays = made({"inherited": [ap], "alone": [ap**2], "tuned": [-ap]})
    found = summary.summary(networks, arrays, draws=200).set_index(["first", "second"])
    same, opposite = found.loc[("inherited", "alone")], found.loc[("tuned", "alone")]
    assert same["tau"] == pytest.approx(1) and same["low"] == pytest.approx(1)
    assert opposite["tau"] == pytest.approx(-1) and opposite["high"] == pytest.approx(-1)
    assert found.loc[("operations", "alone"), "tau"] == pytest.approx(1)
    assert ("share", "alone") not in found.index


def test_each_source_of_chance_widens_the_interval():
    rng = np.random.default_rng(1)
    truth = np.linspace(0.3, 0.6, 12)
    first = truth + 0.04 * rng.standard_normal((3, 12))
    second = truth + 0.04 * rng.standard_normal((3, 12))
    networks, arrays = made({"inherited": first, "alone": second}, noise=0.02)
    archs = networks["arch"].drop_duplicates().tolist()
    one, other = (summary.scores(networks, arrays, kind, archs) for kind in ("inherited", "alone"))
    tau = summary.agreement(one, other, draws=800)
    assert 0.5 < tau.tau < 1 and tau.low < tau.tau < tau.high
    assert min(tau.by_archs, tau.by_seeds, tau.by_images) > 0.01
    assert (tau.high - tau.low) / 2 > max(tau.by_archs, tau.by_seeds, tau.by_images) * 0.9
    quiet = summary.Scores(one.ap[:1], np.repeat(one.ap[:1, :, None], 5, axis=2))
    still = summary.agreement(quiet, quiet, draws=100)
    assert still.by_seeds == still.by_images == 0 and still.tau == pytest.approx(1)


def test_unrelated_orders_are_not_resolved():
    rng = np.random.default_rng(3)
    networks, arrays = made({"inherited": rng.random((2, 12)), "alone": rng.random((2, 12))})
    row = summary.summary(networks, arrays, draws=400).iloc[0]
    assert row["low"] < 0 < row["high"]


def test_incomplete_seeds_are_left_out_and_named_when_none_is_left():
    ap = np.linspace(0.2, 0.6, 6)
    networks, arrays = made({"inherited": [ap, ap], "alone": [ap, ap]})
    cut = networks.iloc[:-1], arrays[:-1]
    found = summary.summary(*cut, draws=20).set_index(["first", "second"])
    assert found.loc[("inherited", "alone"), ["first_seeds", "second_seeds"]].tolist() == [2, 1]
    with pytest.raises(UserError, match="no seed of 'tuned' has all 6"):
        summary.scores(networks, arrays, "tuned", networks["arch"].drop_duplicates().tolist())


def test_regret_is_what_the_choice_loses():
    networks, _ = made({"inherited": [[0.1, 0.5, 0.3]], "alone": [[0.2, 0.4, 0.6]]})
    found = summary.regret(networks)
    np.testing.assert_allclose(found["regret"], [0, 0, 0.2])
    assert found["chosen"].nunique() == 2


def test_one_seed_has_a_column_of_deviations_without_values():
    rows = [
        {"arch": arch, "kind": kind, "seed": 0, "AP": 0.1 * i, "tokens": 4, "gflops": i, "updates": 3}
        for i, arch in enumerate(("a", "b"))
        for kind in ("inherited", "alone")
    ]
    share = summary.training_share(pd.DataFrame(rows))
    assert share["alone_std"].isna().all() and share["alone"].tolist() == [0.0, 0.1]


def test_the_supernet_is_held_against_the_size_with_an_interval():
    """Better than the order by operations, worse, and neither."""
    rng = np.random.default_rng(5)
    truth = rng.permutation(np.linspace(0.2, 0.6, 12))
    rising = np.linspace(0.2, 0.6, 12)
    seen = {}
    for name, given in {
        "tells more than the size does": {"inherited": [truth] * 2, "alone": [truth]},
        "larger is better does better": {"inherited": [-rising], "alone": [rising]},
        "not resolved": {"inherited": [rising], "alone": [rising]},
    }.items():
        networks, arrays = made(given)
        found = summary.against_operations(networks, arrays, draws=200)
        assert found["low"] - 1e-9 <= found["difference"] <= found["high"] + 1e-9
        text = summary.words(summary.summary(networks, arrays, draws=50), found)
        assert name in text and "12 architectures" in text
        seen[name] = text
    assert "Seeds: 2 of the supernet, 1 of each network alone." in seen["tells more than the size does"]
