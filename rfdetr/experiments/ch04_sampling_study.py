"""Which architecture a training step should draw: uniform (the paper), sandwich, or biased, at equal cost and
at equal steps.

Source: Section 3 of the paper (uniform); the sandwich rule is Yu et al. 2019. Equal cost means equal
floating-point operations of the forward passes, so a rule that draws dearer networks takes fewer steps; equal
steps means as many updates, which then cost more. Each rule and budget is trained at several learning rates,
because a rule that averages three networks' gradients may want another one than a rule that draws one
network; the rate is chosen by the validation scenes, and the test scenes are shown.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.parts import Part, perform
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch04_variants import GROUPS, differences, runs_table
from rfdetr.training.sampling import draw

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.config import ModelConfig

NAME, PROFILE = "sampling-study", "cpu"
RATES = {"cpu": (1.0, 0.5, 2.0), "smoke": (1.0,)}
"""By profile: learning rates, as multiples of the recipe's."""
_SAMPLE = 2000  # draws from which the mean cost of a rule's step is computed
_FEWEST_STEPS = 2
_CALL = "rfdetr.experiments.ch04_variants"


@dataclass(frozen=True)
class Variant:
    """One way of training.

    rule, budget  e.g. "sandwich" and "cost" or "steps"; label: both in words
    rate          multiple of the recipe's learning rate
    changes       fields of `TrainConfig` that make it differ
    """

    rule: str
    budget: str
    rate: float
    changes: dict[str, Any]

    @property
    def label(self) -> str:
        """The rule, and "equal steps" where it does not have the uniform rule's cost."""
        return self.rule if self.budget == "cost" else f"{self.rule}, equal steps"


def variants(profile: Profile, config: "ModelConfig") -> list[Variant]:
    """The trainings of the study, with steps and warm-up that make their expected costs equal, or their
    steps.

    "biased" draws an encoder setting with a probability proportional to its operations.
    """
    recipe = profile.recipe
    costs = _costs(config, recipe.training)
    odds = tuple((arch.encoder, gflops) for arch, gflops in sorted(costs.items()))
    rules: dict[str, dict[str, Any]] = {
        "uniform": {"sampling": "uniform"},
        "sandwich": {"sampling": "sandwich"},
        "biased": {"sampling": "biased", "odds": odds},
    }
    each = {name: _mean_cost(recipe.training, costs, **rule) for name, rule in rules.items()}
    found = []
    for rate in RATES[profile.name]:
        for name, rule in rules.items():
            cheaper = max(_FEWEST_STEPS, round(recipe.study_steps * each["uniform"] / each[name]))
            # The uniform rule has both budgets at once.
            budgets = {"cost": cheaper, **({} if name == "uniform" else {"steps": recipe.study_steps})}
            for budget, steps in budgets.items():
                warmup = round(recipe.train["warmup_steps"] * steps / recipe.train["steps"])
                rates = {key: rate * recipe.train[key] for key in ("lr", "encoder_lr")}
                changes = {**rule, **rates, "steps": steps, "warmup_steps": warmup, "precision": "fp32"}
                found.append(Variant(name, budget, rate, changes))
    return found


def parts(profile: Profile, seed: int) -> list[Part]:
    """The recipe's own rate first, seed by seed."""
    return [part for _, part in _planned(profile, seed)]


def _planned(profile: Profile, seed: int) -> list[tuple[Variant, Part]]:
    from rfdetr.model.config import ModelConfig

    recipe = profile.recipe
    found = variants(profile, ModelConfig(num_classes=10, **recipe.model))
    planned = []
    for rate in RATES[profile.name]:
        for s in range(seed, seed + recipe.study_seeds):
            for variant in (v for v in found if v.rate == rate):
                options = {"profile": profile.name, "seed": s, "changes": variant.changes, "choose": True}
                name = f"{variant.rule}-{variant.budget}-x{rate:g}-{s}"
                planned.append((variant, Part(name, f"{_CALL}:variant_part", options)))
    return planned


def collect(finished: Finished) -> None:
    """Keep one row per training and group. UserError when nothing can be compared yet."""
    runs, resamples = _runs(finished)
    if runs.empty or runs["variant"].nunique() < 2:
        raise UserError("sampling-study: fewer than two ways of training are done; run it again, for longer")
    kept.keep(
        finished.folder,
        {"runs": runs},
        finished.origin,
        arrays={"resampled": resamples},
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def _runs(finished: Finished) -> "tuple[pd.DataFrame, np.ndarray]":
    heads = {
        part.name: {
            "variant": variant.label,
            "rule": variant.rule,
            "budget": variant.budget,
            "rate": variant.rate,
            "seed": part.options["seed"],
        }
        for variant, part in _planned(finished.profile, finished.seed)
    }
    return runs_table(finished, heads)


def run(profile: Profile, seed: int, store: Store, show: bool = True) -> "pd.DataFrame":
    """Do the whole study here, one training after the other, and return its table (`collect`)."""
    study = Study(NAME, profile.name, parts, collect, STUDY.modules)
    plan = study.task(seed, store).plan
    plan.folder.mkdir(parents=True, exist_ok=True)
    while (name := plan.ready(fitting.fastest_device())) is not None:
        if show:
            print(f"{name}, {len(plan.missing())} trainings to go", flush=True)
        perform(plan, name, fitting.fastest_device(), profile.name, seed)
    return _runs(Finished(profile, seed, plan, plan.done(), plan.folder, {}))[0]


def at_best_rate(runs: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of each variant at the learning rate that is best on the validation scenes.

    By the mean over seeds and the thirds of the settings, among rates that have as many seeds as any. A table
    without rates is returned as it is.
    """
    import pandas as pd

    if "rate" not in runs:
        return runs
    kept_rows = []
    for _, part in runs.groupby("variant", sort=False):
        seeds = part.groupby("rate")["seed"].nunique()
        full = part[part["rate"].isin(seeds.index[seeds == seeds.max()]) & part["group"].isin(GROUPS)]
        best = full.groupby("rate", sort=False)["val_AP"].mean().idxmax()
        kept_rows.append(part[part["rate"] == best])
    return pd.concat(kept_rows)


def summary(
    table: "pd.DataFrame", reference: str = "uniform", resamples: np.ndarray | None = None
) -> "pd.DataFrame":
    """`ch04_variants.differences` from the uniform rule, every variant at its best rate (column `rate`)."""
    chosen = at_best_rate(table.reset_index(drop=True))
    again = None if resamples is None else resamples[chosen.index]
    found = differences(chosen, reference, again)
    if "rate" in chosen:
        found["rate"] = found["variant"].map(chosen.groupby("variant")["rate"].first())
    return found


def _costs(config: "ModelConfig", space: SearchSpace) -> dict[Arch, float]:
    from rfdetr.benchmark.flops import analytic_table

    archs = space.distinct()
    return dict(zip(archs, analytic_table(config, archs)["gflops"], strict=True))


def _mean_cost(space: SearchSpace, costs: dict[Arch, float], sampling: str, odds: Any = None) -> float:
    return float(
        np.mean([sum(costs[a] for a in draw(space, 0, step, sampling, odds)) for step in range(_SAMPLE)])
    )


STUDY = Study(NAME, PROFILE, parts, collect, (*fitting.MODULES, "rfdetr.search.blocks", "rfdetr.search.grid"))
