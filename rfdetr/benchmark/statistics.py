"""Numbers of a latency sample: percentiles, a bootstrap interval of the median, agreement of two samples."""

import numpy as np

NOISE_LIMIT = 0.05  # relative; two medians further apart than this are not the same number


def summary(latencies_ms: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Count, min, median, mean, p90, p95, p99, max, std (ms) and a 95 % bootstrap interval of the median.

    latencies_ms: [N], N >= 1, in the order in which they were measured.
    """
    values = np.asarray(latencies_ms, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError("a summary needs at least one latency")
    median, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    low, high = median_interval(values, seed)
    return {
        "count": len(values),
        "min_ms": float(values.min()),
        "median_ms": float(median),
        "median_low_ms": low,
        "median_high_ms": high,
        "mean_ms": float(values.mean()),
        "p90_ms": float(p90),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "max_ms": float(values.max()),
        "std_ms": float(values.std()),
    }


def median_interval(
    values: np.ndarray, seed: int = 0, resamples: int = 500, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median."""
    # More passes than this do not change the interval, but the resampling would take long.
    values = np.asarray(values, dtype=float)[:: max(1, len(values) // 2000)]
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    medians = np.median(values[draws], axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Relative difference of two medians, |a - b| / min(a, b); infinite if only one is zero (a coarse
    clock).
    """
    a, b = sorted((float(np.median(first)), float(np.median(second))))
    return 0.0 if a == b else (b - a) / a if a > 0 else float("inf")


def noise_reasons(latencies_ms: np.ndarray, limit: float = NOISE_LIMIT) -> list[str]:
    """Why the median of this sample should not be relied on; empty if nothing speaks against it.

    Halves in time show a drift, interleaved halves (every second pass) a spread that more passes would not
    have hidden.
    """
    values = np.asarray(latencies_ms, dtype=float)
    if len(values) < 8:
        return [f"only {len(values)} passes: too few to judge the median"]
    half = len(values) // 2
    reasons = []
    drift = difference(values[:half], values[half:])
    if drift > limit:
        reasons.append(f"medians of the first and the second half differ by {drift:.0%} (limit {limit:.0%})")
    spread = difference(values[::2], values[1::2])
    if spread > limit:
        reasons.append(f"medians of interleaved halves differ by {spread:.0%} (limit {limit:.0%})")
    return reasons


def queue_growth(arrivals_s: np.ndarray, latencies_ms: np.ndarray) -> float:
    """Slope of latency over arrival time, ms per s: the median slope of all pairs (Theil-Sen), 0 for one
    frame.
    """
    if len(arrivals_s) < 2:
        return 0.0
    step = max(1, len(arrivals_s) // 400)
    times, values = np.asarray(arrivals_s)[::step], np.asarray(latencies_ms)[::step]
    early, late = np.triu_indices(len(times), k=1)
    return float(np.median((values[late] - values[early]) / (times[late] - times[early])))
