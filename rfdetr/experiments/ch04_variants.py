"""Ways of training the supernet, compared: one training, tested group by group, and differences with
intervals.

Source: Section 3 of the paper. Used by the studies of sampling (`ch04_sampling_study`) and of precision
(`ch04_precision`).
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import SearchSpace
from rfdetr.experiments.base import fitting
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.experiments.ch04_learning import drawn_archs, training_cost
from rfdetr.search.cost import TRIPLE

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.studies import Finished
    from rfdetr.model.detector import RFDETR

GROUPS = ("small", "middle", "large")
_RESAMPLES = 100
_HEAD = ("variant", "seed")


def variant_part(
    place: Place, profile: str, seed: int, changes: dict[str, Any], choose: bool = False
) -> dict[str, Any]:
    """Train the supernet with some fields of its recipe changed, and test all trained encoder settings, with
    all decoder layers and queries, in groups (`groups_of`).

    choose: also give the groups' AP on the validation scenes, by which a learning rate can be chosen. Testing
    uses a GPU where there is one, whatever the training used.
    """
    sizes = get_profile(profile)
    recipe = sizes.recipe
    train = fitting.scenes_of(place, sizes, "train")
    model = fitting.new_network(train, recipe.model, seed)
    config = {**recipe.train, "seed": seed, **changes}
    model, log = fitting.fit(place, model, train, recipe.training, config)
    cost = float(training_cost(model, log, config["batch_size"])[-1])
    model = model.to(fitting.fastest_device())
    tables = {
        split: _settings(place, model, profile, split, _RESAMPLES if split == "test" else 1)
        for split in (("test", "val") if choose else ("test",))
    }
    drawn = Counter(arch.encoder for archs in drawn_archs(log) for arch in archs)
    rows = []
    for group, part in groups_of(tables["test"], recipe.training).items():
        row = {"group": group, "sub_networks": len(part), "AP": float(part["AP"].mean())}
        settings = part[TRIPLE].itertuples(index=False, name=None)
        row["updates"] = float(np.mean([drawn[tuple(setting)] for setting in settings]))
        if choose:
            row["val_AP"] = float(tables["val"].loc[part.index, "AP"].mean())
        again = np.mean(np.stack(part["resampled"].tolist()), axis=0)
        rows.append(row | {"resampled": [round(float(v), 5) for v in again]})
    return {**fitting.about(log), "tflops": cost, "groups": rows}


def _settings(place: Place, model: "RFDETR", profile: str, split: str, resamples: int) -> "pd.DataFrame":
    """One row per trained encoder setting: its triple, gflops, AP, and AP on resampled images."""
    import pandas as pd

    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.evaluation.bootstrap import image_weights
    from rfdetr.search.blocks import resampled
    from rfdetr.search.grid import GridEvaluator, units

    sizes = get_profile(profile)
    space = sizes.recipe.training
    data = fitting.scenes_of(place, sizes, split)
    evaluator = GridEvaluator(model, data, batch_size=50)
    weights = np.concatenate([np.ones((1, len(data))), image_weights(len(data), resamples, 0)])
    archs = {arch.encoder: arch for arch in space.distinct()}
    gflops = dict(zip(archs, analytic_table(model, archs.values())["gflops"], strict=True))
    rows = []
    for triple, pairs in units(space).items():
        _, matches, _ = evaluator.block(triple, pairs, range(len(data)))
        ap = resampled(evaluator.images.truth, matches[""], 0).ap(weights)
        row = dict(zip(TRIPLE, triple, strict=True))
        rows.append({**row, "gflops": gflops[triple], "AP": float(ap[0]), "resampled": ap[1:]})
    return pd.DataFrame(rows)


def groups_of(table: "pd.DataFrame", space: SearchSpace) -> dict[str, "pd.DataFrame"]:
    """Thirds of the settings by operations ("small", "middle", "large"), and the two corners of the grid
    ("smallest", "largest"), which the sandwich rule always trains.
    """
    ordered = table.sort_values("gflops", kind="stable")
    third = np.arange(len(ordered)) * len(GROUPS) // len(ordered)
    groups = {name: ordered[third == i] for i, name in enumerate(GROUPS)}
    triples = [tuple(row) for row in ordered[TRIPLE].to_numpy().tolist()]
    for name, corner in (("smallest", space.smallest), ("largest", space.largest)):
        groups[name] = ordered[[triple == corner.encoder for triple in triples]]
    return groups


def runs_table(
    finished: "Finished", heads: Mapping[str, Mapping[str, Any]]
) -> "tuple[pd.DataFrame, np.ndarray]":
    """One row per part and group, and in the same order the groups' APs on resampled test images.

    heads: name of a part -> the columns that tell what it is (variant, seed, ...). Beside these: steps,
    tflops (training cost), group, sub_networks, AP (mean of the group), updates (mean number of steps that
    drew a setting of the group), seconds (of the whole training), step_s (median of a step), device, machine.
    """
    import pandas as pd

    rows, again = [], []
    for name, record in finished.records.items():
        value, made = record["value"], record["made"]
        tail = {"seconds": value["seconds"], "step_s": value["step_s"], "skipped": value["skipped"]}
        tail |= {"device": made["device"], "machine": made["machine"]}
        for group in value["groups"]:
            row = {k: v for k, v in group.items() if k != "resampled"}
            head = {**heads[name], "steps": value["steps"], "tflops": value["tflops"]}
            rows.append({**head, **row, **tail})
            again.append(group)
    return pd.DataFrame(rows), fitting.resampled(again) if again else np.empty((0, _RESAMPLES))


def differences(table: "pd.DataFrame", reference: str, resamples: np.ndarray | None = None) -> "pd.DataFrame":
    """Per variant and group over seeds: AP, its difference from `reference` with a 95 % interval, updates,
    steps, cost.

    half_width   Student's, of the differences paired by seed (same initial weights and images): chance of
                 training. With two or three seeds it is wide, and that is the point
    half_images  of the mean difference over resampled test images (`resamples`, in the order of the table):
                 chance of the images; NaN without them
    resolved     whether the difference is larger than both together (root of the sum of squares)
    """
    import pandas as pd
    from scipy import stats

    rows = []
    place = table.assign(row=np.arange(len(table)))
    base = place[place["variant"] == reference]
    for (variant, group), part in place.groupby(["variant", "group"], sort=False):
        alike = base[base["group"] == group].set_index("seed")
        mine = part.set_index("seed")
        paired = mine.join(alike[["AP", "row"]], rsuffix="_base", how="inner")
        values = paired["AP"] - paired["AP_base"]
        half = images = mean = float("nan")
        if variant != reference and len(values):
            mean = float(values.mean())
            if len(values) > 1:
                spread = float(values.std(ddof=1)) / np.sqrt(len(values))
                half = float(stats.t.ppf(0.975, len(values) - 1)) * spread
            if resamples is not None:
                each = resamples[paired["row"]] - resamples[paired["row_base"].astype(int)]
                images = float(1.96 * each.mean(0).std())
        rows.append(
            {
                "variant": variant,
                "group": group,
                "seeds": len(part),
                "AP": part["AP"].mean(),
                "lowest": part["AP"].min(),
                "highest": part["AP"].max(),
                "difference": mean,
                "half_width": half,
                "half_images": images,
                "resolved": bool(abs(mean) > np.hypot(half, 0.0 if np.isnan(images) else images)),
                "updates": part["updates"].mean(),
                "steps": int(part["steps"].iloc[0]),
                "tflops": part["tflops"].mean(),
            }
        )
    return pd.DataFrame(rows)
