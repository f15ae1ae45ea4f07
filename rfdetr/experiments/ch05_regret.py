"""Regret against cost: every way to search within a budget, replayed on the kept full search, on scenes
where the law of tokens is broken, and on real domains (`ch05_real`).

Source: Section 3 and Appendix A of the paper, whose search evaluates everything. `results/search-regret` is
made by this study and shown in chapter 05. The second set has small objects on large pictures: inputs of few
pixels show them badly whatever the tokens, so settings of equal tokens differ there. No choice of any method
was made on any of the sets.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.data.scenes import Scenes, scenes
from rfdetr.errors import UserError
from rfdetr.experiments import ch05_full_parts, ch05_full_search, ch05_real
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch05_replays import CERTAIN, exact_setting, nested_table, replayed, replays
from rfdetr.model.identity import fingerprint
from rfdetr.search import budget, cost, grid
from rfdetr.search.latency_model import LatencyModel

if TYPE_CHECKING:
    import pandas as pd

NAME = "search-regret"
BUDGETS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Parts of the exact search's operations."""
SETS = ("kept", "small")
SIZES = {"full": {"seeds": 5, "images": 200}, "smoke": {"seeds": 2, "images": 8}}
"""By profile: seeds of each method, scenes of small objects."""
NAMES = {
    "multifidelity": "few images first (this book's)",
    "token-rule": "rule of tokens",
    "token-rule-tenth": "rule of tokens, a tenth of the images",
    "guided": "guided, all images",
    "halving": "successive halving",
    "hyperband": "Hyperband",
    "tpe-hyperband": "TPE with Hyperband",
    "tpe": "TPE",
    "nsga2": "NSGA-II",
    "cheap-random": "random, cheap ones more often",
    "random": "random",
}
"""Methods as the page calls them."""
LIMITS = {
    0.01: {("regret_mean", "mean"): 0.006, ("regret_worst", "worst latency"): 0.025},
    0.02: {
        ("regret_mean", "mean"): 0.003,
        ("regret_p90", "90th percentile"): 0.006,
        ("regret_worst", "worst latency"): 0.012,
    },
}
"""Aims set before the kept table was made: budget -> (column, words) -> largest median over seeds."""
COLUMNS = ["spent", "regret_mean", "regret_p90", "regret_worst", "hypervolume", "units"]
SMALL: dict[str, Any] = {"canvas": 288, "sides": [6, 10], "objects": [2, 8]}
"""Of the scenes with small objects: px, sides of the objects at 96 px, objects an image (`Domain`)."""
MODULES = ("rfdetr.search.replay", "rfdetr.search.grid", "rfdetr.search.latency_model", "rfdetr.data.scenes")
_CALL = "rfdetr.experiments.ch05_regret"


def parts(profile: Profile, seed: int) -> list[Part]:
    """Replays on the kept table, small budgets first; the exact search on the second set, replays on that;
    the same for each real domain.
    """
    source, sizes = kept.load(ch05_full_parts.NAME), SIZES[profile.name]
    digests = source.record["tables"]
    latencies = Part(
        "latencies", f"{_CALL}:latencies_part", {"profile": profile.name, **_of(digests, "latency")}
    )
    network = {"profile": profile.name, "network": fingerprint(source.network()), "images": sizes["images"]}
    network["small"] = SMALL
    exact = [
        Part(f"unit-{grid.unit_name(triple)}", f"{_CALL}:unit_part", {**network, "triple": list(triple)})
        for triple in grid.units(profile.recipe.search)
    ]
    found: dict[str, list[Part]] = {}
    seeds = range(seed, seed + sizes["seeds"])
    for name in SETS:
        needs = ("latencies",) if name == "kept" else ("latencies", *(part.name for part in exact))
        common = {"profile": profile.name, **(_of(digests, "table") if name == "kept" else {})}
        found[name] = replays(name, f"{_CALL}:{name}_part", common, needs, BUDGETS, seeds)
    real = ch05_real.parts(profile, _of(digests, "latency"), seeds)
    return [latencies, *found["kept"], *exact, *found["small"], *real]


