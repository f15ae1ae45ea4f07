"""Chapter 09: a check of the benchmark; the printed tables are in `paper.arithmetic.rf100vl`."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Check

if TYPE_CHECKING:
    import pandas as pd

SAME = 1e-4
"""Largest difference of AP between the two ways: the grid's is rounded to 16 bits."""


def check_two_ways(twice: "pd.DataFrame | None") -> Check:
    """twice: from `ch09_tables.twice`."""
    count = 0 if twice is None else len(twice)
    largest = float(twice["difference"].max()) if twice is not None and count else float("nan")
    return Check(
        "The chosen networks, tested one by one, have the AP that the grid of all sub-networks has for them",
        bool(count and largest <= SAME),
        {"networks": count, "largest difference": round(largest, 6)},
        f"Passed up to {SAME}.",
    )
