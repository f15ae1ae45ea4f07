"""Table 5 in miniature: its trainings, made small, and the chain of differences."""

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from study_parts import perform_all

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.experiments import ch07_miniature, ch10_miniature
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.base.studies import Study
from rfdetr.model.detector import RFDETR
from rfdetr.paper import tables


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full", "gpu", "t4"])
def test_every_step_changes_one_thing_and_is_a_sub_network(profile):
    space = PROFILES[profile].recipe.training
    chain = ch10_miniature.steps_of(space)
    assert list(chain) == list(ch10_miniature.LABELS) and len({chain[n] for n in ch10_miniature.TRAINED}) == 1
    sides = {name: arch.resolution // arch.patch_size for name, arch in chain.items()}
    assert sides["patch size"] == sides["supernet"] > sides["resolution"]
    for before, step in zip(list(chain), list(chain)[1:], strict=False):
        old, new = chain[before].to_dict(), chain[step].to_dict()
        changed = {knob for knob in old if old[knob] != new[knob]}
        wanted = {"patch size": {"patch_size", "resolution"}, "windows": {"windows"}}
        wanted |= {"resolution": {"resolution"}, "decoder layers": {"decoder_layers"}}
        assert changed == wanted.get(step, set())
        # Windows are cut from whole tokens: nothing is rounded when the network is asked for it.
        assert new["resolution"] % (new["patch_size"] * new["windows"]) == 0


def test_printed_labels_are_those_of_the_table():
    printed = {row["label_printed"] for row in tables.rows(5)}
    assert {label for label in ch10_miniature.COUNTERPART.values() if label} <= printed


def test_batch_norm_takes_the_place_of_every_norm_of_the_projector():
    model = RFDETR(**TINY)
    before = {name for name, _ in model.projector.named_parameters() if "norm" in name}
    count = ch10_miniature.use_batch_norm(model)
    kinds = {type(module).__name__ for module in model.projector.modules() if "Norm" in type(module).__name__}
    assert count >= 8 and {"ConvNorm", "BatchNorm2d"} == kinds
    assert {name for name, _ in model.projector.named_parameters() if "norm" in name} == before
    assert ch10_miniature.use_batch_norm(model) == 0


def test_the_study_runs_to_the_end(tmp_path):
    study = Study("mini", "smoke", ch10_miniature.parts, ch10_miniature.collect, ch10_miniature.STUDY.modules)
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="no seed has all trainings"):
        study.keep(tmp_path / "mini", 0, store)
    perform_all(study.task(0, store))
    study.keep(tmp_path / "mini", 0, store)
    result = kept.load("mini", tmp_path)
    runs = result.tables["runs"]
    assert set(runs.variant) == set(ch10_miniature.LABELS) and runs.groupby("variant").size().eq(2).all()
    # All trainings see as many pictures.
    recipes = ch10_miniature.recipes(PROFILES["smoke"]).values()
    batch = PROFILES["smoke"].recipe.train["batch_size"]
    assert len({r["steps"] * r.get("batch_size", batch) for r in recipes}) == 1
    table = ch10_miniature.chain_table(runs, result.arrays["resampled"])
    assert list(table.step) == list(ch10_miniature.LABELS) and not result.record["missing"]
    assert np.isnan(table.difference[0]) and table.difference[1:].notna().all()


def test_a_step_is_resolved_only_beyond_both_kinds_of_chance():
    rows, again = [], []
    rng = np.random.default_rng(0)
    for place, step in enumerate(ch10_miniature.LABELS):
        for seed in range(3):
            gain = 0.1 if step == "windows" else 0.0
            noise = 0.001 * rng.standard_normal()
            ap = 0.5 + (0.1 if place > list(ch10_miniature.LABELS).index("windows") else gain) + noise
            rows.append({"variant": step, "seed": seed, "arch": "a", "AP": ap, "group": "all"})
            again.append(ap + 0.001 * rng.standard_normal(50))
    runs = pd.DataFrame(rows).assign(steps=1, tflops=1.0, updates=np.nan)
    found = ch10_miniature.chain_table(runs, np.array(again)).set_index("step")
    assert found.resolved["windows"] and found.difference["windows"] == pytest.approx(0.1, abs=0.01)
    assert not found.resolved.drop("windows").any()


def test_a_grid_of_its_own_values():
    chain = ch10_miniature.steps_of(SearchSpace((60, 90), (5, 10), (1, 3), (3,), (20,)))
    assert chain["supernet"] == Arch(45, 5, 3, 2, 20) and chain["windows"].windows == 1


def test_one_scaled_network_is_never_above_the_front():
    found = ch07_miniature.miniature()
    front, family = found.front, found.family
    assert front["AP"].is_monotonic_increasing and front["predicted_ms"].is_monotonic_increasing
    assert (family["front_AP"] >= family["AP"]).all() and family["resolution"].is_unique
    assert len(family.drop_duplicates(ch07_miniature._FIXED)) == 1 and len(family) == 11
    assert found.points > 1000 and set(front["arch"]) & set(family["arch"])
