"""The studies of sampling and of precision: plans, whole runs on the smoke profile, differences with
intervals.
"""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import pytest
from study_parts import perform_all

from rfdetr.errors import UserError
from rfdetr.experiments import ch04_precision as precision
from rfdetr.experiments import ch04_sampling_reading as reading
from rfdetr.experiments import ch04_sampling_study as sampling
from rfdetr.experiments import ch04_variants as variants
from rfdetr.experiments.base import kept, supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES, get_profile
from rfdetr.model.config import ModelConfig
from rfdetr.plots import search as figures
from rfdetr.plots.tables import html_table

SMOKE = get_profile("smoke")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_variants_have_equal_cost_or_equal_steps():
    for profile in (SMOKE, PROFILES["cpu"]):
        config = ModelConfig(num_classes=10, **profile.recipe.model)
        space, steps = profile.recipe.training, profile.recipe.study_steps
        costs = sampling._costs(config, space)
        totals = {}
        for variant in sampling.variants(profile, config):
            rule = {k: v for k, v in variant.changes.items() if k in ("sampling", "odds")}
            total = variant.changes["steps"] * sampling._mean_cost(space, costs, **rule)
            if variant.budget == "cost":
                totals[variant.label, variant.rate] = total
            else:
                assert variant.changes["steps"] == steps
            made = supernet.train_config(profile, 0, **variant.changes)
            assert made.lr == pytest.approx(variant.rate * profile.recipe.train["lr"])
        assert {label for label, _ in totals} == {"uniform", "sandwich", "biased"}
        # Whole steps: few of them cannot cost exactly the same.
        tolerance = 0.5 if profile is SMOKE else 0.01
        assert max(totals.values()) == pytest.approx(min(totals.values()), rel=tolerance)


def test_a_whole_sampling_study(store, tmp_path):
    study = replace(sampling.STUDY, profile="smoke")
    with pytest.raises(UserError, match="fewer than two ways of training"):
        study.keep(tmp_path / "sampling-study", 0, store)
    perform_all(study.task(0, store))
    study.keep(tmp_path / "sampling-study", 0, store)
    result = kept.load("sampling-study", tmp_path)
    runs, resamples = result.tables["runs"], result.arrays["resampled"]
    assert set(runs["variant"]) == {
        "uniform",
        "sandwich",
        "biased",
        "sandwich, equal steps",
        "biased, equal steps",
    }
    assert set(runs["seed"]) == {0, 1} and len(runs) == len(resamples)
    thirds = runs[runs["group"].isin(variants.GROUPS)]
    whole = thirds.groupby(["variant", "seed"])["sub_networks"].sum()
    assert (whole == len(SMOKE.recipe.training.triples())).all()
    # The sandwich rule trains both corners at every step.
    corners = runs[(runs["rule"] == "sandwich") & runs["group"].isin(["smallest", "largest"])]
    assert (corners["updates"] >= corners["steps"]).all()
    found = sampling.summary(runs, resamples=resamples)
    assert figures.study(found).axes and (found["rate"] == 1).all()
    again = sampling.run(SMOKE, 0, store, show=False)
    assert len(again) == len(runs)
    np.testing.assert_allclose(again["AP"], runs["AP"], rtol=1e-5, atol=1e-12)


def test_a_whole_precision_study_on_a_processor(store, tmp_path):
    study = replace(precision.STUDY, profile="smoke")
    task = study.task(0, store, ["cpu-"])
    with pytest.raises(UserError, match="no seed has both precisions"):
        study.keep(tmp_path / "precision-study", 0, store)
    perform_all(task)
    study.keep(tmp_path / "precision-study", 0, store)
    result = kept.load("precision-study", tmp_path)
    runs = result.tables["runs"]
    assert set(runs["variant"]) == {"fp32", "bf16"} and set(runs["hardware"]) == {"cpu"}
    assert all(name.startswith("cuda-") for name in result.record["missing"])
    assert result.record["missing"] and list(result.record["flags"].values()) == [precision.cpu_flags()]
    found = precision.summary(runs, result.arrays["resampled"])
    fp32 = found[found["variant"] == "fp32"]
    assert (fp32["time_ratio"] == 1).all() and fp32["difference"].isna().all()
    bf16 = found[found["variant"] == "bf16"]
    assert (bf16["seeds"] == 2).all() and bf16["half_images"].notna().all()


