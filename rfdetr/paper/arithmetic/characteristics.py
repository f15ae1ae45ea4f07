"""Claims of v2 Appendix H, Table 17 and Figure 6: the regressions, recomputed."""

from typing import TYPE_CHECKING

from rfdetr.paper.arithmetic.cells import rows
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

DATASETS = 100
"""Number of data sets in RF100-VL, so of points in each regression."""
SIGNIFICANT, STRONG = 0.05, 0.25
"""Limits of p and of R²: half of the variance of a correlation of 0.5 (the paper states none)."""
_OF_DATA = ("Average Object Size", "Number of Classes", "Number of Annotations", "Average Objects per Image")


def recomputed(t17: "pd.DataFrame") -> "pd.DataFrame":
    """Table 17 with `t` (slope over standard error), `r_squared_again` and `p_again` for 100 data sets."""
    from scipy import stats

    t = t17["slope"] / t17["std_error"]
    free = DATASETS - 2
    return t17.assign(
        t=t, r_squared_again=t**2 / (t**2 + free), p_again=2 * stats.t.sf(t.abs().to_numpy(), free)
    )


def _row(t17: "pd.DataFrame", first: str, second: str) -> "pd.Series":
    return rows(recomputed(t17), first_variable=first, second_variable=second).iloc[0]


def _strong(row: "pd.Series") -> bool:
    return bool(row["p_again"] < SIGNIFICANT and row["r_squared_again"] >= STRONG)


def _numbers(row: "pd.Series") -> dict[str, float]:
    printed = {"R², printed": float(row["r_squared"]), "p, printed": float(row["p_value"])}
    again = {"R²": round(float(row["r_squared_again"]), 3), "p": round(float(row["p_again"]), 3)}
    return printed | again


_WHY = "Strong is taken as p < 0.05 and R² ≥ 0.25, recomputed from slope and standard error."


def c042(t17: "pd.DataFrame") -> Verdict:
    """Queries against objects per image: significant at all?"""
    row = _row(t17, "Average Objects per Image", "Number of Queries")
    return Verdict(
        agree(row["p_again"] < SIGNIFICANT), _numbers(row), "A relation is taken to exist if p < 0.05."
    )


def c149(t17: "pd.DataFrame") -> Verdict:
    """Classes against decoder layers."""
    row = _row(t17, "Number of Classes", "Number of Decoder Layers")
    return Verdict(agree(_strong(row)), _numbers(row), _WHY)


def c150(t17: "pd.DataFrame") -> Verdict:
    """Objects per image against queries."""
    row = _row(t17, "Average Objects per Image", "Number of Queries")
    return Verdict(agree(_strong(row)), _numbers(row), _WHY)


def c151(t17: "pd.DataFrame") -> Verdict:
    """Spatial locations against windows."""
    row = _row(t17, "Number of Spatial Locations", "Number of Windows")
    return Verdict(agree(_strong(row)), _numbers(row), _WHY)


def c152(t17: "pd.DataFrame") -> Verdict:
    """None of the three is strong."""
    pairs = (
        ("Average Object Size", "Number of Decoder Layers"),
        ("Number of Annotations", "Number of Decoder Layers"),
        ("Average Objects per Image", "Number Decoder Layers"),
    )
    found = {first: _row(t17, first, second) for first, second in pairs}
    return Verdict(
        agree(not any(_strong(row) for row in found.values())),
        {f"{name}, R²": round(float(row["r_squared_again"]), 3) for name, row in found.items()},
        _WHY,
    )


def c153(t17: "pd.DataFrame") -> Verdict:
    """No property of the data explains a quarter of a knob's variance."""
    again = recomputed(t17)
    of_data = again[again["first_variable"].isin(_OF_DATA)]
    most = of_data.sort_values("r_squared_again").iloc[-1]
    return Verdict(
        agree(most["r_squared_again"] < STRONG),
        {"largest R²": round(float(most["r_squared_again"]), 3), "of": str(most["relationship"])},
        "Properties of the data only; “modest” is taken as R² below 0.25.",
    )
