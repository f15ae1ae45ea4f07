"""The kept sampling study as chapter 04 shows it: whole, in part, or from before learning rates varied."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rfdetr.experiments.ch04_sampling_study import at_best_rate, summary
from rfdetr.experiments.ch04_variants import GROUPS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = {
    "variant": "draws",
    "group": "sub-networks",
    "steps": "steps",
    "rate": "learning rate, × recipe's",
    "seeds": "seeds",
    "AP": "AP",
    "difference": "from uniform",
    "half_width": "95 %, trainings, ±",
    "half_images": "images, ±",
    "resolved": "resolved",
}
"""Of the shown table: column -> heading."""


def shown(runs: "pd.DataFrame", resamples: "np.ndarray | None" = None) -> "pd.DataFrame":
    """The table `COLUMNS` of a study's runs, every way of drawing at its best learning rate.

    Studies kept before rates varied have the recipe's alone.
    """
    found = summary(runs, resamples=resamples)
    return found if "rate" in found else found.assign(rate=1.0)


def words(runs: "pd.DataFrame", missing: Sequence[str] = ()) -> str:
    """What was compared at which budget, which learning rates were tried, and what is not there yet."""
    if "rate" not in runs:
        return (
            "Compared at equal operations, with the recipe's learning rate alone."
            " **Not in this copy:** equal steps and other rates, which `python -m rfdetr results"
            " sampling-study` makes."
        )
    budgets = {
        name: runs[runs["budget"].eq(budget) | runs["rule"].eq("uniform")]
        for name, budget in (("operations", "cost"), ("steps", "steps"))
    }
    compared = [f"at equal {name} {_rules(part)}" for name, part in budgets.items()]
    text = f"Compared {'; '.join(compared)}."
    tried = runs.groupby("variant", sort=False)["rate"].unique()
    same = {tuple(sorted(rates)) for rates in tried}
    if same == {(1.0,)}:
        text += " Every training has the recipe's learning rate; no other one was tried."
    else:
        each = {name: ", ".join(f"{rate:g}" for rate in sorted(rates)) for name, rates in tried.items()}
        if len(same) == 1:
            rates = next(iter(each.values()))
        else:
            rates = "; ".join(f"{name}: {some}" for name, some in each.items())
        text += (
            f" Learning rates tried, as multiples of the recipe's: {rates}. A row has the rate that is best"
            " on the validation scenes among those with most seeds."
        )
    if missing:
        text += (
            f" **Not in this copy:** {len(missing)} of {len(missing) + _trainings(runs)} planned trainings;"
            " `python -m rfdetr results sampling-study` goes on with them."
        )
    return text


def by_rate(runs: "pd.DataFrame") -> "pd.DataFrame | None":
    """Mean AP on the test scenes over the thirds of the settings, one row per way of drawing and one column
    per learning rate (`× 0.5`), over the seeds that all of these have (`seeds`).

    Ways of drawing for which one rate was tried are left out; None where that are all, or no seed is shared.
    """
    if "rate" not in runs:
        return None
    thirds = runs[runs["group"].isin(GROUPS)]
    several = thirds.groupby("variant")["rate"].transform("nunique") > 1
    thirds = thirds[several]
    cells = thirds.groupby(["variant", "rate"])["seed"].unique()
    shared = set.intersection(*map(set, cells)) if len(cells) else set()
    if not shared:
        return None
    both = thirds[thirds["seed"].isin(shared)]
    wide = both.pivot_table(index="variant", columns="rate", values="AP", aggfunc="mean", sort=False)
    wide = wide.sort_index(axis="columns").rename(columns=lambda rate: f"× {rate:g}")
    return wide.assign(seeds=len(shared)).reset_index()


def steps_words(runs: "pd.DataFrame") -> str:
    """Steps and operations of a training, by way of drawing."""
    each = at_best_rate(runs).groupby("variant", sort=False)[["steps", "tflops"]].mean()
    return (
        "; ".join(f"{name}: {row.steps:,.0f} steps, {row.tflops:.1f} TFLOPs" for name, row in each.iterrows())
        + "."
    )


def _rules(part: "pd.DataFrame") -> str:
    others = part[part["rule"] != "uniform"].groupby("rule", sort=False)["seed"].nunique()
    if others.empty:
        return "nothing yet"
    return " and ".join(f"{name} ({count} seed{'s' if count > 1 else ''})" for name, count in others.items())


def _trainings(runs: "pd.DataFrame") -> int:
    return len(runs[["variant", "rate", "seed"]].drop_duplicates())
