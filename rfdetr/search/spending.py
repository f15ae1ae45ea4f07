"""A search for a part of the cost of the exact one, timing included."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.flops import analytic_table
from rfdetr.benchmark.int8_layers import MAX_LOSS
from rfdetr.data.dataset import DetectionDataset, digest
from rfdetr.errors import UserError
from rfdetr.files import read_json, write_json
from rfdetr.interrupts import interruptible
from rfdetr.model.identity import fingerprint
from rfdetr.search.budget import check_options
from rfdetr.search.cost import unit_cost
from rfdetr.search.grid import GridEvaluator, Triple, keep_unit, kept_unit, units
from rfdetr.search.latency_model import FEWEST, measurement_plan
from rfdetr.search.latency_plan import measure_actively
from rfdetr.search.result import Job, SearchResult
from rfdetr.search.run import chosen_metric
from rfdetr.search.timing import Protocol, Timings
from rfdetr.search.within import budgeted_search

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

_PARTS = 3  # of the latency range, in each of which at least one encoder setting is evaluated
_FOR_THE_FRONT = 6  # networks of the front that are timed at the end, of which the costs must leave room
_FOR_TIMING = 0.25  # of what the budget leaves for more timings


@dataclass(frozen=True)
class Shares:
    """How a budget is spent.

    exact_s, each_s   seconds of all accuracies of the exact search, and of the timing of one sub-network
    timed             sub-networks that are timed before the search
    accuracies        part of `exact_s` for accuracies
    """

    exact_s: float
    each_s: float
    timed: int
    accuracies: float


def shares(budget: float, exact_s: float, each_s: float, measured: int, fewest: int) -> Shares:
    """Split `budget`, a part of the exact search's seconds (all accuracies, and the timing of `measured`).

    `fewest` timings come first, without which no latency can be predicted; of what is left a quarter goes to
    more timings, up to `measured`, the rest to accuracies. Nothing may be left for these: see
    `search_within`.
    """
    allowed = budget * (exact_s + measured * each_s)
    left = max(0.0, allowed - (fewest + _FOR_THE_FRONT) * each_s)
    more = min(max(0, measured - fewest), int(_FOR_TIMING * left / each_s))
    rest = max(0.0, left - more * each_s)
    return Shares(exact_s, each_s, fewest + more, min(1.0, rest / exact_s) if exact_s > 0 else 1.0)


def search_within(
    budget: float,
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    out_dir: str | Path,
    *,
    sampler: str = "multifidelity",
    metric: str = "",
    measured: int = 40,
    runtime: str = "onnxruntime",
    precision: str = "",
    threads: int = 1,
    gpu: int = 0,
    images: DetectionDataset | None = None,
    time_again: bool = False,
    complete: bool = True,
    intervals: bool = True,
    max_loss: float | None = MAX_LOSS,
    seed: int = 0,
    storage: str = "",
    progress: bool = True,
    origin: dict[str, Any] | None = None,
) -> SearchResult:
    """Like `search`, for `budget` times its whole cost (0.05: a twentieth), timing included.

    At least 12 latencies are measured first, chosen where they tell most (`latency_plan`); a `LatencyModel`
    gives those of all others. Then `sampler` (`budget.SAMPLERS`) decides which encoder settings are looked
    at, and on how many images (`within.budgeted_search`). Whatever the budget, one is looked at in each third
    of the range of latencies, and the front is timed. `notes` say what was not looked at.

    The table holds all sub-networks with the accuracy that is expected of them and its deviation, e.g. AP and
    AP_sd, or, with a sampler that looks at all images, the evaluated ones. storage: of a search by many
    workers, which wait for the latencies of this process; `budget` is then, as for them, the part of the
    accuracies alone.
    """
    check_options(budget, sampler)
    metric = chosen_metric(model, dataset, metric)
    protocol = Protocol(runtime, precision, threads, gpu, images)
    protocol.check()
    with interruptible():
        timings = Timings(Path(out_dir), model, fingerprint(model), protocol, time_again)
        job = Job(model, dataset, timings, metric, seed, complete, intervals, max_loss, progress, origin)
        if storage:
            split = Shares(float("nan"), float("nan"), measured, budget)
        else:
            split = _split(job, space, budget, measured)
        measure_actively(lambda archs: timings.measured(archs, progress), space, split.timed, seed)
        latency = timings.model_of_latency(seed)
        table, spent = _evaluated(job, space, latency.predict, split, sampler, storage)
        archs = [Arch(*map(int, row)) for row in table[list(Arch.KNOBS)].to_numpy()]
        table = table.assign(gflops=analytic_table(model, archs)["gflops"].to_numpy())
        about: dict[str, Any] = {
            "space": asdict(space),
            "sampler": sampler,
            "budget": budget,
            "spent": spent,
            "shares": asdict(split),
        }
        return job.finish(table, about, looked_at(space, table, latency.predict))


def _split(job: Job, space: SearchSpace, budget: float, measured: int) -> Shares:
    """The shares of a budget from the speed of this machine; those of an earlier call of the same search."""
    from rfdetr.search.study import dry_run

    runtime, data = job.timings.protocol.runtime, job.dataset.fingerprint
    key = digest(fingerprint(job.model), data, space, budget, measured, runtime)
    path = job.folder / "budget.json"
    kept: Any = read_json(path)
    if isinstance(kept, dict) and kept.get("key") == key:
        return Shares(**kept["shares"])
    fewest = min(FEWEST, measured, len(space.distinct()))
    start = time.perf_counter()
    count = job.timings.measure(measurement_plan(space, fewest, job.seed), job.progress)
    each = (time.perf_counter() - start) / count if count else 1.0
    exact = float(dry_run(job.model, job.dataset, space)["hours"].iloc[0]) * 3600
    found = shares(budget, exact, each, measured, fewest)
    write_json(path, {"key": key, "shares": asdict(found)})
    if job.progress:
        print(
            f"the exact search would take about {exact + measured * each:.0f} s ({exact:.0f} s for"
            f" accuracies, {each:.1f} s for each of {measured} latencies); of these {budget:.1%} is spent:"
            f" {found.timed} latencies, {found.accuracies:.1%} of the accuracies",
            flush=True,
        )
    return found


def _evaluated(
    job: Job,
    space: SearchSpace,
    latency: Callable[["pd.DataFrame"], np.ndarray],
    split: Shares,
    sampler: str,
    storage: str,
) -> "tuple[pd.DataFrame, float]":
    """The table of accuracies, and which part of the exact search's cost it took."""

    def report(spent: float, count: int) -> None:
        if job.progress:
            print(f"{count} encoder settings, {spent:.1%} of the exact search's accuracies", flush=True)

    model, dataset, folder = job.model, job.dataset, job.folder / "evaluated"
    cost = unit_cost(model, space)
    cost = cost / cost.sum()
    # Few measured ones predict no range that could be relied on; the cost of a setting stands for it.
    level = levels(space, latency) if split.timed >= FEWEST else _logarithms(cost)
    found, spent = None, 0.0
    if split.accuracies > 0:
        try:
            found = budgeted_search(
                model,
                dataset,
                space,
                latency,
                sampler=sampler,
                budget=split.accuracies,
                seed=job.seed,
                metric=job.metric,
                folder=folder,
                storage=storage,
                progress=report,
            ).drop(columns=["latency_ms"])
            spent = float(found.attrs["spent"])
        except UserError as error:
            if "pays for nothing" not in str(error):
                raise
    done = set() if found is None else _settings(found[found["images"] > 0])
    added = spread(level, cost, done)
    whole = [_unit(model, dataset, space, triple, folder) for triple in added]
    spent += sum(float(cost[triple]) for triple in added)
    if added:
        report(spent, len(done) + len(added))
    return _with_units(found, whole, job.metric, len(dataset)), spent


