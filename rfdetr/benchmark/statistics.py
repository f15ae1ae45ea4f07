"""Numbers of a latency sample: percentiles, an interval of the median, agreement of two samples."""

import numpy as np

NOISE_LIMIT = 0.05  # relative; two medians further apart than this are not the same number
# For the interval of the median: batches enough to know their spread, each longer than what hangs together.
_FEWEST, _MOST, _LENGTH = 5, 20, 20


def summary(latencies_ms: np.ndarray) -> dict[str, float]:
    """Count, min, median, mean, p90, p95, p99, max, std (ms) and a 95 % interval of the median.

    latencies_ms: [N], N >= 1, in the order in which they were measured.
    """
    values = np.asarray(latencies_ms, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError("a summary needs at least one latency")
    median, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    low, high = median_interval(values)
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


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the median of passes in the order in which they were measured, which need not be
    independent.

    How many passes lie below the median is a mean of zeros and ones. Its standard error is taken from the
    means of successive batches (so slow drifts and runs of slow passes widen it), and at least that of
    independent passes; the interval's ends are the quantiles that far from one half.
    """
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    count = len(values)
    error, freedom = 0.5 / np.sqrt(count), max(count - 1, 1)
    batches = int(np.clip(count // _LENGTH, _FEWEST, _MOST))
    if count >= 4 * batches:
        length = count // batches
        below = values[: batches * length] < np.median(values)
        # Half of the passes that equal the median, as many do with a coarse clock, count as below.
        below = below + 0.5 * (values[: batches * length] == np.median(values))
        batched = below.reshape(batches, length).mean(axis=1).std(ddof=1) / np.sqrt(batches)
        if batched > error:
            error, freedom = float(batched), batches - 1
    reach = float(stdtrit(freedom, (1 + level) / 2)) * error
    low, high = np.quantile(values, [max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)])
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
