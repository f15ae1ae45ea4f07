import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_fixtures import Simulated
from scipy.signal import lfilter

from rfdetr.benchmark import protocols, statistics
from rfdetr.errors import UserError

QUICK = {"window": 2, "max_passes": 10}


def run(runtime: Simulated, protocol: str, **options):
    if protocol != "sustained":
        options["sleep"] = runtime.sleep
    return protocols.measure(runtime, protocol, warm=QUICK, clock=runtime.clock, **options)


def test_rate_above_capacity_shows_growing_latency_and_counts_misses() -> None:
    # 50 ms of work, a frame every 20 ms: every frame waits 30 ms longer than the one before it.
    result = run(Simulated(0.050), "rate", fps=50, seconds=2)
    assert result.frames == 100
    waits = np.diff(result.latencies_ms)
    np.testing.assert_allclose(waits, 30, atol=1e-6)
    assert result.latencies_ms[0] == pytest.approx(50)
    assert result.growth_ms_per_s == pytest.approx(1500, rel=1e-3)
    # Twice the duration is 4 s, 80 frames; the other 20 are misses without a latency.
    assert len(result.latencies_ms) in (80, 81)
    assert result.unfinished == 100 - len(result.latencies_ms)
    assert result.misses == 100


def test_rate_below_capacity_is_the_service_time() -> None:
    result = run(Simulated(0.010), "rate", fps=50, seconds=2)
    np.testing.assert_allclose(result.latencies_ms, 10, atol=1e-6)
    assert (result.misses, result.unfinished, len(result.latencies_ms)) == (0, 0, 100)
    assert abs(result.growth_ms_per_s) < 1e-6


def test_one_slow_pass_delays_the_frames_behind_it() -> None:
    # Timing the passes alone would show one bad frame; the users of four frames wait.
    runtime = Simulated(*[0.010] * 20, 0.055, *[0.010] * 400)
    result = run(runtime, "rate", fps=50, seconds=1)
    slow = int(result.latencies_ms.argmax())
    np.testing.assert_allclose(result.latencies_ms[slow : slow + 5], [55, 45, 35, 25, 15], atol=1e-6)
    assert result.misses == 4


@given(service=st.floats(0.001, 0.2), fps=st.floats(5, 200), seconds=st.floats(0.2, 3))
def test_rate_conserves_frames_and_never_beats_the_service_time(service, fps, seconds) -> None:
    result = run(Simulated(service), "rate", fps=fps, seconds=seconds)
    assert len(result.latencies_ms) + result.unfinished == result.frames == max(1, round(fps * seconds))
    assert result.latencies_ms.min() >= service * 1000 - 1e-6
    assert (np.diff(result.latencies_ms) >= -1e-6).all()
    if service * fps < 0.99:
        assert result.misses == 0
    if service * fps > 1.01:
        assert result.misses == result.frames


def test_rate_uses_the_host_clock_even_on_a_device() -> None:
    result = run(Simulated(0.010, device=True), "rate", fps=50, seconds=1)
    np.testing.assert_allclose(result.latencies_ms, 10, atol=1e-6)
    assert result.clock == "host clock, from arrival"


@pytest.mark.parametrize("pause", [0, 200, 800])
def test_buffered_counts_the_pass_not_the_pause(pause) -> None:
    runtime = Simulated(0.012)
    result = run(runtime, "buffered", pause_ms=pause, samples=7)
    np.testing.assert_allclose(result.latencies_ms, 12, atol=1e-6)
    assert result.seconds == pytest.approx(7 * (0.012 + pause / 1000))


def test_device_events_replace_the_clock() -> None:
    result = run(Simulated(0.012, device=True), "buffered", pause_ms=0, samples=3)
    np.testing.assert_allclose(result.latencies_ms, 11, atol=1e-6)
    assert result.clock == "device events"


def test_sustained_runs_for_its_time_back_to_back() -> None:
    runtime = Simulated(0.020)
    result = run(runtime, "sustained", seconds=1, warm_seconds=0.5)
    assert result.seconds == pytest.approx(len(result.latencies_ms) * 0.020)
    assert 1 <= result.seconds < 1.05
    assert result.warm_up.seconds >= 0.5


def test_warm_up_is_not_in_the_sample_and_ends_when_settled() -> None:
    runtime = Simulated(*np.geomspace(0.5, 0.0101, 12), *[0.010] * 100)
    warmed = protocols.warm_up(runtime, clock=runtime.clock)
    assert warmed.steady and 15 <= warmed.passes <= 25
    result = run(Simulated(0.5, *[0.01] * 99), "buffered", pause_ms=0, samples=20)
    assert len(result.latencies_ms) == 20 and result.latencies_ms.max() < 11


def test_warm_up_gives_up_on_a_runtime_that_never_settles() -> None:
    runtime = Simulated(*np.geomspace(0.001, 1000, 400))
    warmed = protocols.warm_up(runtime, clock=runtime.clock, max_passes=40)
    assert not warmed.steady and warmed.passes == 40


@pytest.mark.parametrize(
    ("protocol", "options", "words"),
    [
        ("bufered", {}, "buffered, sustained, rate"),
        ("rate", {"fsp": 30}, "no option fsp"),
        ("rate", {"fps": 0}, "positive frame rate"),
        ("buffered", {"pause_ms": -1}, "pause"),
        ("sustained", {"seconds": 0}, "positive duration"),
    ],
)
def test_wrong_input_is_named(protocol, options, words) -> None:
    with pytest.raises(UserError, match=words):
        protocols.measure(Simulated(0.01), protocol, **options)


def test_summary_agrees_with_known_percentiles() -> None:
    found = statistics.summary(np.arange(1.0, 102.0))
    assert (found["min_ms"], found["median_ms"], found["p90_ms"], found["max_ms"]) == (1, 51, 91, 101)
    assert found["median_low_ms"] < 51 < found["median_high_ms"]
    assert statistics.summary(np.arange(1.0, 102.0)) == found


@pytest.mark.parametrize(("count", "memory"), [(60, 0.0), (20_000, 0.0), (100, 0.7), (20_000, 0.95)])
def test_median_interval_covers_the_true_median(count, memory) -> None:
    """Of independent passes and of passes that resemble the one before, of short and of long samples."""
    random = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(60):
        noise = random.normal(0, 1, count)
        values = lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise)
        low, high = statistics.median_interval(10 + 2 * values)
        hits += low <= 10 <= high
        widths.append(high - low)
    assert hits >= 51  # 95 % of 60 is 57
    if not memory:
        # 1.2533: standard error of the median of normal values, relative to that of the mean.
        assert np.median(widths) == pytest.approx(2 * 1.96 * 2 * 1.2533 / np.sqrt(count), rel=0.25)


def test_median_interval_of_few_or_equal_passes() -> None:
    assert statistics.median_interval(np.array([3.0])) == (3.0, 3.0)
    assert statistics.median_interval(np.full(1000, 2.5)) == (2.5, 2.5)
    low, high = statistics.median_interval(np.array([1.0, 2.0, 4.0]))
    assert low == 1.0 and high == 4.0


def test_noise_is_named_by_its_kind() -> None:
    random = np.random.default_rng(0)
    steady = random.normal(10, 0.1, 100)
    assert statistics.noise_reasons(steady) == []
    drift = statistics.noise_reasons(steady + np.linspace(0, 2, 100))
    assert len(drift) == 1 and "first and the second half" in drift[0]
    alternating = statistics.noise_reasons(steady + np.arange(100) % 2 * 2)
    assert any("interleaved" in reason for reason in alternating)
    assert "too few" in statistics.noise_reasons(steady[:4])[0]
