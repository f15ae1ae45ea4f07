"""Searches within a budget, replayed on tables whose front is known."""

import numpy as np
import pandas as pd
import pytest
from search_tables import IMAGES, SPACE, by_resolution, by_tokens, make, unit_cost

from rfdetr.errors import UserError
from rfdetr.search import budget, replay
from rfdetr.search.pareto import hypervolume

COST = unit_cost()


@pytest.fixture(scope="module")
def exact():
    return make()


@pytest.mark.parametrize("sampler", budget.SAMPLERS)
def test_curves_are_honest(exact, sampler):
    most = 0.1 if sampler in budget.WHOLE else 0.02
    given = {"samplers": [sampler], "budget": most, "images": IMAGES}
    curves = replay.budgeted_curves(exact, COST, seeds=range(2), **given)
    for _, run in curves.groupby("seed"):
        assert run["spent"].is_monotonic_increasing and run["spent"].iloc[-1] <= most + 1e-9
        assert run["hypervolume"].between(0, 1 + 1e-9).all()
        assert (run["regret_mean"] <= run["regret_worst"] + 1e-12).all() and (run["regret_mean"] >= 0).all()
        assert run["units"].is_monotonic_increasing and run["units"].iloc[-1] > 0
        if sampler in budget.WHOLE:
            # Sums of different lengths differ in the last bits.
            assert (np.diff(run["hypervolume"]) > -1e-9).all() and (np.diff(run["regret_worst"]) < 1e-9).all()
            assert run["units"].tolist() == list(range(1, len(run) + 1))
    again = replay.budgeted_curves(exact, COST, seeds=[1], **given)
    pd.testing.assert_frame_equal(again, curves[curves["seed"] == 1].reset_index(drop=True))


@pytest.mark.parametrize("sampler", ["random", "guided", "halving", "multifidelity"])
def test_the_whole_budget_gives_the_exact_front(sampler):
    table = make(levels=(100,), images=200)
    table = table[table["decoder_layers"].isin([0, 2]) & (table["resolution"] < 100)]
    curves = replay.budgeted_curves(table, COST, samplers=[sampler], seeds=[0], budget=1.0, images=200)
    last = curves.iloc[-1]
    settings = table[["resolution", "patch_size", "windows"]].drop_duplicates()
    assert last["units"] == len(settings)
    if sampler != "halving":  # which may give up settings for good
        assert last["hypervolume"] == pytest.approx(1) and last["regret_worst"] == 0
        assert last["evaluated"] == len(table) and last["spent"] == pytest.approx(1)


@pytest.mark.parametrize("law", [by_tokens, by_resolution])
def test_few_images_of_many_settings_beat_all_images_of_few(law):
    """Also where accuracy is no function of the tokens, which the search may not assume."""
    table = make(law, seed=3)
    found = replay.regret_table(
        table,
        COST,
        samplers=["multifidelity", "token-rule", "guided", "cheap-random"],
        seeds=range(2),
        costs=[0.03],
        images=IMAGES,
    )
    row = replay.summary(found).set_index("sampler")
    assert row["regret_mean"].idxmin() == row["regret_worst"].idxmin() == "multifidelity"
    assert row.loc["multifidelity", "regret_mean"] < 0.004
    assert (found["spent"] <= 0.03 + 1e-9).all()


def test_the_rule_of_tokens_is_right_where_the_law_holds_and_wrong_where_not():
    def regret(law):
        table = replay.Table(make(law, own=0.0), COST, images=IMAGES)
        problem = table.problem()
        run = budget.Run(problem, "token-rule", 0, 1.0)
        list(run.steps(lambda looks: table.evaluate(problem, looks)))
        return table.measures(run.believed())["regret_mean"]

    assert regret(by_tokens) < 1e-9 < 0.02 < regret(by_resolution)


