"""The second test of searches within a budget, on real pictures: for each domain the supernet that the
miniature benchmark (`ch09_domains`) tuned on it, all sub-networks of a grid of the printed one's shape on all
pictures that training has not seen, and the same searches as on the kept table, with nothing tuned again.

Source: Section 4.2 of the paper (small sets of many domains). The parts belong to `ch05_regret`'s study.
"""

import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError
from rfdetr.evaluation.bootstrap import image_weights
from rfdetr.experiments import ch05_full_parts, ch05_full_search, ch09_study
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.parts import Part, Place, read
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.ch05_replays import exact_setting, nested_table, replayed, replays
from rfdetr.experiments.ch09_data import Mixture
from rfdetr.experiments.ch09_domains import NAME as BENCHMARK
from rfdetr.experiments.ch09_domains import SEVERAL
from rfdetr.experiments.ch09_domains import SIZES as BENCHMARK_SIZES
from rfdetr.experiments.ch09_parts import open_domain
from rfdetr.files import atomic_path, sha256_file
from rfdetr.search import blocks, cost, grid
from rfdetr.search.latency_model import LatencyModel

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.studies import Finished

BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Parts of the exact search's operations: less than the smallest pays for no look."""
DOMAINS = {"full": SEVERAL, "smoke": ("crowd",)}
"""By profile; of the smoke profile an embedded one."""
GRIDS = {
    "full": SearchSpace(
        tuple(range(80, 161, 8)), (8, 9, 10, 11, 12, 14, 16), (1, 2, 4), (0, 1, 2, 3), (10, 20, 40, 60)
    ),
    "smoke": BENCHMARK_SIZES["smoke"].search,
}
"""By profile: as many resolutions, patch sizes and windows as the printed grid has, within the sizes that the
benchmark trains with; depths and queries are the benchmark's.
"""
WIDER = 2.0
"""Aims on real domains: so many times those on the kept table."""
_TRAINED = {"full": "cpu", "smoke": "smoke"}  # profile of the benchmark
_CALL = "rfdetr.experiments.ch05_real"


def parts(profile: Profile, latency: Mapping[str, str], seeds: range) -> list[Part]:
    """Latencies of the grid; by domain its network, all settings, the searches.

    latency: digest of the kept timings, as an option of the parts
    """
    name, space = profile.name, GRIDS[profile.name]
    about = {"profile": name, "grid": fitting.space_options(space)}
    found = [Part("latencies-real", f"{_CALL}:latencies_part", {**about, **latency})]
    files = stems(name)
    for domain in DOMAINS[name]:
        tuned, data = f"first-tune-{domain}", f"data-{domain}"
        options = {
            "profile": name,
            "domain": domain,
            "tuned": files[tuned],
            "data": files.get(data, ""),
        }
        network = Part(f"network-{domain}", f"{_CALL}:network_part", options)
        exact = [
            Part(
                f"exact-{domain}-{grid.unit_name(triple)}",
                f"{_CALL}:exact_part",
                {"profile": name, "domain": domain, "triple": list(triple), "pairs": list(map(list, pairs))},
                (network.name,),
            )
            for triple, pairs in grid.units(space).items()
        ]
        needs = ("latencies-real", network.name, *(part.name for part in exact))
        common = {"profile": name, "domain": domain}
        searches = replays(f"real-{domain}", f"{_CALL}:search_part", common, needs, BUDGETS, seeds)
        found += [network, *exact, *searches]
    return found


@lru_cache(maxsize=2)
def stems(profile: str) -> dict[str, str]:
    """Names of the benchmark's parts -> of their files; they hold a digest of all that decides the parts but
    the code.
    """
    from dataclasses import replace

    # The folder plays no part in them.
    study = replace(ch09_study.STUDY, profile=_TRAINED[profile])
    return study.task(0, Store(".")).plan.stems


def latencies_part(place: Place, profile: str, grid: dict[str, Any], latency: str) -> list[float]:
    """Latency in ms of all sub-networks of the grid, by the model of the kept timings, which knows no more
    than 144 px and 30 queries: beyond it extrapolates.
    """
    source = kept.load(ch05_full_parts.NAME)
    timed = ch05_full_search.undisturbed(source.tables["latency"])
    model = LatencyModel.fit(timed[~timed["held_out"]])
    return [float(ms) for ms in model.predict(SearchSpace(**grid).distinct())]


