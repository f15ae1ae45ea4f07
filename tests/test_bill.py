"""The bill of a search: the formula against the counter, extrapolation with an error, lines that add up."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from study_parts import perform_all

from rfdetr import RFDETR
from rfdetr.arch import SEARCH_GRID
from rfdetr.errors import UserError
from rfdetr.experiments import ch05_bill
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.plots import regret
from rfdetr.search import cost, grid

SMOKE = get_profile("smoke")


def test_counter_and_formula_agree_and_the_study_is_kept(tmp_path):
    study, store = replace(ch05_bill.STUDY, profile="smoke"), Store(tmp_path)
    with pytest.raises(UserError, match="nothing is counted yet: run `python -m rfdetr results search-bill`"):
        study.keep(tmp_path / "none", 0, store)
    perform_all(study.task(0, store))
    study.keep(tmp_path / "search-bill", 0, store)
    found = kept.load("search-bill", tmp_path)
    counted, clocked = found.tables["counted"], found.tables["clocked"]
    assert len(counted) == 2 and len(clocked) == 4 and found.record["missing"] == []
    # Alone exactly; shared but for what is done once a batch.
    np.testing.assert_allclose(counted["one_by_one"], counted["one_by_one_formula"], rtol=1e-5)
    assert 0 <= (counted["shared"] / counted["shared_formula"] - 1).max() < 0.01
    assert (counted["one_by_one"] > counted["shared"]).all() and (clocked["seconds"] > 0).all()
    # One wrong count is seen.
    wrong = counted.assign(one_by_one=counted["one_by_one"] * [1, 1.03])
    assert ch05_bill.counted_error(wrong) == pytest.approx(0.03, rel=1e-3)


@given(
    fixed=st.floats(0, 0.5),
    speed=st.floats(5, 80),
    noise=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 99),
)
def test_seconds_are_extrapolated_with_their_error(fixed, speed, noise, seed):
    rng = np.random.default_rng(seed)
    every = rng.uniform(1, 800, 200)
    timed = pd.DataFrame({"gflops": np.sort(every)[10::20]})
    timed["seconds"] = (fixed + timed["gflops"] / speed) * np.exp(noise * rng.standard_normal(len(timed)))
    total, error = ch05_bill.core_seconds(timed, every)
    true = fixed * len(every) + every.sum() / speed
    assert total == pytest.approx(true, rel=1e-6 if not noise else 0.2)
    assert error <= 0.1 * total if noise else error < 1e-6 * total


def test_the_bill_adds_up():
    config, space = ch05_bill.printed(get_profile("full"))
    assert space is SEARCH_GRID and len(space) == 6468
    total = cost.grid_flops(config, space).iloc[-1]
    clocked = pd.DataFrame({"gflops": [10.0, 100.0, 1000.0], "seconds": [1.0, 10.0, 100.0]})
    table = ch05_bill.bill(config, space, 10_000, {"a fiftieth": 0.02}, clocked).set_index("way")
    assert table.loc["shared", "factor"] == pytest.approx(total["ratio"])
    assert table.loc["a fiftieth", "factor"] == pytest.approx(50 * total["ratio"]) and total["ratio"] > 20
    assert table.loc["one by one", "t4_hours"] == pytest.approx(10_000)
    np.testing.assert_allclose(table["exaflops"] * table["factor"], table.loc["one by one", "exaflops"])
    # A tenth of a second per GFLOP and image, by the timings.
    assert table.loc["shared", "core_hours"] == pytest.approx(total["shared_gflops"] / 10 * 5000 / 3600)
    assert table["core_error"].max() < 1e-6 * table["core_hours"].max()
    assert regret.bill(table.reset_index()).axes


def test_every_line_of_the_bill_follows_from_those_it_names():
    config, space = ch05_bill.printed(get_profile("full"))
    lines = ch05_bill.lines(config, space, 10_000)
    value = dict(zip(lines["line"], lines["value"], strict=True))
    assert value[1] == len(space) == 6468 and value[2] == len(space.distinct())
    assert value[3] == len(grid.units(space)) <= 231 and value[4] == 5000
    formulas = 0
    for row in lines.to_dict("records"):
        text = re.sub(
            r"line (\d+)", lambda found: repr(value[int(found[1])]), re.split("[,:]", row["from"])[0]
        )
        text = text.replace("×", "*").replace("²", "**2").replace(" bytes", "").replace(" COCO numbers", "")
        if re.fullmatch(r"[\d.e+*/() ]+", text):
            formulas += 1
            scale = {"MB": 1e6, "GB": 1e9}.get(row["unit"], 1)
            assert row["value"] == pytest.approx(eval(text) / scale), row["quantity"]
    assert formulas == 7
    # The sums that the others name.
    bytes_ = 15 * 5000
    assert value[13] == pytest.approx(bytes_ * sum(arch.queries for arch in space.distinct()) / 2e9)
    most = max(sum(queries for _, queries in pairs) for pairs in grid.units(space).values())
    assert value[14] == pytest.approx(bytes_ * most / 1e9)
    parameters = sum(p.numel() for p in meta_network(config).parameters())
    assert value[16] == pytest.approx(4 * parameters / 1e6, rel=0.02)
    assert [ch05_bill.shown(n) for n in (6468.0, 26.369392, 0.3412, 1899114.3)] == [
        "6,468", "26.37", "0.3412", "1,899,114",
    ]  # fmt: skip


def meta_network(config):
    with torch.device("meta"):
        return RFDETR(**config.to_dict())


def test_settings_are_spread_over_the_tokens():
    chosen = ch05_bill.spread_settings(SEARCH_GRID, 10)
    sides = [r / p for r, p, _ in chosen]
    assert len(set(chosen)) == 10 and sides == sorted(sides)
    every = sorted(r / p for r, p, _ in grid.units(SEARCH_GRID))
    assert every[0] < sides[0] < every[len(every) // 4] and every[3 * len(every) // 4] < sides[-1] < every[-1]
