"""Training's share of the bill: one supernet against its networks one by one, and what a step costs.

Source: Section 3 of the paper (one training for all sub-networks) and Figure 2 (groups of queries). Reads the
kept results of `ch04_ranking` and `ch05_full_parts`; operations are counted by formula, nothing is trained.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import PRESETS, TRAINING_GRID, Arch, SearchSpace
from rfdetr.benchmark.formula import Knobs, operations
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.ch02_search_space import supernet_config, training_costs
from rfdetr.experiments.ch04_ranking_summary import kendall
from rfdetr.model.config import ModelConfig, preset_config

if TYPE_CHECKING:
    import pandas as pd

_PER_GROUP = ("selection", "decoder position", "decoder self-attention", "decoder FFN", "heads")
_ENCODER = (
    "embedding",
    "windowed attention",
    "global attention",
    "backbone MLP",
    "projector",
)


def training_operations(config: ModelConfig, archs: Iterable[Arch], groups: int) -> np.ndarray:
    """Operations of one image's forward pass in training, for each architecture [N].

    In training every group of queries goes through selection, decoder and heads, and the heads predict at
    every decoder layer; the encoder and the decoder's values of the map are computed once. ValueError for a
    network with masks, which are not counted here.
    """
    if config.segmentation:
        raise ValueError("operations of training are counted for detection only")
    columns = {name: np.array([getattr(a, name) for a in archs], dtype=np.int64) for name in Arch.KNOBS}
    one = operations(config, Knobs(**columns))
    every = operations(config, Knobs(**{**columns, "queries": groups * columns["queries"]}))
    layers = np.maximum(columns["decoder_layers"], 1)
    total = sum((sum(one[stage]) for stage in _ENCODER), np.zeros(len(layers), dtype=np.int64))
    for stage in _PER_GROUP:
        total = total + groups * sum(one[stage]) * (layers if stage == "heads" else 1)
    return np.asarray(total + sum(every["decoder cross-attention"]), dtype=float)


def group_costs(config: ModelConfig, space: SearchSpace, groups: Iterable[int]) -> "pd.DataFrame":
    """Operations of a training step's forward pass by number of query groups, mean over what training draws.

    Columns: groups, gflops (of one image), part (of the first row's).
    """
    import pandas as pd

    archs = space.archs()
    means = {count: float(training_operations(config, archs, count).mean()) / 1e9 for count in groups}
    first = next(iter(means.values()))
    return pd.DataFrame(
        [{"groups": count, "gflops": value, "part": value / first} for count, value in means.items()]
    )


def step_costs() -> "pd.DataFrame":
    """Operations of one training step on the paper's grid against one architecture, with all groups of
    queries.

    The table of `ch02_search_space.training_costs`, whose networks are as deployed, and three columns:
    step_gflops (of one image's forward pass in training), grid_step_gflops (mean over the grid), step_ratio.
    """
    deployed = training_costs()
    config = supernet_config(TRAINING_GRID)
    grid = float(training_operations(config, TRAINING_GRID.archs(), config.groups).mean()) / 1e9
    own = [
        float(training_operations(preset_config(name), [PRESETS[name].arch], config.groups)[0]) / 1e9
        for name in deployed["baseline"]
    ]
    return deployed.assign(step_gflops=own, grid_step_gflops=grid, step_ratio=grid / np.array(own))


def resize_costs(config: ModelConfig, space: SearchSpace, batch: int, groups: int) -> dict[str, float]:
    """GFLOPs of one image's forward pass in training: one resolution for the batch (the paper), or one for
    each image, all padded to the largest of the batch (as in earlier detectors); and how much more that is.

    The mean over all draws, in closed form: patch size and windows are the batch's in both.
    """
    costs = training_operations(config, space.archs(), groups) / 1e9
    by_resolution = costs.reshape(len(space.resolutions), -1).mean(1)
    count = len(by_resolution)
    up_to = (np.arange(count + 1) / count) ** batch  # chance that no image draws a larger one
    padded = float((np.diff(up_to) * by_resolution).sum())
    shared = float(by_resolution.mean())
    return {"per batch": shared, "per image": padded, "ratio": padded / shared}


def ways(networks: "pd.DataFrame", recipe: Mapping[str, Any], profile: Profile) -> "pd.DataFrame":
    """What each way to get the networks costs, and their AP over the architectures that every way has.

    networks, recipe: of the kept result `ranking`. Columns: way, trainings, steps (of each), tflops (forward
    passes of all of them), networks (that are then there), AP (mean), architectures (that it is over), seeds.
    """
    import pandas as pd

    space, train = profile.recipe.training, profile.recipe.train
    config = ModelConfig(num_classes=10, **profile.recipe.model)
    archs = [Arch.parse(name) for name in networks["arch"].drop_duplicates()]
    groups, images = config.groups, train["batch_size"]
    mean = float(training_operations(config, space.archs(), groups).mean())
    supernet = train["steps"] * images * mean / 1e12
    single = float(training_operations(config, archs, groups).sum()) * images / 1e12
    many = len(profile.recipe.search.distinct())
    found = {
        "inherited": (1, train["steps"], supernet, many),
        "share": (len(archs), recipe["share"], recipe["share"] * single, len(archs)),
        "tuned": (1 + len(archs), recipe["tuned"], supernet + recipe["tuned"] * single, len(archs)),
        "alone": (len(archs), recipe["alone"], recipe["alone"] * single, len(archs)),
    }
    have = networks.groupby("kind")["arch"].agg(set)
    common = set.intersection(*(have[kind] for kind in found if kind in have))
    rows = []
    for way, (trainings, steps, tflops, count) in found.items():
        some = networks[(networks["kind"] == way) & networks["arch"].isin(common)]
        if len(some):
            head = {"way": way, "trainings": trainings, "steps": steps, "tflops": tflops, "networks": count}
            ap = some.groupby("arch")["AP"].mean().mean()
            rows.append({**head, "AP": ap, "architectures": len(common), "seeds": seeds_of(some, common)})
    return pd.DataFrame(rows)


def seeds_of(networks: "pd.DataFrame", archs: Iterable[str]) -> tuple[int, ...]:
    """Seeds that have all of these architectures."""
    wanted = set(archs)
    every = sorted(networks["seed"].unique().tolist())
    return tuple(seed for seed in every if wanted <= set(networks.loc[networks["seed"] == seed, "arch"]))


def coverage(networks: "pd.DataFrame") -> str:
    """What a kept ranking holds, in words: kinds, their seeds, and where architectures are missing."""
    every = networks["arch"].nunique()
    words = []
    for kind, rows in networks.groupby("kind", sort=False):
        counts = rows.groupby("seed")["arch"].nunique()
        parts = [f"{seed}{'' if n == every else f' ({n} of {every})'}" for seed, n in counts.items()]
        words.append(f"{kind}: seed{'s' if len(parts) > 1 else ''} {', '.join(parts)}")
    return "; ".join(words)


def updates_against_ap(table: "pd.DataFrame", space: SearchSpace, seed: int, steps: int) -> "pd.DataFrame":
    """How often training drew each encoder setting, and the AP that the setting has at its full depth.

    table: of a finished search of the supernet that was trained with `seed` for `steps` steps. What a step
    drew is a function of both. Columns: resolution, patch_size, windows, side (tokens a side), updates, AP,
    relative (AP minus the mean of the settings with as many tokens a side; NaN where there is only one).
    """
    from rfdetr.training.sampling import draw

    drawn = Counter(draw(space, seed, step)[0].encoder for step in range(steps))
    knobs = ["resolution", "patch_size", "windows"]
    fullest = table[
        (table["decoder_layers"] == table["decoder_layers"].max())
        & (table["queries"] == table["queries"].max())
    ]
    found = fullest[[*knobs, "AP"]].reset_index(drop=True)
    found["side"] = found["resolution"] // found["patch_size"]
    found["updates"] = [drawn[tuple(triple)] for triple in found[knobs].to_numpy().tolist()]
    found = found[found["updates"] > 0].reset_index(drop=True)
    alike = found.groupby("side")["AP"]
    found["relative"] = (found["AP"] - alike.transform("mean")).where(alike.transform("size") > 1)
    return found


def updates_agreement(found: "pd.DataFrame", draws: int = 2000, seed: int = 0) -> "pd.DataFrame":
    """Kendall's tau of updates with AP, over all settings and among settings of equal tokens.

    found: of `updates_against_ap`. The 95 % interval is a bootstrap over settings. Columns: against,
    settings, tau, low, high.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    rows = []
    for column, words in (("AP", "AP"), ("relative", "AP, from the mean at equal tokens")):
        pair = found[["updates", column]].dropna().to_numpy()
        again = [kendall(*pair[rng.integers(len(pair), size=len(pair))].T) for _ in range(draws)]
        low, high = np.nanquantile(again, [0.025, 0.975])
        head = {"against": words, "settings": len(pair), "tau": kendall(*pair.T)}
        rows.append({**head, "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)