def _settings(table: "pd.DataFrame") -> set[Triple]:
    return {(int(r), int(p), int(w)) for r, p, w in table[list(Arch.KNOBS[:3])].to_numpy()}


def _with_units(
    found: "pd.DataFrame | None", whole: "list[pd.DataFrame]", metric: str, images: int
) -> "pd.DataFrame":
    """A table of a budgeted search with the rows of settings that were evaluated in full besides."""
    import pandas as pd

    if not whole:
        assert found is not None
        return found
    known: dict[str, Any] = {"images": images}
    if found is not None and f"{metric}_sd" in found:
        known[f"{metric}_sd"] = 0.0
    units_ = pd.concat(whole, ignore_index=True).assign(**known)
    if found is None:
        return units_
    knobs = pd.MultiIndex.from_frame(found[list(Arch.KNOBS)])
    again = knobs.isin(pd.MultiIndex.from_frame(units_[list(Arch.KNOBS)]))
    return pd.concat([found[~again], units_], ignore_index=True)


def spread(level: dict[Triple, float], cost: "pd.Series", done: set[Triple]) -> list[Triple]:
    """Encoder settings to evaluate so that one is in each of `_PARTS` parts of the range of `level`: the
    cheapest ones of the parts that have none of `done`.
    """
    edges = np.linspace(min(level.values()), max(level.values()), _PARTS + 1)[1:-1]
    parts: dict[int, list[Triple]] = {}
    for triple, value in level.items():
        parts.setdefault(int(np.searchsorted(edges, value)), []).append(triple)
    return [
        min(members, key=lambda triple: float(cost[triple]))
        for _, members in sorted(parts.items())
        if not done.intersection(members)
    ]