def made(aps, rates=None):
    rows = [
        {"variant": v, "group": "small", "seed": s, "AP": ap, "updates": 1.0, "steps": 5, "tflops": 1.0}
        for v, values in aps.items()
        for s, ap in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed_and_resolved_outside_the_interval():
    runs = made({"uniform": (0.5, 0.6, 0.7), "better": (0.6, 0.7, 0.801), "same": (0.6, 0.6, 0.6)})
    table = sampling.summary(runs).set_index("variant")
    better = table.loc["better"]
    assert better["difference"] == pytest.approx(0.1003, abs=1e-3) and better["resolved"]
    assert not table.loc["same", "resolved"] and table.loc["same", "half_width"] > 0.2
    assert np.isnan(table.loc["uniform", "difference"]) and not table.loc["uniform", "resolved"]
    # The same trainings on images of which a few decide everything: nothing is resolved.
    noise = np.random.default_rng(0).standard_normal((len(runs), 400))
    wide = variants.differences(runs, "uniform", runs["AP"].to_numpy()[:, None] + noise)
    row = wide.set_index("variant").loc["better"]
    assert not row["resolved"] and row["half_images"] > 0.5
    # What moves both alike moves no difference.
    alike = runs["AP"].to_numpy()[:, None] + noise[:1]
    row = variants.differences(runs, "uniform", alike).set_index("variant").loc["better"]
    assert row["resolved"] and row["half_images"] < 1e-9


def test_one_seed_is_never_resolved_and_a_missing_partner_is_left_out():
    runs = made({"uniform": (0.5,), "better": (0.9, 0.95)})
    row = variants.differences(runs, "uniform").set_index("variant").loc["better"]
    assert row["difference"] == pytest.approx(0.4) and np.isnan(row["half_width"]) and not row["resolved"]


def test_the_rate_is_chosen_by_the_validation_scenes():
    rows = []
    for rate, (val, ap, seeds) in {1.0: (0.4, 0.9, 3), 2.0: (0.6, 0.5, 3), 4.0: (0.9, 0.1, 1)}.items():
        for seed in range(seeds):
            head = {"variant": "uniform", "rate": rate, "seed": seed, "group": "small"}
            rows.append({**head, "AP": ap, "val_AP": val, "updates": 1.0, "steps": 5, "tflops": 1.0})
    found = sampling.summary(pd.DataFrame(rows))
    # 4.0 has too few seeds to be chosen; 1.0 is better on the test scenes alone.
    assert found["rate"].tolist() == [2.0] and found["AP"].tolist() == [0.5]


def kept_runs(seeds, rates=(1.0,)):
    """A table of the form of the kept study. seeds: (rule, budget) -> how many are done."""
    rows = []
    for (rule, budget), count in seeds.items():
        for rate in rates:
            for seed in range(count if rate == 1 else count - 1):
                head = {"variant": sampling.Variant(rule, budget, rate, {}).label, "rule": rule}
                head |= {"budget": budget, "rate": rate, "seed": seed, "steps": 800, "tflops": 7.0}
                for group in (*variants.GROUPS, "smallest", "largest"):
                    ap = {"AP": 0.5 + 0.01 * seed, "val_AP": 0.5, "updates": 3.0, "sub_networks": 15}
                    rows.append({**head, "group": group, **ap, "seconds": 9.0, "step_s": 0.1})
    return pd.DataFrame(rows)


def test_a_study_is_shown_in_part_as_well():
    part = kept_runs({("uniform", "cost"): 3, ("sandwich", "cost"): 2, ("biased", "steps"): 1})
    table = reading.shown(part, np.random.default_rng(0).random((len(part), 20)) / 100)
    assert set(reading.COLUMNS) <= set(table) and (table["rate"] == 1).all()
    shown = html_table(table, "", reading.COLUMNS, 3)
    assert "learning rate" in shown and "biased, equal steps" in shown
    one = table[table["variant"] == "biased, equal steps"]
    assert one["half_width"].isna().all() and one["half_images"].notna().all() and not one["resolved"].any()
    text = reading.words(part, ["biased-cost-x1-0"] * 4)
    assert "at equal operations sandwich (2 seeds); at equal steps biased (1 seed)" in text
    assert "no other one was tried" in text and "4 of 10 planned trainings" in text
    assert reading.steps_words(part).count("800 steps, 7.0 TFLOPs") == 3
    alone = reading.words(part[part["budget"] == "cost"])
    assert "at equal steps nothing yet" in alone and "Not in this copy" not in alone
    # Rates that have fewer seeds than the recipe's are tried, and not chosen.
    more = kept_runs({("uniform", "cost"): 2, ("sandwich", "cost"): 2}, (1.0, 0.5))
    assert "multiples of the recipe's: 0.5, 1. A row" in reading.words(more)
    assert (reading.shown(more)["rate"] == 1).all()
    # Beside each other are rates of the same seeds alone.
    more.loc[(more["rate"] == 0.5) & (more["rule"] == "sandwich"), "AP"] += 0.2
    rates = reading.by_rate(more).set_index("variant")
    assert list(rates) == ["× 0.5", "× 1", "seeds"] and (rates["seeds"] == 1).all()
    assert rates.loc["uniform", ["× 0.5", "× 1"]].tolist() == pytest.approx([0.5, 0.5])
    assert rates["× 0.5"].max() == pytest.approx(0.7) and rates["× 0.5"].idxmax().startswith("sandwich")
    assert reading.by_rate(part) is None and reading.by_rate(made({"uniform": (0.5,)})) is None
    assert reading.by_rate(more[(more["rate"] == 1) | (more["seed"] > 0)]) is None


def test_a_study_of_the_time_before_rates_varied():
    old = made({"uniform": (0.5, 0.6), "sandwich": (0.2, 0.3)})
    assert (reading.shown(old)["rate"] == 1).all() and "other rates" in reading.words(old)
    assert reading.steps_words(old) == "uniform: 5 steps, 1.0 TFLOPs; sandwich: 5 steps, 1.0 TFLOPs."
