"""Fronts, hypervolumes and choices against their definitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.errors import UserError
from rfdetr.search import pareto

values = st.one_of(st.integers(0, 6).map(float), st.just(float("nan")))
points = st.lists(st.tuples(values, values), min_size=1, max_size=25).map(lambda p: np.array(p).T)


def beaten(point, others):
    return any(o[0] >= point[0] and o[1] <= point[1] and (o[0] > point[0] or o[1] < point[1]) for o in others)


@given(points)
def test_front_is_what_nothing_beats(both):
    accuracy, cost = both
    usable = [p for p in zip(accuracy, cost, strict=True) if not np.isnan(p).any()]
    expected = [not np.isnan(p).any() and not beaten(p, usable) for p in zip(accuracy, cost, strict=True)]
    assert pareto.front_mask(accuracy, cost).tolist() == expected


@given(points)
def test_hypervolume_counts_dominated_unit_squares(both):
    accuracy, cost = both
    squares = sum(
        any(a >= x + 1 and c <= y for a, c in zip(accuracy, cost, strict=True))
        for x in range(7)
        for y in range(7)
    )
    assert pareto.hypervolume(accuracy, cost, (0.0, 7.0)) == squares


@given(points)
def test_the_front_has_the_whole_hypervolume(both):
    accuracy, cost = both
    mask = pareto.front_mask(accuracy, cost)
    whole = pareto.hypervolume(accuracy, cost, (-1.0, 8.0))
    assert pareto.hypervolume(accuracy[mask], cost[mask], (-1.0, 8.0)) == whole


TABLE = pd.DataFrame(
    {
        "AP": [0.3, 0.5, 0.5, 0.6, np.nan],
        "latency_ms": [1.0, 2.2, 2.0, 4.0, 0.5],
        "device": ["cpu", "cpu", "cpu", "cpu", "T4"],
    }
)


def test_select():
    assert pareto.select(TABLE, max_latency_ms=3).name == 2
    assert pareto.select(TABLE, target_latency_ms=4.2, device="cpu").name == 3
    assert list(pareto.front(TABLE).index) == [0, 2, 3]
    scaled = TABLE.assign(latency_ms=TABLE["latency_ms"] / 2 * pareto.published_latency("D-FINE-S"))
    assert pareto.select(scaled, like="d-fine-s").name == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_latency_ms": 0.1}, "nearest has 1 ms"),
        ({"target_latency_ms": 3.0}, "3 ms"),
        ({}, "exactly one"),
        ({"max_latency_ms": 1.0, "like": "d-fine-s"}, "exactly one"),
        ({"like": "nothing-s"}, "d-fine-s"),
        ({"max_latency_ms": 1.0, "device": "tpu"}, "cpu"),
        ({"max_latency_ms": 1.0, "accuracy": "mAP"}, "'mAP'"),
    ],
)
def test_select_says_what_is_wrong(options, message):
    with pytest.raises(UserError, match=message):
        pareto.select(TABLE, **options)
