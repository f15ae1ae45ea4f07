import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import SearchSpace
from rfdetr.arch import Arch
from rfdetr.search.pareto import front_mask
from rfdetr.search.timing import candidates

SPACE = SearchSpace((64, 96, 128), (8, 16), (1, 2), (0, 1, 2), (5, 10))


def table(seed):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame([arch.to_dict() for arch in SPACE.distinct()])
    return rows.assign(AP=rng.random(len(rows)), gflops=rng.random(len(rows)))


@given(st.integers(1, 80), st.integers(0, 5))
def test_candidates_are_different_and_as_many_as_asked_for(count, seed):
    rows = table(seed)
    found = candidates(rows, count, seed)
    assert len(found) == len(set(found)) <= count
    # A quarter as many encoder settings, each of which has six sub-networks.
    settings = min(-(-count // 4), len(SPACE.triples()))
    assert len({arch.encoder for arch in found}) == settings
    assert len(found) == min(count, 6 * settings)


def test_the_front_comes_first_in_every_setting():
    rows = table(3)
    best = rows[front_mask(rows["AP"].to_numpy(), rows["gflops"].to_numpy())]
    settings = len(best[list(Arch.KNOBS[:3])].drop_duplicates())
    found = {tuple(arch.to_dict().values()) for arch in candidates(rows, 4 * 3 * settings)}
    assert set(best[list(Arch.KNOBS)].itertuples(index=False, name=None)) <= found


def test_the_same_seed_gives_the_same_sample():
    assert candidates(table(0), 12, 7) == candidates(table(0), 12, 7)


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_budgets(count):
    assert len(candidates(table(0), count)) == count
