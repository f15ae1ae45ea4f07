"""Which architecture a training step should draw: uniform (the paper), sandwich, or biased, at equal training
cost.

Source: Section 3 of the paper (uniform); the sandwich rule is Yu et al. 2019. Also holds bfloat16 against
float32. Equal cost means equal floating-point operations of the forward passes, so a strategy that draws
dearer networks takes fewer steps.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.experiments.base import kept, supernet
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.ch04_learning import drawn_archs, training_cost
from rfdetr.search.cost import TRIPLE
from rfdetr.training.sampling import draw

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.config import ModelConfig

PROFILE = "cpu"
GROUPS = ("small", "middle", "large")
_SAMPLE = 2000  # draws from which the mean cost of a strategy's step is computed
_FEWEST_STEPS = 2


@dataclass(frozen=True)
class Variant:
    """One way of training: label, and the fields of `TrainConfig` that make it differ."""

    label: str
    changes: dict[str, Any]


def variants(profile: Profile, config: "ModelConfig") -> list[Variant]:
    """The trainings of the study, with steps and warm-up that make their expected costs equal.

    "biased" draws an encoder setting with a probability proportional to its operations: large networks, which
    learn slowest, more often. "uniform, bfloat16" and "uniform" differ in precision alone.
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
    for name, rule in rules.items():
        steps = max(_FEWEST_STEPS, round(recipe.study_steps * each["uniform"] / each[name]))
        warmup = round(recipe.train["warmup_steps"] * steps / recipe.train["steps"])
        found.append(Variant(name, {**rule, "steps": steps, "warmup_steps": warmup, "precision": "fp32"}))
    return [*found, Variant("uniform, bfloat16", {**found[0].changes, "precision": "bf16"})]


def run(profile: Profile, seed: int, store: Store, show: bool = True) -> "pd.DataFrame":
    """Train every variant with `study_seeds` seeds and evaluate all trained encoder settings on the test
    scenes.

    Every setting is read with all decoder layers and queries. Columns: variant, seed, steps, tflops (training
    cost), group ("small", "middle", "large": thirds by operations; "smallest" and "largest": the grid's
    corners), sub_networks, AP (mean of the group), updates (mean number of steps that drew a setting of the
    group), seconds (of the whole training).
    """
    import pandas as pd

    from rfdetr.model.config import ModelConfig
    from rfdetr.search.grid import evaluate_grid

    recipe = profile.recipe
    test = supernet.data(profile, "test")
    config = ModelConfig(num_classes=test.num_classes, **recipe.model)
    rows: list[dict[str, Any]] = []
    for number in range(seed, seed + recipe.study_seeds):
        for variant in variants(profile, config):
            if show:
                print(f"{variant.label}, seed {number}, {variant.changes['steps']} steps", flush=True)
            trained = supernet.train_variant(profile, number, store, variant.changes, show=show)
            log = trained.log
            cost = training_cost(trained.model, log, recipe.train["batch_size"])[-1]
            head = {"variant": variant.label, "seed": number, "steps": len(log), "tflops": cost}
            table = evaluate_grid(trained.model, test, recipe.training, gflops=True).drop_duplicates(TRIPLE)
            drawn = Counter(arch.encoder for archs in drawn_archs(log) for arch in archs)
            table["updates"] = [drawn[triple] for triple in table[TRIPLE].itertuples(index=False, name=None)]
            for group, part in _groups(table, recipe.training).items():
                numbers = {"AP": part["AP"].mean(), "updates": part["updates"].mean()}
                seconds = log["seconds"].sum()
                rows.append(
                    {**head, "group": group, "sub_networks": len(part), **numbers, "seconds": seconds}
                )
    return pd.DataFrame(rows)


def make(folder: Path, seed: int, store: Store, origin: dict[str, Any]) -> None:
    """Run the study and keep it (`rfdetr.experiments.base.kept`)."""
    kept.keep(folder, {"runs": run(get_profile(PROFILE), seed, store)}, origin)


def summary(table: "pd.DataFrame", reference: str = "uniform") -> "pd.DataFrame":
    """Per variant and group over seeds: AP, its difference from `reference` with a 95 % interval, updates,
    steps.

    The interval is Student's, of the differences paired by seed (same initial weights and images); `resolved`
    tells whether it excludes zero. With two or three seeds it is wide, and that is the point.
    """
    import pandas as pd
    from scipy import stats

    rows = []
    base = table[table["variant"] == reference]
    for (variant, group), part in table.groupby(["variant", "group"], sort=False):
        alike = base[base["group"] == group].set_index("seed")["AP"]
        differences = part.set_index("seed")["AP"] - alike
        count = len(differences)
        half = float("nan")
        if variant != reference and count > 1:
            half = float(stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count))
        mean = float(differences.mean())
        rows.append(
            {
                "variant": variant,
                "group": group,
                "seeds": count,
                "AP": part["AP"].mean(),
                "lowest": part["AP"].min(),
                "highest": part["AP"].max(),
                "difference": mean if variant != reference else float("nan"),
                "half_width": half,
                "resolved": bool(abs(mean) > half),
                "updates": part["updates"].mean(),
                "steps": int(part["steps"].iloc[0]),
                "tflops": part["tflops"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _groups(table: "pd.DataFrame", space: SearchSpace) -> dict[str, "pd.DataFrame"]:
    """Thirds of the sub-networks by operations, and the two corners of the grid, which the sandwich rule
    always trains.
    """
    ordered = table.sort_values("gflops", kind="stable")
    third = np.arange(len(ordered)) * len(GROUPS) // len(ordered)
    groups = {name: ordered[third == i] for i, name in enumerate(GROUPS)}
    triples = [tuple(row) for row in ordered[TRIPLE].to_numpy().tolist()]
    for name, corner in (("smallest", space.smallest), ("largest", space.largest)):
        groups[name] = ordered[[triple == corner.encoder for triple in triples]]
    return groups


def _costs(config: "ModelConfig", space: SearchSpace) -> dict[Arch, float]:
    from rfdetr.benchmark.flops import analytic_table

    archs = space.distinct()
    return dict(zip(archs, analytic_table(config, archs)["gflops"], strict=True))


def _mean_cost(space: SearchSpace, costs: dict[Arch, float], sampling: str, odds: Any = None) -> float:
    return float(
        np.mean([sum(costs[a] for a in draw(space, 0, step, sampling, odds)) for step in range(_SAMPLE)])
    )
