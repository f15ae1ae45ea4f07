"""Intervals over seeds, pictures and domains: they cover what they say, and few say little."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.errors import UserError
from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments.ch09_intervals import FEW, Paired, mean_over, on_domain, over_domains

RESAMPLES = 40


def drawn(rng, effect, seeds=1, trainings=1.0, pictures=1.0):
    """What one domain's differences look like: chance of the test pictures, the same for all seeds, chance of
    every training, and resamples that vary as the pictures do.
    """
    diff = effect + pictures * rng.normal() + trainings * rng.normal(size=seeds)
    return Paired(diff, diff[:, None] + pictures * rng.normal(size=RESAMPLES))


def covered(make, times=300):
    """Share of the intervals that hold the true mean, 0.3."""
    rng = np.random.default_rng(0)
    found = [make(rng) for _ in range(times)]
    return np.mean([one.low <= 0.3 <= one.high for one in found])


@pytest.mark.parametrize(
    ("count", "seeds", "between", "trainings", "pictures"),
    [(FEW, 1, 1, 0.5, 0.5), (FEW, 3, 1, 0.1, 0.1), (10, 1, 0.1, 1, 1), (20, 1, 1, 0.3, 0.3)],
)
def test_an_average_over_domains_is_covered(count, seeds, between, trainings, pictures):
    def make(rng):
        effects = 0.3 + between * rng.normal(size=count)
        return over_domains(
            {str(i): drawn(rng, effects[i], seeds, trainings, pictures) for i in range(count)}
        )

    assert 0.92 <= covered(make) <= 0.99


@pytest.mark.parametrize(("seeds", "trainings"), [(3, 1.0), (3, 0.1), (2, 1.0)])
def test_a_domain_with_several_seeds_is_covered(seeds, trainings):
    assert 0.92 <= covered(lambda rng: on_domain(drawn(rng, 0.3, seeds, trainings))) <= 0.99


def test_one_seed_covers_its_training_alone():
    # The pictures alone: covered without chance of training, far from it with.
    assert covered(lambda rng: on_domain(drawn(rng, 0.3, 1, 0.0))) > 0.92
    assert covered(lambda rng: on_domain(drawn(rng, 0.3, 1, 3.0))) < 0.7
    rng = np.random.default_rng(0)
    one = on_domain(drawn(rng, 50.0))
    assert one.clear and not one.resolved and one.over == "pictures, one training"
    several = on_domain(drawn(rng, 50.0, 3))
    assert several.resolved and several.over == "pictures and seeds"


def test_the_fewest_domains_are_those_that_a_sign_could_tell():
    assert 2 / 2**FEW < 0.05 <= 2 / 2 ** (FEW - 1)
    rng = np.random.default_rng(0)
    for count in range(1, FEW + 2):
        for seeds in (1, 3):
            each = {str(i): drawn(rng, 50.0 + i, seeds) for i in range(count)}
            whole = over_domains(each)
            assert whole.clear and whole.resolved == (count >= FEW)
            assert ("these domains" in whole.over) == (1 < count < FEW)
        values = mean_over(np.arange(count, dtype=float))
        assert np.isnan(values.low) == (count < FEW)


@given(st.integers(1, 9), st.integers(1, 3), st.floats(-5, 5), st.floats(0.1, 4), st.integers(0, 2**31))
def test_intervals_move_and_grow_with_the_differences(count, seeds, shift, scale, number):
    rng = np.random.default_rng(number)
    each = {str(i): drawn(rng, rng.normal(), seeds) for i in range(count)}
    other = {k: Paired(shift + scale * p.diff, shift + scale * p.resampled) for k, p in each.items()}
    one, two = over_domains(each), over_domains(other)
    for name in ("mean", "low", "high"):
        assert getattr(two, name) == pytest.approx(shift + scale * getattr(one, name), abs=1e-6)
    assert one.low <= one.mean <= one.high
    # More chance of the pictures never makes an interval over domains narrower.
    wider = {
        k: Paired(p.diff, p.diff[:, None] + 3 * (p.resampled - p.diff[:, None])) for k, p in each.items()
    }
    assert count < FEW or over_domains(wider).high >= one.high - 1e-9


def made(effects, seeds=3, noise=0.0, spread=0.0, resamples=60):
    """Tests in which kind "b" is better than "a" by `effects` on each domain."""
    rng = np.random.default_rng(0)
    rows, again = [], []
    for domain, effect in effects.items():
        image = noise * rng.standard_normal(resamples)
        for seed in range(seeds):
            for target in ("N", "S", "M"):
                base = rng.random()
                gain = effect + spread * rng.standard_normal()
                for kind, ap in (("a", base), ("b", base + gain)):
                    rows.append({"domain": domain, "seed": seed, "target": target, "kind": kind, "AP": ap})
                    again.append(ap + (image if kind == "b" else 0 * image))
    return pd.DataFrame(rows), np.array(again)


SAME = dict.fromkeys("uvwxyz", 0.05)


def test_a_certain_gain_is_resolved_and_has_its_size():
    tests, again = made(SAME)
    each = analysis.differences(tests, again, "b", "a")
    assert set(each) == set(SAME) and each["x"].diff == pytest.approx([0.05] * 3)
    whole = over_domains(each)
    assert whole.resolved and whole.mean == pytest.approx(0.05) and whole.high - whole.low < 1e-9
    assert analysis.differences(tests, again, "b", "a", ["S"])["x"].diff == pytest.approx([0.05] * 3)
    with pytest.raises(UserError, match="no domain has both kinds"):
        over_domains(analysis.differences(tests, again, "b", "c"))


def test_pictures_seeds_and_domains_widen_the_interval():
    def width(effects=SAME, **kind):
        found = over_domains(analysis.differences(*made(effects, **kind), "b", "a"))
        return found.high - found.low

    assert width() < 1e-9
    assert width(noise=0.05) > 0.01
    assert width(spread=0.05) > 0.01
    assert width({name: 0.05 * i for i, name in enumerate(SAME)}) > 0.03
    # A gain on some domains and a loss on others is not resolved, however certain each is.
    mixed = analysis.differences(*made({name: 0.1 * (-1) ** i for i, name in enumerate(SAME)}), "b", "a")
    assert not over_domains(mixed).resolved
    assert all(on_domain(paired).resolved for paired in mixed.values())


def test_missing_partners_are_left_out():
    tests, again = made({"x": 0.05, "y": 0.1})
    kept_rows = ~((tests["domain"] == "y") & (tests["kind"] == "b"))
    each = analysis.differences(tests[kept_rows].reset_index(drop=True), again[kept_rows], "b", "a")
    assert set(each) == {"x"}
