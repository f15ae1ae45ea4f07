"""A baseline that a user would take, on the real sets of the miniature benchmark: a convolutional detector.

YOLOX nano of the package `libreyolo` (MIT), from random weights, on the same training pictures and with as
many processor seconds as the benchmark's supernet takes for its further training on the domain. These are
measured beside it, in the same process and under the same load: the wall times of the kept benchmark are of a
machine that did other things as well (equal work took from 300 to 1,000 s). Its files have the choice of
boxes inside, are tested by the benchmark's evaluator on the same resamples, and timed in the same laboratory.

pace-DOMAIN     processor seconds of a step of the supernet's training
recipe-NAME     how far each of a few recipes comes on an embedded domain in a quarter of the time
DOMAIN-seedN    the best recipe on a real domain
time-DOMAIN     its files and the benchmark's sub-networks in turns; belongs on a quiet machine

All but the data is the processor's work (`--device cpu`), whatever else there is.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept, per_image
from rfdetr.experiments.base.fitting import resampled
from rfdetr.experiments.base.parts import Part
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch09_collect import PER_IMAGE
from rfdetr.experiments.ch09_convolution_parts import MODES
from rfdetr.experiments.ch09_domains import NAME as BENCHMARK
from rfdetr.experiments.ch09_domains import SEVERAL, SIZES
from rfdetr.experiments.ch09_shown import PICTURED

if TYPE_CHECKING:
    import pandas as pd

NAME = "domain-baseline"
KIND = {"evaluation": "convolution", "deployed": "convolution_deployed"}
"""How boxes are chosen -> the kind of test, as in the benchmark's table."""
DETECTIONS = ("domain", "image", "label", "score", "left", "top", "right", "bottom")
RECIPE_SHARE = 0.25
"""Part of the time of a domain's training that every recipe is tried for."""
_CALL = "rfdetr.experiments.ch09_convolution_parts"
_FACTS = (
    "side",
    "recipe",
    "steps",
    "epochs",
    "seconds",
    "allowed_s",
    "loss",
    "skipped",
    "params_m",
    "gflops",
)


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    side       px of the square input, a multiple of 32
    chosen_on  embedded domain on whose validation pictures the recipe is chosen
    recipes    name -> optimizer and learning rate; `package` is the package's own rule for this batch
    pace       steps of the supernet that are timed
    seeds      of all domains one, of `SEVERAL` so many
    rounds     of the timing;   cell: of `rfdetr.peers.timing.Cell`
    """

    side: int
    chosen_on: str
    recipes: Mapping[str, Mapping[str, Any]]
    pace: int
    seeds: int
    rounds: int
    cell: Mapping[str, Any]


BASELINE = {
    "cpu": Sizes(
        side=160,
        chosen_on="clutter",
        recipes={
            "package": {"optimizer": "sgd", "lr": 0.005},
            "faster": {"optimizer": "sgd", "lr": 0.02},
            "adamw": {"optimizer": "adamw", "lr": 0.002},
        },
        pace=40,
        seeds=3,
        rounds=3,
        cell={"samples": 5, "pause_ms": 100.0, "seconds": 1.0, "warm_seconds": 0.5},
    ),
    "smoke": Sizes(
        side=64,
        chosen_on="colours",
        recipes={"package": {"optimizer": "sgd", "lr": 0.005}, "adamw": {"optimizer": "adamw", "lr": 0.002}},
        pace=1,
        seeds=1,
        rounds=1,
        cell={"samples": 2, "pause_ms": 1.0, "seconds": 0.02, "warm_seconds": 0.01},
    ),
}


def parts(profile: Profile, seed: int) -> list[Part]:
    """Data, paces and recipes; then the domains, first all with one seed."""
    sizes, own = SIZES[profile.name], BASELINE[profile.name]
    domains = sizes.real or tuple(name for name in sizes.embedded if name != own.chosen_on)
    common = {"profile": profile.name}
    found = [
        Part(f"data-{d}", "rfdetr.experiments.ch09_data:data_part", {"domain": d, "side": sizes.side})
        for d in sizes.real
    ]
    for d in (own.chosen_on, *domains):
        options = {**common, "domain": d, "seed": seed, "steps": own.pace}
        found.append(Part(f"pace-{d}", f"{_CALL}:pace_part", options, _data(sizes.real, d), "cpu"))
    recipes = [f"recipe-{name}" for name in own.recipes]
    for name, recipe in own.recipes.items():
        options = {**common, "domain": own.chosen_on, "seed": seed, "side": own.side, "recipe": dict(recipe)}
        options["share"] = RECIPE_SHARE
        paced = (f"pace-{own.chosen_on}",)
        found.append(Part(f"recipe-{name}", f"{_CALL}:recipe_part", options, paced, "cpu"))
    for d, s in _runs(domains, seed, own.seeds):
        options = {**common, "domain": d, "seed": s, "side": own.side, "recipes": recipes}
        needs = (*recipes, f"pace-{d}", *_data(sizes.real, d))
        found.append(Part(f"{d}-seed{s}", f"{_CALL}:train_part", options, needs, "cpu"))
    chosen = benchmark_choices()
    for d in domains:
        options = {
            "domain": d,
            "trained": f"{d}-seed{seed}",
            "archs": chosen.get(d, {}),
            "rounds": own.rounds,
            "cell": dict(own.cell),
        }
        found.append(Part(f"time-{d}", f"{_CALL}:time_part", options, (f"{d}-seed{seed}",), "cpu"))
    return found


def _data(real: tuple[str, ...], domain: str) -> tuple[str, ...]:
    return (f"data-{domain}",) if domain in real else ()


def _runs(domains: tuple[str, ...], seed: int, seeds: int) -> Iterator[tuple[str, int]]:
    """(domain, seed), the first seed of all before the others of some."""
    yield from ((d, seed) for d in domains)
    yield from ((d, s) for s in range(seed + 1, seed + seeds) for d in domains if d in SEVERAL)


def benchmark_choices() -> dict[str, dict[str, str]]:
    """Domain -> label -> sub-network that the kept benchmark chose there first; empty without it."""
    path = kept.results_root() / BENCHMARK
    if not (path / "result.json").is_file():
        return {}
    tests = kept.load(BENCHMARK).tables["tests"]
    first = tests[(tests["kind"] == "nas") & (tests["seed"] == tests["seed"].min())]
    return {
        str(domain): {
            f"searched, {target}": arch for target, arch in zip(own["target"], own["arch"], strict=True)
        }
        for domain, own in first.groupby("domain")
    }


def keep(finished: Finished) -> None:
    """Write the kept result. UserError when no domain is done yet."""
    own = BASELINE[finished.profile.name]
    done = [name for name, value in finished.values().items() if isinstance(value, dict) and "tests" in value]
    if not done:
        raise UserError(f"{NAME}: no domain is done yet; run it again, for longer")
    tests, found, per_picture = _tests(finished, done)
    arrays = {"resampled": np.round(np.nan_to_num(found) * 65535).astype(np.uint16)}
    arrays |= {PER_IMAGE + name: values for name, values in per_image.joined(per_picture).items()}
    recipes = finished.values("recipe-")
    kept.keep(
        finished.folder,
        {
            "tests": tests,
            "recipes": _recipes(recipes),
            "latency": _latency(finished),
            "detections": _detections(finished, done),
        },
        finished.origin,
        arrays=arrays,
        packages=sorted({finished.records[name]["value"]["package"] for name in done}),
        sizes=json.loads(json.dumps(asdict(own))),
        paces={value["domain"]: value["step_s"] for value in finished.values("pace-").values()},
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def _tests(
    finished: Finished, done: list[str]
) -> "tuple[pd.DataFrame, np.ndarray, list[dict[str, np.ndarray]]]":
    """The table `tests`, its resampled APs, and what each file found per picture."""
    import pandas as pd

    rows, tests, arrays = [], [], []
    for name in done:
        value, seed = finished.records[name]["value"], finished.plan.parts[name].options["seed"]
        with np.load(finished.file(name, ".npz")) as file:
            stored = {key: file[key] for key in file.files}
        for number, test in enumerate(value["tests"]):
            head = {"domain": value["domain"], "seed": seed, "kind": KIND[test["nms"]], "AP": test["AP"]}
            rows.append({**head, **{fact: value[fact] for fact in _FACTS}, "sha256": test["sha256"]})
            tests.append(test)
            arrays.append(per_image.packed(per_image.one_of(stored, number)))
    return pd.DataFrame(rows), resampled(tests), arrays


def _recipes(values: Mapping[str, Mapping[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    columns = ("domain", "val_AP", "steps", "seconds", "loss", "skipped")
    rows = [
        {"part": name, **value["recipe"], **{column: value[column] for column in columns}}
        for name, value in values.items()
    ]
    return pd.DataFrame(rows)


def _latency(finished: Finished) -> "pd.DataFrame":
    import pandas as pd

    rows = [row for value in finished.values("time-").values() for row in value]
    columns = ["domain", "network", "round", "protocol", "median_ms", "p90_ms", "noisy", "reasons", "sha256"]
    return pd.DataFrame(rows, columns=columns)


def _detections(finished: Finished, done: list[str]) -> "pd.DataFrame":
    """Of the first seed, of the domains whose test pictures are in the repository."""
    import pandas as pd

    rows = []
    for name in done:
        value, seed = finished.records[name]["value"], finished.plan.parts[name].options["seed"]
        if seed == finished.seed and value["domain"] in PICTURED:
            rows += [{"domain": value["domain"], **row} for row in value["detections"]]
    return pd.DataFrame(rows, columns=list(DETECTIONS))


STUDY = Study(
    NAME,
    "cpu",
    parts,
    keep,
    (
        *fitting.MODULES,
        "rfdetr.data.registry",
        "rfdetr.experiments.ch09_convolution_network",
        "rfdetr.peers.yolo",
    ),
    lambda profile: asdict(BASELINE[profile.name]),
)
assert set(KIND) == set(MODES)
