"""The miniature benchmark as a kept result: tables, per-picture results, the whole grids, the base.

Tables: `domains` (one row per domain), `tests` (one row per tested network), `trainings` (one row per
supernet that was trained: steps, wall seconds, device), `grid` (the sub-networks and their GFLOPs),
`detections` (of `ch09_shown`). Arrays: `resampled` [tests, R]; `per-image-*` (`base.per_image.joined`, in the
order of `tests`); and for every domain and seed `val:DOMAIN:SEED`,
`test:DOMAIN:SEED` [N] and `again:DOMAIN:SEED` [r, N], AP of all sub-networks as whole numbers of 16 bits.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.experiments.base import kept, per_image
from rfdetr.experiments.base.fitting import resampled
from rfdetr.experiments.ch09_domains import SIZES, archs_of, limits, operations
from rfdetr.experiments.ch09_parts import RATES
from rfdetr.experiments.ch09_shown import detections

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.studies import Finished

_FACTS = ("classes", "objects", "objects_per_image", "most_objects", "median_size")
PER_IMAGE = "per-image-"


def keep(finished: "Finished") -> None:
    """Write the kept result. UserError when no domain is done yet."""
    sizes = SIZES[finished.profile.name]
    parts = [name for name, value in finished.values().items() if "tests" in value]
    if not any("-tune-" in name for name in parts):
        raise UserError("fourteen-domains: no domain is done yet; run it again, for longer")
    tests, found, per_picture = _tests(finished, parts)
    arrays = {"resampled": np.round(np.nan_to_num(found) * 65535).astype(np.uint16)}
    arrays |= {PER_IMAGE + name: values for name, values in per_image.joined(per_picture).items()}
    arrays |= _grids(finished, parts)
    network = kept.read_network(finished.file("base", ".safetensors"))
    kept.keep(
        finished.folder,
        {
            "domains": _domains(finished, parts),
            "tests": tests,
            "trainings": _trainings(finished, parts),
            "grid": _grid(finished),
            "detections": detections(finished),
        },
        finished.origin,
        network,
        arrays=arrays,
        limits=limits(sizes),
        fixed=finished.records["choice"]["value"]["chosen"],
        recipe=_recipe(finished),
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def _recipe(finished: "Finished") -> dict[str, Any]:
    sizes = SIZES[finished.profile.name]
    names = ("side", "canvas", "scenes", "few", "base_steps", "steps", "tuned", "lengths", "seeds")
    found = {name: getattr(sizes, name) for name in names}
    train = dict(finished.profile.recipe.train)
    return {**found, "rates": RATES, "base": finished.records["base"]["value"], "train": train}


def _tests(
    finished: "Finished", parts: list[str]
) -> "tuple[pd.DataFrame, np.ndarray, list[dict[str, np.ndarray]]]":
    """The table `tests`, its resampled APs, and what each network found per picture."""
    import pandas as pd

    rows, tests, arrays = [], [], []
    for name in parts:
        record, part = finished.records[name], finished.plan.parts[name]
        prior = "prior_" if name.startswith("prior-") else ""
        with np.load(finished.file(name, ".npz")) as file:
            stored = {key: file[key] for key in file.files}
        for number, test in enumerate(record["value"]["tests"]):
            head = {"domain": record["value"]["domain"], "seed": part.options["seed"]}
            row = {k: v for k, v in test.items() if k != "resampled"}
            rows.append({**head, **row, "kind": prior + test["kind"], "device": record["made"]["device"]})
            tests.append(test)
            arrays.append(per_image.packed(per_image.one_of(stored, number)))
    return pd.DataFrame(rows), resampled(tests), arrays


def _trainings(finished: "Finished", parts: list[str]) -> "pd.DataFrame":
    """Seconds are wall time, of a machine that may have done other things as well."""
    import pandas as pd

    rows = []
    for name in parts:
        record, part = finished.records[name], finished.plan.parts[name]
        if "step_s" in record["value"]:
            head = {"part": name, "domain": record["value"]["domain"], "seed": part.options["seed"]}
            about = {key: record["value"][key] for key in ("steps", "seconds", "step_s", "loss", "skipped")}
            rows.append({**head, **about, "device": record["made"]["device"]})
    return pd.DataFrame(rows)


def _grids(finished: "Finished", parts: list[str]) -> dict[str, np.ndarray]:
    arrays = {}
    for name in parts:
        part = finished.plan.parts[name]
        if "-tune-" not in name or name.startswith("prior-"):
            continue
        with np.load(finished.file(name, ".npz")) as file:
            for ours, theirs in (("val", "val"), ("test", "test"), ("again", "resampled")):
                arrays[f"{ours}:{part.options['domain']}:{part.options['seed']}"] = file[theirs]
    return arrays


def _domains(finished: "Finished", parts: list[str]) -> "pd.DataFrame":
    import pandas as pd

    sizes = SIZES[finished.profile.name]
    rows = {}
    for name in parts:
        value = finished.records[name]["value"]
        if "-tune-" in name and value["domain"] not in rows:
            images = {f"{split}_images": count for split, count in value["images"].items()}
            kind = "real" if value["domain"] in sizes.real else "embedded"
            facts = {fact: value[fact] for fact in _FACTS}
            rows[value["domain"]] = {"domain": value["domain"], "kind": kind, **images, **facts}
    return pd.DataFrame(list(rows.values()))


def _grid(finished: "Finished") -> "pd.DataFrame":
    import pandas as pd

    sizes = SIZES[finished.profile.name]
    archs = archs_of(sizes.search)
    with np.load(finished.file("choice", ".npz")) as file:
        base = file["val"] / 65535
    rows = [{"arch": arch.id, **arch.to_dict(), "tokens": arch.tokens} for arch in archs]
    return pd.DataFrame(rows).assign(gflops=operations(sizes), base_val_AP=base)