def _of(digests: "dict[str, str]", table: str) -> dict[str, str]:
    """A kept table's digest as an option, so that what was made of another one is made anew."""
    return {table: digests[table]}


def latencies_part(place: Place, profile: str, latency: str) -> list[float]:
    """Latency in ms of all sub-networks, in the order of the kept table, by the model of the kept timings."""
    source = kept.load(ch05_full_parts.NAME)
    timed = ch05_full_search.undisturbed(source.tables["latency"])
    model = LatencyModel.fit(timed[~timed["held_out"]])
    return [float(ms) for ms in model.predict(source.tables["table"])]


def kept_part(
    place: Place, profile: str, table: str, budget: float, sampler: str, seed: int
) -> dict[str, Any]:
    """A search of the kept table: a row of `replay.regret_table`."""
    source = kept.load(ch05_full_parts.NAME)
    return _replayed(place, source.tables["table"], source.record["images"], profile, budget, sampler, seed)


def small_part(place: Place, profile: str, budget: float, sampler: str, seed: int) -> dict[str, Any]:
    """The same on the scenes of small objects."""
    values = {name: place.value(name) for name in place.needs if name.startswith("unit-")}
    return _replayed(
        place, nested_table(values.values()), SIZES[profile]["images"], profile, budget, sampler, seed
    )


def _replayed(
    place: Place,
    table: "pd.DataFrame",
    images: int,
    profile: str,
    budget: float,
    sampler: str,
    seed: int,
) -> dict[str, Any]:
    source, knobs = kept.load(ch05_full_parts.NAME), list(Arch.KNOBS)
    known = source.tables["table"][knobs].assign(predicted_ms=place.value("latencies"))
    return replayed(table.merge(known, on=knobs), _costs(profile), images, budget, sampler, seed)


@lru_cache(maxsize=1)
def _costs(profile: str) -> "pd.Series":
    """Of every unit; the same for all parts of a process."""
    network = kept.load(ch05_full_parts.NAME).network()
    return cost.unit_cost(network, get_profile(profile).recipe.search)


def small_scenes(images: int) -> Scenes:
    """Scenes of the ten digits, small on large pictures (`SMALL`)."""
    found = scenes("digits", "val", size=images, canvas=SMALL["canvas"])
    (least, most), (few, many) = SMALL["sides"], SMALL["objects"]
    found.domain = replace(found.domain, size=(least, most), objects=(few, many))
    return found


def unit_part(
    place: Place, profile: str, network: str, images: int, small: dict[str, Any], triple: list[int]
) -> dict[str, Any]:
    """AP of all sub-networks of one encoder setting on the first 20, 50, ... small scenes, and on all.

    network: fingerprint of the kept network, so that another one is evaluated anew; small: `SMALL`.
    """
    evaluator = _evaluator(kept.results_root() / ch05_full_parts.NAME, network, images)
    setting = (triple[0], triple[1], triple[2])
    pairs = grid.units(get_profile(profile).recipe.search)[setting]
    return exact_setting(evaluator, setting, pairs)[0]


@lru_cache(maxsize=1)
def _evaluator(folder: Path, network: str, images: int) -> grid.GridEvaluator:
    return grid.GridEvaluator(kept.load(folder.name, folder.parent).network(), small_scenes(images))


