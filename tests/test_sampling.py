from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import TRAINING_GRID, SearchSpace, UserError
from rfdetr.arch import round_resolution
from rfdetr.training import sampling
from rfdetr.training.sampling import draw, image_indexes, step_slots

SMALL = SearchSpace((64, 80), (8, 16), (1, 2), (0, 1, 2), (4, 10))


@given(
    seed=st.integers(0, 2**31), step=st.integers(0, 10**7), strategy=st.sampled_from(["uniform", "sandwich"])
)
def test_a_draw_is_a_pure_function_of_seed_and_step(seed, step, strategy):
    """Whatever was drawn before, in whatever process: no generator carries state."""
    first = draw(TRAINING_GRID, seed, step, strategy)
    np.random.default_rng().random(3)
    draw(TRAINING_GRID, seed, step + 1, strategy)
    assert draw(TRAINING_GRID, seed, step, strategy) == first
    for arch in first:
        assert arch.decoder_layers == TRAINING_GRID.decoder_layers[-1]
        assert arch.queries == min(TRAINING_GRID.queries[-1], arch.tokens)


def test_draws_are_written_down():
    """Fixed values: another machine or version that draws something else cannot continue a run."""
    expected = [
        (64, 16, 1),
        (64, 16, 1),
        (80, 16, 1),
        (64, 16, 1),
        (64, 16, 2),
        (80, 8, 1),
        (64, 16, 2),
        (64, 8, 2),
    ]
    assert [draw(SMALL, 7, step)[0].encoder for step in range(8)] == expected


def test_uniform_draws_cover_the_nominal_grid_evenly():
    drawn = Counter(draw(SMALL, 0, step)[0].encoder for step in range(4000))
    assert set(drawn) == {
        (round_resolution(r, p, w), p, w) for r in (64, 80) for p in (8, 16) for w in (1, 2)
    }
    # (80, 16, 2) rounds down to (64, 16, 2): seven settings, one of them twice as likely.
    expected = {key: 4000 / 8 * (2 if key == (64, 16, 2) else 1) for key in drawn}
    assert (
        sum((drawn[k] - e) ** 2 / e for k, e in expected.items()) < 22.5
    )  # chi-square, 6 degrees, p = 0.001


def test_sandwich_holds_both_ends():
    largest, smallest, middle = draw(SMALL, 0, 3, "sandwich")
    assert (largest.encoder, smallest.encoder) == ((80, 8, 1), (64, 16, 2))
    assert middle == draw(SMALL, 0, 3)[0]


def test_biased_draws_follow_the_odds():
    odds = {(64, 8, 2): 3.0, (80, 16, 1): 1.0, (64, 16, 2): 0.0}
    drawn = Counter(draw(SMALL, 0, step, "biased", odds)[0].encoder for step in range(2000))
    assert set(drawn) == {(64, 8, 2), (80, 16, 1)}
    assert drawn[(64, 8, 2)] / 2000 == pytest.approx(0.75, abs=0.04)
    pairs = list(odds.items())[::-1]
    assert draw(SMALL, 5, 5, "biased", pairs) == draw(SMALL, 5, 5, "biased", odds), (
        "order of the odds is irrelevant"
    )


@pytest.mark.parametrize(
    "odds", [None, {}, {(64, 8, 2): 0.0}, {(64, 8, 2): -1.0}, {(64, 8, 2): float("nan")}]
)
def test_impossible_odds(odds):
    with pytest.raises(UserError, match="odds"):
        draw(SMALL, 0, 0, "biased", odds)


def test_unknown_strategy():
    with pytest.raises(UserError, match="'greedy'; choose uniform"):
        draw(SMALL, 0, 0, "greedy")


@given(
    seed=st.integers(0, 1000), length=st.integers(1, 50), first=st.integers(0, 200), count=st.integers(0, 80)
)
def test_every_image_once_per_pass_wherever_the_stream_is_entered(seed, length, first, count):
    whole = image_indexes(seed, 0, first + count, length)
    assert image_indexes(seed, first, count, length) == whole[first:]
    for start in range(0, len(whole) - length + 1, length):
        assert sorted(whole[start : start + length]) == list(range(length))


def test_passes_differ_in_order():
    first, second = image_indexes(0, 0, 30, 30), image_indexes(0, 30, 30, 30)
    assert first != second != list(range(30))


@given(step=st.integers(0, 1000), per_process=st.integers(1, 16), world=st.integers(1, 8))
def test_processes_share_the_images_of_one_big_batch(step, per_process, world):
    parts = [step_slots(step, per_process, rank, world) for rank in range(world)]
    assert [p for part in parts for p in part] == list(step_slots(step, per_process * world))


def test_streams_of_one_seed_are_independent():
    streams = [
        sampling.stream(0, sampling._ARCH, 1),
        sampling.augmentation(0, 1),
        sampling.stream(0, sampling._ORDER, 1),
    ]
    assert len({generator.random() for generator in streams}) == 3
    assert sampling.points_key(0, 1) != sampling.points_key(0, 2)
