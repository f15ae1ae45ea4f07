"""The miniature benchmark: fourteen real sets and six embedded domains, the paper's protocol on each.

Source: Section 4.2, Tables 4, 14 and 17 and Appendix G of the paper, which do this on the hundred sets of
RF100-VL. One base supernet is trained on scenes of all embedded domains, none of the real sets in it. Then
for every domain and seed, in parts:

tune     the base trained further on the domain with weight sharing; all sub-networks on its validation and
         test pictures; for three targets the best on validation (nas) and those that the base itself would
         take, chosen on embedded validation scenes, the same for all domains (fixed)
alone    each of these trained further on its own (nas_tuned, fixed_tuned), and for comparison the supernet
         for as many steps (nas_continued, fixed_continued)
scratch  a supernet with random weights, trained for as many steps as `tune`
epochs   the middle choice trained further for other numbers of steps
prior    the base trained on the scenes and the other real sets, then as `tune`

The targets are operations (GFLOPs of the deployed network), fixed once for all domains: latencies of networks
this small are mostly overhead. `ch09_parts` has the parts, `ch09_analysis` reads the result.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.experiments.base.parts import Part
from rfdetr.experiments.base.profiles import PROFILES, Profile

NAME, PROFILE = "fourteen-domains", "cpu"
SEVERAL = ("bccd", "raccoon", "hit_uav", "deeppcb")
"""Domains whose further seeds come first."""
REAL = (
    *SEVERAL,
    "playing_cards",
    "sketch2code",
    "dsb2018_nuclei",
    "unlv_tables",
    "microcontrollers",
    "chess_pieces",
    "thermal_cheetah",
    "tomato_rugoso",
    "kuih",
    "oil_palm",
)
EMBEDDED = ("colours", "parity", "crowd", "giants", "specks", "clutter")
TARGETS = ("N", "S", "M")
_PLACES = (0.15, 0.4, 0.75)
"""Where the targets lie in the order of all sub-networks by operations."""
_CALL = "rfdetr.experiments.ch09_parts"


@dataclass(frozen=True)
class Sizes:
    """How much the benchmark computes.

    real, embedded   domains;   priors: those of `prior`;   epochs: those of `epochs`
    model            fields of `ModelConfig`;   training, search: grids
    side, canvas     px: longer side of real pictures, side of scenes
    scenes           scenes per embedded domain that the base trains on, and on which it chooses
    few              training, validation and test scenes of an embedded domain as a domain of its own
    batch_size       pictures per step of all trainings
    base_steps, steps, tuned, lengths   of the base, of `tune` and `scratch`, of `alone`, of `epochs`
    seeds            of everything but the base
    grid_resamples   resamples of the test pictures for all sub-networks
    """

    real: tuple[str, ...]
    embedded: tuple[str, ...]
    priors: tuple[str, ...]
    epochs: tuple[str, ...]
    model: Mapping[str, Any]
    training: SearchSpace
    search: SearchSpace
    side: int
    canvas: int
    scenes: tuple[int, int]
    few: tuple[int, int, int]
    batch_size: int
    base_steps: int
    steps: int
    tuned: int
    lengths: tuple[int, ...]
    seeds: int
    grid_resamples: int


_CPU, _SMOKE = PROFILES["cpu"].recipe, PROFILES["smoke"].recipe
SIZES = {
    "cpu": Sizes(
        real=REAL,
        embedded=EMBEDDED,
        priors=("bccd", "raccoon", "hit_uav"),
        epochs=SEVERAL,
        model={**_CPU.model, "queries": 60, "position_grid": 20},
        training=SearchSpace((80, 96, 128, 160), (8, 10, 12, 16), (1, 2, 4), (3,), (60,)),
        search=SearchSpace(
            (80, 96, 128, 160), (8, 10, 12, 14, 16), (1, 2, 4), (0, 1, 2, 3), (10, 20, 40, 60)
        ),
        side=160,
        canvas=160,
        scenes=(2000, 20),
        few=(150, 50, 100),
        batch_size=32,
        base_steps=3000,
        steps=400,
        tuned=80,
        lengths=(20, 40, 160, 320),
        seeds=3,
        grid_resamples=40,
    ),
    "smoke": Sizes(
        real=(),
        embedded=("colours", "crowd"),
        priors=(),
        epochs=("crowd",),
        model={**_SMOKE.model, "position_grid": 12},
        training=_SMOKE.training,
        search=SearchSpace((64, 96), (8, 16), (1, 2), (0, 2), (6, 12)),
        side=64,
        canvas=64,
        scenes=(20, 2),
        few=(12, 6, 8),
        batch_size=4,
        base_steps=4,
        steps=3,
        tuned=2,
        lengths=(1,),
        seeds=2,
        grid_resamples=5,
    ),
}


def archs_of(space: SearchSpace) -> list[Arch]:
    """All sub-networks of the search, in the order of every kept array."""
    return space.distinct()


def operations(sizes: Sizes) -> np.ndarray:
    """GFLOPs of every sub-network, [N]; of a network with the base's classes, for all domains."""
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.model.config import ModelConfig

    config = ModelConfig(num_classes=13, **sizes.model)
    return analytic_table(config, archs_of(sizes.search))["gflops"].to_numpy()