def network_part(place: Place, profile: str, domain: str, tuned: str, data: str) -> dict[str, Any]:
    """Take network and pictures of a domain from the benchmark's parts in the same store.

    tuned, data: names of their files. UserError when they are not there.
    """
    source = place.folder.parent / BENCHMARK
    files = {".safetensors": source / f"{tuned}.safetensors"}
    if data:
        files[".zip"] = source / f"{data}.zip"
    record = source / f"{tuned}.json"
    if not all(path.is_file() for path in (record, *files.values())):
        raise UserError(
            f"the network tuned on {domain} and its pictures are not in {source}: make them with `python -m"
            f" rfdetr results {BENCHMARK} --part first-tune-{domain}`, which takes the pictures from the"
            " folder that RFDETR_MIRROR names or from their source; the other sets do not need them"
        )
    for ending, path in files.items():
        with atomic_path(place.file(ending)) as temporary:
            shutil.copyfile(path, temporary)
    made = read(record)
    return {
        "network": sha256_file(place.file(".safetensors")),
        "made": made["made"],
        "code": made["code"],
        "classes": made["value"]["classes"],
    }


def exact_part(
    place: Place, profile: str, domain: str, triple: list[int], pairs: list[list[int]]
) -> dict[str, Any]:
    """AP of all sub-networks of one encoder setting (`exact_setting`), and `error`: the standard deviation of
    the best one's AP over resampled pictures.
    """
    network = place.needed(f"network-{domain}", ".safetensors")
    evaluator = _evaluator(place.folder.parent, network, profile, domain)
    value, matches = exact_setting(
        evaluator, (triple[0], triple[1], triple[2]), [(depth, queries) for depth, queries in pairs]
    )
    whole = value["nested"][str(len(evaluator.images))]
    again = blocks.resampled(evaluator.images.truth, matches, int(np.nanargmax(whole)))
    weights = image_weights(len(evaluator.images), 100, 0)
    return {**value, "error": float(np.nanstd(again.ap(weights)))}


@lru_cache(maxsize=1)
def _evaluator(store: Path, network: Path, profile: str, domain: str) -> grid.GridEvaluator:
    """One for all settings of a domain that a process does."""
    sizes = BENCHMARK_SIZES[_TRAINED[profile]]
    place = Place(network.parent, "", "cpu", {f"data-{domain}": network.stem})
    pictures = Mixture([open_domain(place, sizes, domain, split) for split in ("val", "test")])
    return grid.GridEvaluator(kept.read_network(network), pictures)


def search_part(
    place: Place, profile: str, domain: str, budget: float, sampler: str, seed: int
) -> dict[str, Any]:
    """A search of a domain's exact table: a row of `replay.regret_table`."""
    values = [place.value(name) for name in place.needs if name.startswith("exact-")]
    known = [arch.to_dict() for arch in GRIDS[profile].distinct()]
    table = _with_latency(nested_table(values), known, place.value("latencies-real"))
    costs = _costs(place.needed(f"network-{domain}", ".safetensors"), profile)
    return replayed(table, costs, _images(values[0]), budget, sampler, seed)


def _with_latency(
    table: "pd.DataFrame", archs: list[dict[str, int]], latencies: list[float]
) -> "pd.DataFrame":
    import pandas as pd

    return table.merge(pd.DataFrame(archs).assign(predicted_ms=latencies), on=list(Arch.KNOBS))


@lru_cache(maxsize=1)
def _costs(network: Path, profile: str) -> "pd.Series":
    return cost.unit_cost(kept.read_network(network), GRIDS[profile])


def _images(value: Mapping[str, Any]) -> int:
    return max(map(int, value["nested"]))


def collected(finished: "Finished") -> "tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]":
    """(exact table by domain, facts by domain) of the domains all of whose settings are done.

    The facts: images, levels (numbers of images of the columns), settings, error (median over settings, see
    `exact_part`), seconds, network (SHA-256), made (where it was tuned), classes.
    """
    tables, facts = {}, {}
    settings = len(grid.units(GRIDS[finished.profile.name]))
    for domain in DOMAINS[finished.profile.name]:
        values = list(finished.values(f"exact-{domain}-").values())
        if len(values) < settings:
            continue
        tables[domain] = nested_table(values)
        facts[domain] = {
            **finished.records[f"network-{domain}"]["value"],
            "images": _images(values[0]),
            "levels": sorted(map(int, values[0]["nested"])),
            "settings": settings,
            "error": float(np.median([value["error"] for value in values])),
            "seconds": sum(sum(value["seconds"].values()) for value in values),
        }
    return tables, facts