def test_a_replay_of_another_agreement_takes_its_looks(exact):
    """Workers: what one has decided, all others do."""
    table = replay.Table(exact, COST, images=IMAGES)
    first, decided = table.problem(), {}
    run = budget.Run(
        first, "multifidelity", 0, 0.02, lambda number, decide: decided.setdefault(number, decide())
    )
    list(run.steps(lambda looks: table.evaluate(first, looks)))
    second = table.problem()
    late = budget.Run(second, "multifidelity", 0, 0.02, lambda number, decide: decided[number])
    list(late.steps(lambda looks: table.evaluate(second, looks)))
    np.testing.assert_array_equal(first.seen, second.seen)
    np.testing.assert_array_equal(run.believed(), late.believed())
    alone = table.problem()
    list(budget.Run(alone, "multifidelity", 0, 0.02).steps(lambda looks: table.evaluate(alone, looks)))
    np.testing.assert_array_equal(first.seen, alone.seen)


def test_beliefs_come_with_an_honest_deviation(exact):
    table = replay.Table(exact, COST, images=IMAGES)
    problem = table.problem()
    run = budget.Run(problem, "multifidelity", 0, 0.05)
    list(run.steps(lambda looks: table.evaluate(problem, looks)))
    looked = np.array([problem.reached[problem.triple(row)] >= 0 for row in range(len(table.truth))])
    wrong = np.abs(run.believed() - table.truth)[looked] / np.maximum(run.deviation()[looked], 1e-9)
    assert (wrong < 3).mean() > 0.8 and (wrong > 0.2).mean() > 0.2
    assert np.isnan(budget.Run(table.problem(), "random", 0, 0.05).deviation()).all()


def test_reached_counts_what_the_table_says(exact):
    curves = pd.DataFrame(
        {"sampler": "x", "seed": [0, 0, 1], "spent": [0.02, 0.2, 0.04], "hypervolume": [0.5, 0.995, 0.7]}
    )
    row = replay.reached(curves).iloc[0]
    assert (row["hypervolume"], row["lowest"], row["highest"]) == (0.6, 0.5, 0.7)
    assert row["cost_to_target"] == np.inf
    assert hypervolume(exact["AP"].to_numpy(), exact["latency_ms"].to_numpy(), (0, 5)) > 0


def test_the_latest_look_is_brought_to_all_images(exact):
    table = replay.Table(exact, COST, images=IMAGES)
    problem = table.problem()
    triples = SPACE.triples()
    for triple, levels in ((triples[0], (0, 1, 5)), (triples[1], (0,)), (triples[2], (0, 1))):
        for level in levels:
            problem.take(triple, level, problem.members[triple], table.seen[level, problem.members[triple]])
    latest, (first, second, third) = problem.latest(), (problem.members[t] for t in triples[:3])
    np.testing.assert_array_equal(latest[first], table.truth[first])
    both = first + third
    shift = np.mean(table.seen[1, both] - table.seen[0, both])
    np.testing.assert_allclose(latest[third], table.seen[1, third])
    np.testing.assert_allclose(latest[second], table.seen[0, second] + shift)
    assert np.isnan(latest[problem.members[triples[3]]]).all()
    assert problem.spent == pytest.approx(
        (COST[triples[0]] + COST[triples[1]] * 0.02 + COST[triples[2]] * 0.05) / sum(COST.values())
    )


def test_wrong_input_is_named(exact):
    with pytest.raises(UserError, match="latency_ms"):
        replay.budgeted_curves(exact.drop(columns="latency_ms"), COST, images=IMAGES)
    with pytest.raises(UserError, match="unit_cost"):
        replay.budgeted_curves(exact, {(64, 8, 1): 1.0}, images=IMAGES)
    with pytest.raises(UserError, match="sampler"):
        replay.budgeted_curves(exact, COST, samplers=["magic"], images=IMAGES)
    with pytest.raises(UserError, match="number of all images"):
        replay.budgeted_curves(exact, COST)
    for part in (0, 2):
        with pytest.raises(UserError, match="budget is a part"):
            replay.budgeted_curves(exact, COST, budget=part, images=IMAGES)
