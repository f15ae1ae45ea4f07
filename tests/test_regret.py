"""What a choice loses at a latency budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.errors import UserError
from rfdetr.search import regret


def test_budgets_are_even_in_the_logarithm():
    latency = np.random.default_rng(0).uniform(1, 50, 400)
    budgets = regret.latency_budgets(latency)
    assert len(budgets) == 25 and budgets[-1] == latency.max()
    assert budgets[0] == pytest.approx(np.percentile(latency, 1))
    np.testing.assert_allclose(np.diff(np.log(budgets)), np.diff(np.log(budgets))[0])
    with pytest.raises(UserError, match="positive and finite"):
        regret.latency_budgets(np.array([1.0, np.nan]))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30), gaps=st.booleans())
def test_the_best_within_a_budget_is_what_a_loop_finds(seed, count, gaps):
    rng = np.random.default_rng(seed)
    value, latency = rng.integers(0, 5, count) / 4, rng.integers(1, 8, count).astype(float)
    if gaps:
        value[rng.random(count) < 0.5] = np.nan
    budgets = np.array([0.5, 1.0, 3.3, 7.0, 9.0])
    for budget, row in zip(budgets, regret.best_within(value, latency, budgets), strict=True):
        inside = [i for i in range(count) if latency[i] <= budget and not np.isnan(value[i])]
        if not inside:
            assert row == -1
        else:
            assert value[row] == max(value[i] for i in inside) and latency[row] <= budget
            assert latency[row] == min(latency[i] for i in inside if value[i] == value[row])


def test_a_choice_counts_with_its_accuracy_on_all_images():
    truth, latency = np.array([0.3, 0.5, 0.4, 0.8]), np.array([1.0, 2.0, 2.0, 8.0])
    budgets = np.array([0.5, 1.0, 2.0, 8.0])
    # The search believes that the third is better than the second, and knows nothing of the first.
    found = regret.regret(truth, latency, np.array([np.nan, 0.5, 0.6, 0.7]), budgets)
    np.testing.assert_array_equal(found.chosen, [-1, -1, 2, 3])
    np.testing.assert_allclose(found.loss, [0.0, 0.3, 0.1, 0.0])
    assert found.mean == pytest.approx(0.1) and found.worst == pytest.approx(0.3)
    assert found.p90 == pytest.approx(np.percentile(found.loss, 90))
    assert regret.regret(truth, latency, truth, budgets).worst == 0
    with pytest.raises(UserError, match="gap"):
        regret.regret(np.array([0.1, np.nan]), np.ones(2), np.ones(2))


@given(seed=st.integers(0, 2**32 - 1))
def test_regret_is_never_negative_and_only_order_counts(seed):
    rng = np.random.default_rng(seed)
    truth, latency, believed = rng.random((3, 40))
    found = regret.regret(truth, latency + 0.1, believed)
    assert (found.loss >= 0).all()
    again = regret.regret(truth, latency + 0.1, np.exp(3 * believed) - 7)
    np.testing.assert_array_equal(found.chosen, again.chosen)
