"""The latency model on machines whose true latency is known."""

import numpy as np
import pandas as pd
import pytest

from rfdetr.arch import SearchSpace
from rfdetr.errors import UserError
from rfdetr.search import latency_model
from rfdetr.search.latency_model import LatencyModel, knobs_array

SPACE = SearchSpace((64, 80, 96, 112), (4, 6, 8, 12, 16), (1, 2, 4), tuple(range(7)), (8, 15, 22, 30))


def machine(archs, noise=0.01, seed=0):
    """Latency in ms: a sum of terms, uneven steps per encoder triple, measurement noise."""
    rng = np.random.default_rng(seed)
    knobs = knobs_array(archs)
    r, p, w, d, q = knobs.T
    tokens = (r / p) ** 2
    smooth = 1 + 2e-5 * r**2 + 6e-3 * tokens + 6e-6 * tokens**2 + d * (0.15 + 1e-3 * tokens + 4e-3 * q)
    step = 1 + 0.08 * np.sin(1.7 * np.sqrt(tokens)) + 0.05 * (w == 4) * (p < 8)
    return smooth * step * (1 + noise * rng.standard_normal(len(knobs)))


def table(archs, noise=0.01, seed=0):
    frame = pd.DataFrame([a.to_dict() for a in archs])
    return frame.assign(latency_ms=machine(archs, noise, seed))


@pytest.fixture(scope="module")
def fitted():
    plan = latency_model.measurement_plan(SPACE, len(SPACE) // 10)
    return plan, LatencyModel.fit(table(plan), folds=3)


def test_held_out_error(fitted):
    plan, model = fitted
    rest = [a for a in SPACE.distinct() if a not in set(plan)]
    report = model.report(table(rest, noise=0.0))
    assert report["median_ape"] < 3 and report["p95_ape"] < 8
    assert report["measured"] == len(plan) and report["count"] == len(rest)
    assert set(model.cross_validation["method"]) == set(latency_model.METHODS)
    # The error that cross-validation announces is about the one that is met.
    announced = model.cross_validation.set_index("method").loc[model.method, "median_ape"]
    assert announced == pytest.approx(report["median_ape"], abs=2.0)


def test_the_learned_rest_pays(fitted):
    plan, model = fitted
    rest = table([a for a in SPACE.distinct() if a not in set(plan)][::5], noise=0.0)
    plain = LatencyModel.fit(table(plan), "terms").report(rest)
    assert model.report(rest)["median_ape"] < plain["median_ape"]


def test_fronts(fitted):
    _, model = fitted
    archs = SPACE.distinct()
    true = machine(archs, noise=0.0)
    accuracy = np.log(true) + 0.1 * np.sin(np.arange(len(archs)))
    found = pd.DataFrame([a.to_dict() for a in archs]).assign(
        AP=accuracy - accuracy.min(), latency_ms=true, predicted_ms=model.predict(archs)
    )
    compared = latency_model.compare_fronts(found)
    assert 0.97 < compared["hypervolume_ratio"] <= 1
    exact = latency_model.compare_fronts(found, predicted="latency_ms")
    assert exact["hypervolume_ratio"] == 1 and exact["shared"] == 1


def test_plan_is_spread_over_encoders():
    plan = latency_model.measurement_plan(SPACE, 150, seed=3)
    assert len(plan) == len(set(plan)) == 150
    assert latency_model.measurement_plan(SPACE, 150, seed=3) == plan
    assert {arch.encoder for arch in plan} == set(SPACE.triples())
    # One graph per encoder: all its sub-networks have the same number of queries.
    assert len({(arch.encoder, arch.queries) for arch in plan}) == len(SPACE.triples())
    few = latency_model.measurement_plan(SPACE, 20)
    tokens = sorted(arch.tokens for arch in few)
    every = sorted((r // p) ** 2 for r, p, _ in SPACE.triples())
    assert len(few) == 20 and (tokens[0], tokens[-1]) == (every[0], every[-1])
    assert set(latency_model.measurement_plan(SPACE, 10**6)) == set(SPACE.distinct())


def test_wrong_input_is_named(fitted):
    plan, _ = fitted
    good = table(plan)
    with pytest.raises(UserError, match="too few"):
        LatencyModel.fit(good.head(5))
    with pytest.raises(UserError, match="positive"):
        LatencyModel.fit(good.assign(latency_ms=0.0))
    with pytest.raises(UserError, match="queries"):
        LatencyModel.fit(good.drop(columns="queries"))
    with pytest.raises(UserError, match="method"):
        LatencyModel.fit(good, "magic")
