"""Rank correlations with what they are worth: an interval over models, the number of models, and p."""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.experiments.ch07_timed import ways_of

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2000
FEW = 6
"""Below so many models an interval over resampled models is not given."""
LEVEL = 0.05
REFERENCES = {
    "GFLOPs, one convention": "gflops",
    "latency printed (T4)": "printed_ms",
    "parameters": "params_m",
}
"""What the order of the times is held against -> column of `ch07_timed.beside_print`."""


def orders(table: "pd.DataFrame") -> "pd.DataFrame":
    """Kendall's tau-b of the time in each runtime and precision with each of `REFERENCES`.

    table: from `ch07_timed.beside_print`. Columns: way, of, models, tau, low, high (95 % over resampled
    models), p, resolved (False where p is not below `LEVEL`).
    """
    import pandas as pd

    rows = []
    for way in ways_of(table):
        for label, column in REFERENCES.items():
            part = table.dropna(subset=[way, column])
            found = kendall(part[way].to_numpy(float), part[column].to_numpy(float))
            rows.append({"way": way, "of": label, **found})
    return pd.DataFrame(rows, columns=["way", "of", "models", "tau", "low", "high", "p", "resolved"])


def kendall(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """models, tau, low, high, p, resolved of two measurements of the same models."""
    from scipy.stats import kendalltau

    count = len(x)
    low = high = tau = p = float("nan")
    if count > 1:
        tau, p = (float(value) for value in kendalltau(x, y))
    if count >= FEW:
        low, high = _interval(_resampled(x, y, _drawn(count)))
    return {"models": count, "tau": tau, "low": low, "high": high, "p": p, "resolved": p < LEVEL}


def closer(table: "pd.DataFrame", one: str, other: str) -> "pd.DataFrame":
    """By how much the order of the times agrees better with one of `REFERENCES` than with another.

    Columns: way, models, difference (of tau), low, high (95 %, both on the same resampled models), resolved
    (the interval leaves out 0).
    """
    import pandas as pd

    rows = []
    for way in ways_of(table):
        part = table.dropna(subset=[way, REFERENCES[one], REFERENCES[other]])
        values = [part[column].to_numpy(float) for column in (way, REFERENCES[one], REFERENCES[other])]
        taus = [kendall(values[0], values[i])["tau"] for i in (1, 2)]
        low = high = float("nan")
        if len(part) >= FEW:
            drawn = _drawn(len(part))
            first, second = (_resampled(values[0], values[i], drawn) for i in (1, 2))
            low, high = _interval(first - second)
        apart = {"difference": taus[0] - taus[1], "low": low, "high": high}
        rows.append({"way": way, "models": len(part), **apart, "resolved": bool(low > 0 or high < 0)})
    return pd.DataFrame(rows)


def said(found: "pd.DataFrame") -> str:
    """What the correlations say, one sentence for each reference. found: from `orders`."""
    sentences = []
    for label, part in found.groupby("of", sort=False):
        sure = int(part.resolved.sum())
        text = f"With {label}: tau {_span(part.tau)} over {_span(part.models, 0)} models"
        if sure == len(part):
            text += ", resolved from zero in every column of times"
        elif sure:
            text += f", resolved from zero in {sure} of {len(part)} columns of times"
        else:
            text += ", not resolved from zero in any column of times"
        sentences.append(text + ".")
    return " ".join(sentences)


def closer_said(found: "pd.DataFrame", one: str, other: str) -> str:
    """What `closer` found, in a sentence."""
    sure = found[found.resolved]
    text = f"Tau with {one} minus tau with {other} is {_span(found.difference, sign='+')}"
    if sure.empty:
        return text + "; the difference is not resolved in any column of times."
    if len(sure) == len(found):
        return text + "; the difference is resolved in all of them."
    return text + f"; it is resolved for {', '.join(sure.way)}, and not for the others."


def _span(values: "pd.Series", digits: int = 2, sign: str = "") -> str:
    low, high = (f"{value:{sign}.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _drawn(count: int) -> np.ndarray:
    """How often each model is drawn, [RESAMPLES, count]; the same for every pair of measurements."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def _resampled(x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """tau-b on resampled models, [RESAMPLES]: pairs of copies of one model are ties in both and count
    nothing.
    """
    left, right = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    weights = drawn.astype(float)

    def total(pairs: np.ndarray) -> np.ndarray:
        return np.einsum("bi,ij,bj->b", weights, pairs, weights)

    with np.errstate(invalid="ignore", divide="ignore"):
        return total(left * right) / np.sqrt(total(left**2) * total(right**2))


def _interval(samples: np.ndarray) -> tuple[float, float]:
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
