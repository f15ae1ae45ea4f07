"""The full search in parts: one supernet, the units of the printed grid in miniature, the timings.

The accuracies may come from one machine with many processors and a GPU, the timings from a quiet one: the
kept result says which part was made where. `ch05_full_search` reads it.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch05_full_search import PROFILE, time_sample
from rfdetr.search import blocks, cost, grid
from rfdetr.search.passes import STAGES

if TYPE_CHECKING:
    import pandas as pd

NAME = "full-search"
SIZES = {"full": {"images": 2000, "held_out": 120}, "smoke": {"images": 16, "held_out": 3}}
"""By profile: validation scenes, and sub-networks that are timed only to test the latency model."""
PRECISION = "fp32"
"""Of the training, on every device: the table should not hang on how one rounds."""
_BATCH = {"cpu": 32, "cuda": 250}
_CALL = "rfdetr.experiments.ch05_full_parts"


def parts(profile: Profile, seed: int) -> list[Part]:
    """The training, the units from the dearest to the cheapest, the timings."""
    sizes = SIZES[profile.name]
    common = {"profile": profile.name, "seed": seed}
    training = {**common, "precision": PRECISION}
    found = [Part("train", f"{_CALL}:train_part", training)]
    for r, p, w in sorted(grid.units(profile.recipe.search), key=lambda t: -((t[0] / t[1]) ** 2)):
        options = {"profile": profile.name, "images": sizes["images"], "triple": [r, p, w]}
        found.append(Part(_unit((r, p, w)), f"{_CALL}:unit_part", options, ("train",)))
    timings = {**common, "held_out": sizes["held_out"]}
    return [*found, Part("latency", f"{_CALL}:latency_part", timings, ("train",), "cpu")]


def _unit(triple: tuple[int, int, int]) -> str:
    return f"unit-{grid.unit_name(triple)}"


def train_part(place: Place, profile: str, seed: int, precision: str) -> dict[str, Any]:
    """Train the supernet and keep its weights, rounded to float16: every later part uses these."""
    sizes = get_profile(profile)
    train = fitting.scenes_of(place, sizes, "train")
    model = fitting.new_network(train, sizes.recipe.model, seed)
    config = {**sizes.recipe.train, "seed": seed, "precision": precision}
    model, log = fitting.fit(place, model, train, sizes.recipe.training, config)
    kept.write_network(model, place.file(".safetensors"))
    rows = _means(log).to_dict("list")
    return {**fitting.about(log), "precision": precision, "training": rows}


def unit_part(place: Place, profile: str, images: int, triple: list[int]) -> dict[str, Any]:
    """All sub-networks of one encoder setting on the validation scenes.

    Returns pairs (decoder layers, queries), rows of the twelve numbers, `nested`: AP on the first 20, 50, ...
    scenes (`blocks.LADDER`) by number of scenes, and seconds by stage.
    """
    sizes = get_profile(profile)
    evaluator = _evaluator(place.folder, place.needed("train", ".safetensors"), profile, images, place.device)
    setting = (triple[0], triple[1], triple[2])
    pairs = grid.units(sizes.recipe.search)[setting]
    order, matches, seconds = evaluator.block(setting, pairs, range(images))
    truth, steps = evaluator.images.truth, blocks.levels(images)
    found = [matches[""].on(np.arange(block.start, block.stop)) for block in blocks.blocks(steps)]
    numbers = blocks.whole(truth, found)
    nested = blocks.nested_ap(truth, found)
    return {
        "pairs": [list(pair) for pair in order],
        "rows": [dict(zip(METRICS, row, strict=True)) for row in numbers.tolist()],
        "nested": {str(n): row for n, row in zip(steps, nested.tolist(), strict=True)},
        "seconds": seconds,
    }


@lru_cache(maxsize=1)
def _evaluator(folder: Path, weights: Path, profile: str, images: int, device: str) -> grid.GridEvaluator:
    """One for all units that a process does: network and scenes are read once."""
    place = Place(folder, "unit", device)
    data = fitting.scenes_of(place, get_profile(profile), "val", images)
    model = kept.read_network(weights).to(device)
    return grid.GridEvaluator(model, data, batch_size=_BATCH["cuda" if "cuda" in device else "cpu"])


def latency_part(place: Place, profile: str, seed: int, held_out: int) -> dict[str, Any]:
    """Time a sample of the sub-networks; only a machine that does nothing else gives a useful answer."""
    recipe = get_profile(profile).recipe
    model = kept.read_network(place.needed("train", ".safetensors"))
    timed = time_sample(model, recipe.search, recipe.measured, held_out, place.work / "onnx", seed)
    return {"rows": timed.to_dict("records"), "environment": timed.attrs["environment"]}


def collect(finished: Finished) -> None:
    """Keep table, timings, costs of the units, training, and the network. UserError when a part is
    missing.
    """
    import pandas as pd

    missing = finished.plan.missing()
    if missing:
        raise UserError(
            f"{len(missing)} parts of the full search are not done, first {missing[0]}: run `python -m rfdetr"
            " results full-search` again (on a quiet machine for `latency`)"
        )
    recipe, sizes = finished.profile.recipe, SIZES[finished.profile.name]
    model = kept.read_network(finished.file("train", ".safetensors"))
    table, seconds = unit_table(finished, recipe.search)
    table = grid.with_gflops(model, recipe.search, table)
    table = table.drop(columns=["nominal_resolution", "nominal_queries"]).drop_duplicates(list(Arch.KNOBS))
    trained, timed = finished.records["train"], finished.records["latency"]
    data = fitting.scenes_of(Place(finished.plan.folder, "", "cpu"), finished.profile, "val", sizes["images"])
    kept.keep(
        finished.folder,
        {
            "table": table,
            "latency": pd.DataFrame(timed["value"]["rows"]),
            "units": cost.unit_cost(model, recipe.search).reset_index(),
            "training": pd.DataFrame(trained["value"]["training"]),
        },
        finished.origin,
        model,
        seconds=seconds,
        training_seconds=trained["value"]["seconds"],
        training=trained["made"],
        precision=trained["value"]["precision"],
        made_by={stage: finished.makers(stage) for stage in ("train", "unit-", "latency")},
        images=len(data),
        canvas=recipe.canvas,
        dataset=data.fingerprint,
        environment=timed["value"]["environment"],
    )


def unit_table(finished: Finished, space: SearchSpace) -> "tuple[pd.DataFrame, dict[str, float]]":
    """The rows of `grid.evaluate_grid` with AP_20, AP_50, ... beside them, and the seconds by stage."""
    results = {}
    for triple in grid.units(space):
        value = finished.records[_unit(triple)]["value"]
        rows = [dict(row) for row in value["rows"]]
        for images, aps in value["nested"].items():
            for row, ap in zip(rows, aps, strict=True):
                row[f"AP_{images}"] = ap
        rows = [{n: np.nan if v is None else v for n, v in row.items()} for row in rows]
        results[triple] = {**value, "rows": rows}
    seconds = {s: sum(value["seconds"].get(s, 0.0) for value in results.values()) for s in STAGES}
    return grid.to_table(space, results), seconds


def _means(log: "pd.DataFrame", every: int = 20) -> "pd.DataFrame":
    """Means of the losses over every `every` steps: enough to see how it went."""
    columns = [
        c for c in log.columns if c.startswith("loss_") or c in ("step", "total", "seconds", "grad_norm")
    ]
    return log[columns].groupby((log["step"] - 1) // every).mean().reset_index(drop=True).round(6)


STUDY = Study(NAME, PROFILE, parts, collect, (*fitting.MODULES, "rfdetr.search.blocks", "rfdetr.search.grid"))
