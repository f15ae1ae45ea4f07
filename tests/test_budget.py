"""Budgeted search replayed on a table whose front is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, scramble

from rfdetr import RFDETR
from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.search import budget, grid, replay
from rfdetr.search.pareto import hypervolume

SPACE = SearchSpace((64, 80, 96, 112, 128), (4, 8, 12, 16), (1, 2, 4), (0, 1, 2, 3), (4, 8, 16))


@pytest.fixture(scope="module")
def exact():
    table = pd.DataFrame([arch.to_dict() for arch in SPACE.distinct()])
    r, p, w, d, q = (table[c].to_numpy(float) for c in table.columns)
    tokens = (r / p) ** 2
    table["latency_ms"] = 1 + 5e-3 * tokens + 1e-5 * r**2 + d * (0.2 + 0.01 * q) + 0.05 * w
    table["AP"] = 0.7 * (1 - np.exp(-tokens / 80)) * (1 - 0.4 * np.exp(-d)) * (1 - 0.2 * np.exp(-q / 5))
    return table


@pytest.fixture(scope="module")
def unit_cost():
    return {(r, p, w): 1 + (r / p) ** 2 / 50 for r, p, w in SPACE.triples()}


@pytest.mark.parametrize("sampler", budget.SAMPLERS)
def test_curves_are_honest(exact, unit_cost, sampler):
    curves = replay.budgeted_curves(exact, unit_cost, samplers=[sampler], seeds=range(2), budget=0.25)
    for _, run in curves.groupby("seed"):
        assert run["spent"].is_monotonic_increasing and run["spent"].iloc[-1] <= 0.25
        # Sums of different lengths differ in the last bits.
        assert run["hypervolume"].diff().min() > -1e-9 and run["hypervolume"].between(0, 1 + 1e-9).all()
        assert run["units"].tolist() == list(range(1, len(run) + 1))
    again = replay.budgeted_curves(exact, unit_cost, samplers=[sampler], seeds=[1], budget=0.25)
    pd.testing.assert_frame_equal(again, curves[curves["seed"] == 1].reset_index(drop=True))
    assert curves["hypervolume"].max() > 0.7


def test_the_whole_budget_gives_the_exact_front(exact, unit_cost):
    curves = replay.budgeted_curves(exact, unit_cost, samplers=["random"], seeds=[0], budget=1.0)
    last = curves.iloc[-1]
    assert last["hypervolume"] == 1 and last["spent"] == pytest.approx(1)
    assert last["evaluated"] == len(exact) and last["units"] == len(SPACE.triples())


def test_siblings_help(exact, unit_cost):
    def at(siblings):
        curves = replay.budgeted_curves(
            exact, unit_cost, samplers=["random"], seeds=range(5), budget=0.2, siblings=siblings
        )
        return replay.reached(curves, budget=0.2)["hypervolume"].iloc[0]

    assert at(True) > at(False)


def test_guided_beats_random(exact, unit_cost):
    curves = replay.budgeted_curves(exact, unit_cost, samplers=["random", "guided"], budget=0.2)
    table = replay.reached(curves, budget=0.2).set_index("sampler")
    assert table.loc["guided", "hypervolume"] > table.loc["random", "hypervolume"]
    assert table.loc["guided", "seeds"] == 5


def test_reached_counts_what_the_table_says(exact):
    curves = pd.DataFrame(
        {"sampler": "x", "seed": [0, 0, 1], "spent": [0.02, 0.2, 0.04], "hypervolume": [0.5, 0.995, 0.7]}
    )
    row = replay.reached(curves).iloc[0]
    assert (row["hypervolume"], row["lowest"], row["highest"]) == (0.6, 0.5, 0.7)
    assert row["cost_to_target"] == np.inf
    assert hypervolume(exact["AP"].to_numpy(), exact["latency_ms"].to_numpy(), (0, 5)) > 0


class Tiny:
    """A real network and data for a search that evaluates."""

    space = SearchSpace((64, 72), (8, 12), (1, 2), (0, 2), (4, 10))

    def __init__(self):
        torch.manual_seed(0)
        self.model = scramble(RFDETR(**TINY | {"num_classes": 2}).double()).eval()
        self.data = scenes("parity", "val", size=6, canvas=64)

    @staticmethod
    def latency(points):
        return (
            1
            + (points["resolution"] / points["patch_size"]) ** 2
            + 5 * points["decoder_layers"]
            + points["queries"]
        )


@pytest.mark.parametrize("sampler", ["guided", "tpe"])
def test_a_budgeted_search_evaluates_what_it_pays_for(sampler, tmp_path):
    tiny = Tiny()
    exact = grid.evaluate_grid(tiny.model, tiny.data, tiny.space).drop_duplicates(list(Arch.KNOBS))
    spent = []
    given = {
        "sampler": sampler,
        "folder": tmp_path,
        "progress": lambda part, units: spent.append((part, units)),
    }
    part = budget.budgeted_search(tiny.model, tiny.data, tiny.space, tiny.latency, budget=0.5, **given)
    assert 0 < part.attrs["spent"] <= 0.5 and spent[-1] == (part.attrs["spent"], part.attrs["units"])
    joined = part.merge(exact, on=list(Arch.KNOBS), suffixes=("", "_exact"))
    assert len(joined) == len(part) < len(exact)
    assert (joined["AP"] == joined["AP_exact"]).all() and (joined["AP50"] == joined["AP50_exact"]).all()
    assert part["step"].nunique() == part.attrs["units"] == len(list(tmp_path.rglob("*.json")))
    again = budget.budgeted_search(tiny.model, tiny.data, tiny.space, tiny.latency, budget=0.5, **given)
    assert again.equals(part)
    whole = budget.budgeted_search(tiny.model, tiny.data, tiny.space, tiny.latency, budget=1.0, **given)
    assert len(whole) == len(exact) and whole.attrs["spent"] == pytest.approx(1)


def test_a_budget_that_pays_for_nothing_is_refused():
    tiny = Tiny()
    for budget_given, message in ((1e-6, "pays for no unit"), (0, "above 0"), (2, "at most 1")):
        with pytest.raises(UserError, match=message):
            budget.budgeted_search(tiny.model, tiny.data, tiny.space, tiny.latency, budget=budget_given)


def test_wrong_input_is_named(exact, unit_cost):
    with pytest.raises(UserError, match="latency_ms"):
        replay.budgeted_curves(exact.drop(columns="latency_ms"), unit_cost)
    with pytest.raises(UserError, match="unit_cost"):
        replay.budgeted_curves(exact, {(64, 8, 1): 1.0})
    with pytest.raises(UserError, match="sampler"):
        replay.budgeted_curves(exact, unit_cost, samplers=["magic"])
