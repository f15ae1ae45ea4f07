"""Intervals for differences that were measured on several domains, with few seeds and few domains.

A difference on one domain varies with the test pictures, which are resampled, and with the training, which
only further seeds show. Its variance is that over the resamples plus that over the seeds divided by their
number, its degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946). With one seed the interval
covers pictures alone, and nothing is called resolved by it.

An average over domains is about domains that were not measured, so the domains are the sample (Demšar, JMLR
7, 2006): Student's t over their means, in whose scatter pictures and trainings are contained already. It is
never narrower than pictures and seeds alone make it (the modified interval of Hartung and Knapp; Röver, Knapp
and Friede, BMC Medical Research Methodology 15, 2015). A bootstrap of domains, then of seeds and pictures in
them, counts the lower levels twice (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8) and is too
narrow where they are small, since with n domains its spread lacks a factor n / (n - 1) and Student's tails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.errors import UserError

FEW = 6
"""Domains below which nothing is said about domains in general: the fewest with which differences of one sign
on every domain are less likely than 5 % by chance (two sides, 2 / 2^n).
"""
LEVEL = 0.95
PICTURES, SEEDS = "pictures, one training", "pictures and seeds"
DOMAINS = "domains"


@dataclass(frozen=True)
class Paired:
    """Differences in AP on one domain: diff [seeds]; resampled [seeds, R] on the same resampled pictures for
    all seeds (R may be 0).
    """

    diff: np.ndarray
    resampled: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean difference and the ends of its 95 % interval (NaN where nothing says how wide it is).

    over     what the interval covers, in words
    enough   it covers other trainings, and of an average over domains other domains
    """

    mean: float
    low: float
    high: float
    over: str
    enough: bool

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0, whatever it covers."""
        return self.low > 0 or self.high < 0

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0 and covers more than these trainings and these domains."""
        return self.enough and self.clear

    def row(self) -> dict[str, Any]:
        """For a table: difference, low, high, over, clear, resolved."""
        ends = {"difference": self.mean, "low": self.low, "high": self.high}
        return {**ends, "over": self.over, "clear": self.clear, "resolved": self.resolved}


def on_domain(paired: Paired) -> Estimate:
    """Mean difference on one domain, over its pictures and, if there are several, its seeds."""
    seeds = len(paired.diff)
    over = PICTURES if seeds == 1 else SEEDS
    half = _half(_variances(paired), 1)
    return _estimate(float(paired.diff.mean()), half, over, seeds > 1)


def over_domains(each: Mapping[str, Paired]) -> Estimate:
    """Mean over domains, each counting alike however many seeds it has.

    Of fewer than `FEW` domains the interval is about these very domains: their pictures, and their seeds if
    all have several. UserError when there are no domains.
    """
    if not each:
        raise UserError("no domain has both kinds of networks; make the result anew, for longer")
    means = np.array([paired.diff.mean() for paired in each.values()])
    variances = [part for paired in each.values() for part in _variances(paired)]
    if len(each) >= FEW:
        within = sum(value for value, _ in variances) / len(means) ** 2
        return mean_over(means, 0.0 if np.isnan(within) else within)
    what = SEEDS if all(len(paired.diff) > 1 for paired in each.values()) else PICTURES
    over = f"{what}, of {'this domain' if len(each) == 1 else 'these domains'}"
    return _estimate(float(means.mean()), _half(variances, len(means)), over, False)


def mean_over(values: np.ndarray, least: float = 0.0) -> Estimate:
    """Mean of one value per domain, with Student's interval; without one below `FEW` domains.

    least: a variance of the mean that the interval is not to fall below.
    """
    from scipy import stats

    count = len(values)
    if count < FEW:
        mean = float(np.mean(values)) if count else np.nan
        return _estimate(mean, np.nan, f"{count} domain{'' if count == 1 else 's'}", False)
    deviation = np.sqrt(max(float(np.var(values, ddof=1)) / count, least))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation
    return _estimate(float(np.mean(values)), half, DOMAINS, True)


def _variances(paired: Paired) -> list[tuple[float, int]]:
    """Parts of the variance of a domain's mean, each with its degrees of freedom: pictures, seeds."""
    found = []
    if paired.resampled.shape[1] > 1:
        again = paired.resampled.mean(0)
        found.append((float(np.nanvar(again, ddof=1)), len(again) - 1))
    if len(paired.diff) > 1:
        found.append((float(np.var(paired.diff, ddof=1)) / len(paired.diff), len(paired.diff) - 1))
    return found or [(np.nan, 1)]


def _half(variances: list[tuple[float, int]], count: int) -> float:
    """Half the width of the interval of a mean over `count` domains from all parts of their variances."""
    from scipy import stats

    whole = sum(value for value, _ in variances)
    if not whole > 0:  # 0, or NaN
        return whole
    freedom = whole**2 / sum(value**2 / degrees for value, degrees in variances)
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * float(np.sqrt(whole)) / count


def _estimate(mean: float, half: float, over: str, enough: bool) -> Estimate:
    return Estimate(mean, mean - half, mean + half, over, enough)