def limits(sizes: Sizes) -> dict[str, float]:
    """Target -> most GFLOPs that a sub-network for it may have."""
    ordered = np.sort(operations(sizes))
    return {
        name: float(ordered[int(place * len(ordered))]) for name, place in zip(TARGETS, _PLACES, strict=True)
    }


def chosen(ap: np.ndarray, sizes: Sizes) -> dict[str, str]:
    """Target -> name of the most accurate sub-network within it; of equals the cheapest."""
    cost = operations(sizes)
    names = [arch.id for arch in archs_of(sizes.search)]
    found = {}
    for target, limit in limits(sizes).items():
        allowed = np.where(cost <= limit, np.nan_to_num(ap, nan=-1.0), -np.inf)
        best = np.flatnonzero(allowed == allowed.max())
        found[target] = names[best[np.argmin(cost[best])]]
    return found


def parts(profile: Profile, seed: int) -> list[Part]:
    """Data, the base and its choice; seed by seed the domains; then epochs and priors."""
    sizes = SIZES[profile.name]
    common = {"profile": profile.name}
    found = [_part(f"data-{d}", "ch09_data:data_part", {"domain": d, "side": sizes.side}) for d in sizes.real]
    base = {**common, "seed": seed, "steps": sizes.base_steps, "real": []}
    found.append(_part("base", "ch09_parts:base_part", base))
    found.append(_part("choice", "ch09_parts:choice_part", common, ("base",)))
    for s in range(seed, seed + sizes.seeds):
        several = [d for d in SEVERAL if d in sizes.real] if s > seed else []
        domains = (*sizes.real, *sizes.embedded)
        for group in (several, [d for d in domains if d not in several]):
            found += _of_seed(sizes, group, s, "first" if s == seed else f"seed{s}", common)
    found += _epochs(sizes, seed, common)
    found += _priors(sizes, seed, common)
    return found


def _of_seed(
    sizes: Sizes, domains: Iterable[str], seed: int, prefix: str, common: dict[str, Any]
) -> Iterator[Part]:
    domains = list(domains)
    for d in domains:
        options = {**common, "domain": d, "seed": seed, "steps": sizes.steps}
        needs = ("base", "choice", *_data(sizes, d))
        yield _part(f"{prefix}-tune-{d}", "ch09_parts:tune_part", options, needs)
    for d in domains:
        options = {**common, "domain": d, "seed": seed, "steps": sizes.tuned, "tune": f"{prefix}-tune-{d}"}
        needs = (f"{prefix}-tune-{d}", "choice", *_data(sizes, d))
        yield _part(f"{prefix}-alone-{d}", "ch09_parts:alone_part", options, needs)
    for d in domains:
        options = {**common, "domain": d, "seed": seed, "steps": sizes.steps}
        needs = ("choice", *_data(sizes, d))
        yield _part(f"{prefix}-scratch-{d}", "ch09_parts:scratch_part", options, needs)


def _epochs(sizes: Sizes, seed: int, common: dict[str, Any]) -> Iterator[Part]:
    for d in sizes.epochs:
        tune = f"first-tune-{d}"
        options = {**common, "domain": d, "seed": seed, "lengths": list(sizes.lengths), "tune": tune}
        yield _part(f"epochs-{d}", "ch09_parts:epochs_part", options, (tune, *_data(sizes, d)))


def _priors(sizes: Sizes, seed: int, common: dict[str, Any]) -> Iterator[Part]:
    for d in sizes.priors:
        others = [other for other in sizes.real if other != d]
        needs = tuple(f"data-{other}" for other in others)
        base = {**common, "seed": seed, "steps": sizes.base_steps, "real": others}
        yield _part(f"prior-base-{d}", "ch09_parts:base_part", base, needs)
        options = {**common, "domain": d, "seed": seed, "steps": sizes.steps, "base": f"prior-base-{d}"}
        needs = (f"prior-base-{d}", "choice", *_data(sizes, d))
        yield _part(f"prior-tune-{d}", "ch09_parts:tune_part", options, needs)


def _data(sizes: Sizes, domain: str) -> tuple[str, ...]:
    return (f"data-{domain}",) if domain in sizes.real else ()


def _part(name: str, call: str, options: Mapping[str, Any], needs: tuple[str, ...] = ()) -> Part:
    return Part(name, f"rfdetr.experiments.{call}", options, needs)