def collect(finished: Finished) -> None:
    """Keep one row per set, method, budget and seed, and the exact tables of all sets but the kept one."""
    import pandas as pd

    sets = {name: f"{name}-" for name in SETS}
    sets |= {domain: f"real-{domain}-" for domain in ch05_real.DOMAINS[finished.profile.name]}
    found = [{"set": name, **row} for name, start in sets.items() for row in finished.values(start).values()]
    if not found:
        raise UserError("no search is done yet: run `python -m rfdetr results search-regret`")
    rows = pd.DataFrame(found)
    rows["sampler"] = pd.Categorical(rows["sampler"], budget.SAMPLERS, ordered=True)
    rows = rows.sort_values(["set", "sampler", "budget", "seed"], ignore_index=True)
    tables = {"regret": rows[["set", "sampler", "budget", "seed", *COLUMNS]]}
    units = finished.values("unit-")
    if len(units) == len(grid.units(finished.profile.recipe.search)):
        tables["small"] = nested_table(units.values())
    real, facts = ch05_real.collected(finished)
    source = kept.load(ch05_full_parts.NAME)
    kept.keep(
        finished.folder,
        tables | real,
        finished.origin,
        digits=5,
        source={name: source.record["tables"][name] for name in ("table", "latency")},
        images={"kept": source.record["images"], "small": SIZES[finished.profile.name]["images"]},
        small=SMALL,
        unit_seconds=sum(sum(value["seconds"].values()) for value in units.values()),
        real=facts,
        made_by={name: finished.makers(f"{name}-") for name in (*SETS, "unit", "exact", "real")},
        missing=finished.plan.missing(),
    )


def summary(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Medians over seeds by set, sampler and budget, with `seeds` and the range of the mean regret: lowest,
    highest.
    """
    by = rows.groupby(["set", "sampler", "budget"], sort=False)
    found = by[COLUMNS].median()
    means = by["regret_mean"]
    return found.assign(seeds=means.size(), lowest=means.min(), highest=means.max()).reset_index()


def bounds(medians: "pd.DataFrame", sampler: str = "multifidelity", wider: float = 1.0) -> "pd.DataFrame":
    """What was asked of a method and what it reached, from `summary` of one set. Columns: budget, measure,
    limit (`wider` times the aim), reached, holds.
    """
    import pandas as pd

    mine: Any = medians[medians["sampler"] == sampler].set_index("budget")
    rows = [
        {
            "budget": budget_,
            "measure": measure,
            "limit": wider * limit,
            "reached": float(mine.loc[budget_, column]),
        }
        for budget_, limits in LIMITS.items()
        for (column, measure), limit in limits.items()
        if budget_ in mine.index
    ]
    found = pd.DataFrame(rows, columns=["budget", "measure", "limit", "reached"])
    return found.assign(holds=found["reached"] <= found["limit"])


def against_rules(medians: "pd.DataFrame", sampler: str = "multifidelity") -> "pd.DataFrame":
    """Mean regret of a method and of the better one of the rules of tokens at each budget, from `summary` of
    one set. Columns: budget, own, rule, better.
    """
    by = medians.pivot(index="budget", columns="sampler", values="regret_mean")
    rule = by[[name for name in CERTAIN if name in by]].min(axis=1)
    found = by[[sampler]].rename(columns={sampler: "own"}).assign(rule=rule).dropna().reset_index()
    return found.rename_axis(columns=None).assign(better=found["own"] < found["rule"])


def timing_words(full: kept.Kept, different: int) -> str:
    """What the latencies cost beside the accuracies, in sentences for the page. different: sub-networks of
    the grid.
    """
    words = (
        "Operations are those of the accuracies. Latencies come on top, the same for every method: each needs"
        f" a model of them, here from {len(full.tables['latency'])} exported and timed sub-networks of"
        f" {different:,}."
    )
    seconds = sum(made["seconds"] for made in full.record.get("made_by", {}).get("latency", []))
    if not seconds:
        return words
    each = seconds / len(full.tables["latency"])
    spent = sum(full.record["seconds"].values())
    return (
        f"{words} Each took {each:.1f} s, export included, so a fiftieth of the grid would take"
        f" {0.02 * different * each / 60:.0f} minutes, beside {spent / 60:.0f} minutes for all accuracies on"
        " the machine that computed them."
    )


def current(result: kept.Kept, source: kept.Kept) -> bool:
    """Whether the searches were made of the kept tables as they are now."""
    own: dict[str, str] = result.record["source"]
    return all(source.record["tables"].get(name) == digest for name, digest in own.items())


STUDY = Study(NAME, ch05_full_search.PROFILE, parts, collect, MODULES)
