"""Few timings, chosen where they tell most, on a machine whose true latency is known."""

import numpy as np
import pandas as pd
from test_latency_model import SPACE, machine

from rfdetr.arch import Arch
from rfdetr.search.latency_model import LatencyModel, measurement_plan
from rfdetr.search.latency_plan import measure_actively, next_measurements


class Machine:
    """Times what it is asked to, once each, and answers with all that it has timed."""

    def __init__(self, noise, seed):
        self.noise, self.seed, self.asked = noise, seed, []

    def __call__(self, archs):
        assert not set(archs) & set(self.asked)
        self.asked += archs
        frame = pd.DataFrame([a.to_dict() for a in self.asked])
        return frame.assign(latency_ms=machine(self.asked, self.noise, self.seed))


def test_two_per_cent_are_enough_and_cost_few_exports():
    count = round(0.02 * len(SPACE))
    reports, graphs = [], []
    for seed in range(2):
        timer = Machine(0.02, seed)
        measured = measure_actively(timer, SPACE, count, seed)
        assert len(measured) == count == len(set(timer.asked))
        rest = [a for a in SPACE.distinct() if a not in set(timer.asked)]
        truth = pd.DataFrame([a.to_dict() for a in rest]).assign(latency_ms=machine(rest, 0.0))
        reports.append(LatencyModel.fit(measured, "terms+process", folds=2).report(truth))
        graphs.append(len({(a.encoder, a.queries) for a in timer.asked}))
    assert np.median([r["median_ape"] for r in reports]) < 5
    assert np.median([r["p95_ape"] for r in reports]) < 15
    assert max(graphs) < count


def test_every_choice_narrows_the_prediction_most():
    """Extremes come first: what lies between known points is known."""
    archs = [Arch(r, 8, 1, d, 30) for r in (64, 80, 96, 112) for d in range(7)]
    measured = Machine(0.0, 0)(measurement_plan(SPACE, 14, 3))
    first = next_measurements(measured, SPACE.distinct(), 5)
    assert first == next_measurements(measured, SPACE.distinct(), 9)[:5]
    known = set(map(tuple, measured[list(Arch.KNOBS)].to_numpy().tolist()))
    assert not known & {tuple(a.to_dict().values()) for a in first}
    assert next_measurements(measured, archs[:1] * 1, 5, of_interest=archs) == archs[:1]


def test_what_was_timed_before_counts_and_a_small_space_is_timed_whole():
    few = measurement_plan(SPACE, 20, 1)
    timer = Machine(0.01, 0)
    timer(few)
    again = Machine(0.01, 0)
    again.asked = list(few)
    measured = measure_actively(
        lambda archs: again([a for a in archs if a not in set(again.asked)]), SPACE, 30, seed=2
    )
    assert 30 <= len(measured) < 40
    small = type(SPACE)((64,), (8,), (1,), tuple(range(7)), (8, 30))
    assert len(measure_actively(Machine(0.01, 0), small, 99)) == len(small.distinct())