def levels(space: SearchSpace, latency: Callable[["pd.DataFrame"], np.ndarray]) -> dict[Triple, float]:
    """Encoder setting -> logarithm of its median predicted latency."""
    import pandas as pd

    points = pd.DataFrame([arch.to_dict() for arch in space.distinct()])
    points["ms"] = latency(points)
    medians = points.groupby(list(Arch.KNOBS[:3]))["ms"].median()
    return _logarithms(medians)


def _logarithms(values: "pd.Series") -> dict[Triple, float]:
    items: Any = values.items()
    return {(int(r), int(p), int(w)): float(np.log(value)) for (r, p, w), value in items}


def _unit(
    model: "RFDETR", dataset: DetectionDataset, space: SearchSpace, triple: Triple, folder: Path
) -> "pd.DataFrame":
    import pandas as pd

    evaluator, pairs = GridEvaluator(model, dataset), units(space)[triple]
    keep = folder / evaluator.key
    result = kept_unit(keep, triple, pairs) or keep_unit(keep, triple, evaluator.unit(triple, pairs))
    wanted = set(pairs)
    rows = [
        {**Arch(*triple, *pair).to_dict(), **numbers}
        for pair, numbers in zip(map(tuple, result["pairs"]), result["rows"], strict=True)
        if pair in wanted
    ]
    return pd.DataFrame(rows)


def looked_at(
    space: SearchSpace, table: "pd.DataFrame", latency: Callable[["pd.DataFrame"], np.ndarray]
) -> tuple[str, ...]:
    """What the search has looked at and what not, in a sentence."""
    level = levels(space, latency)
    done = _settings(table[table["images"] > 0])
    left = [triple for triple in level if triple not in done]
    if not left:
        return ()
    times = np.exp([level[triple] for triple in left])
    seen = np.exp([level[triple] for triple in level if triple in done])
    return (
        f"{len(level) - len(left)} of {len(level)} encoder settings were looked at, of about"
        f" {seen.min():.3g} to {seen.max():.3g} ms; {len(left)} were not looked at, of about"
        f" {times.min():.3g} to {times.max():.3g} ms, between"
        f" {min(t[0] for t in left)} and {max(t[0] for t in left)} px",
    )
