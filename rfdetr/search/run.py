"""One search from a trained supernet to a table: accuracy of the whole grid, latency of a sample, the front.

Source: Section 3 ("grid search over all sub-networks") and Figure 1. The table and its provenance are the
result; the front is computed from it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.files import atomic_path, write_json
from rfdetr.model.identity import fingerprint
from rfdetr.search.grid import evaluate_grid, with_gflops
from rfdetr.search.pareto import front, front_mask

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


@dataclass(frozen=True)
class SearchResult:
    """table: one row per evaluated sub-network. front: the rows that no other beats, by measured latency
    (exact search) or by predicted latency (within a budget).
    """

    table: "pd.DataFrame"
    front: "pd.DataFrame"
    path: Path


def search(
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    out_dir: str | Path,
    *,
    measured: int = 40,
    threads: int = 1,
    seed: int = 0,
    runtime: str = "onnxruntime",
    storage: str = "",
    progress: bool | Callable[[int, int], None] = True,
    origin: dict[str, Any] | None = None,
) -> SearchResult:
    """Evaluate every sub-network of `space` on `dataset`, time `measured` of them, write table.csv.

    out_dir   table.csv, front.csv, search.json (provenance), evaluated/ (finished work, used again) and onnx/
    measured  how many sub-networks are timed, see `candidates`
    threads   CPU threads of the runtime;   runtime: see `rfdetr.benchmark.runtimes`
    storage   URL of a search by many workers (`study.run_worker`): join it until it is done, and use its
              accuracies

    A stopped search goes on where it was. The columns are the five knobs, the COCO numbers, gflops, and
    latency_ms (NaN where not measured).
    """
    from rfdetr.benchmark.subnetworks import measure_latency

    folder = Path(out_dir)
    if storage:
        points = with_gflops(model, space, _joined(model, dataset, space, storage, progress))
    else:
        kept = folder / "evaluated"
        points = evaluate_grid(model, dataset, space, folder=kept, gflops=True, progress=progress)
    table = points.drop(columns=["nominal_resolution", "nominal_queries"]).drop_duplicates(list(Arch.KNOBS))
    table = table.reset_index(drop=True)
    archs = candidates(table, measured, seed)
    timed = measure_latency(
        model, archs, runtime, threads, progress=progress is True, cache_dir=folder / "onnx"
    )
    table = table.merge(timed[[*Arch.KNOBS, "latency_ms"]], on=list(Arch.KNOBS), how="left")
    best = front(table.dropna(subset=["latency_ms"]))
    about = {
        "space": asdict(space),
        "measured": len(archs),
        "seconds": points.attrs["seconds"],
        "threads": threads,
    }
    return _write(folder, table, best, timed, model, dataset, about, origin)


def search_within(
    budget: float,
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    out_dir: str | Path,
    *,
    sampler: str = "multifidelity",
    measured: int = 40,
    threads: int = 1,
    seed: int = 0,
    runtime: str = "onnxruntime",
    storage: str = "",
    progress: bool = True,
    origin: dict[str, Any] | None = None,
) -> SearchResult:
    """Like `search`, for `budget` times its cost of evaluation (0.02: a fiftieth); see
    `within.budgeted_search`.

    Latencies of `measured` sub-networks, spread over the space, are measured first; a `LatencyModel` gives
    those of all others as `predicted_ms`, which decides the front. The table holds all sub-networks with the
    AP that is expected of them, or, with a sampler that looks at all images, the evaluated ones. storage: of
    a search by many workers, which wait for the latencies of this process and take part in the evaluation.
    """
    from rfdetr.benchmark.subnetworks import measure_latency
    from rfdetr.search.budget import check_options
    from rfdetr.search.latency_model import LatencyModel, measurement_plan
    from rfdetr.search.within import budgeted_search

    check_options(budget, sampler)
    folder = Path(out_dir)
    archs = measurement_plan(space, measured, seed)
    timed = measure_latency(model, archs, runtime, threads, progress=progress, cache_dir=folder / "onnx")
    latency = LatencyModel.fit(timed, seed=seed)

    def report(spent: float, units: int) -> None:
        if progress:
            print(f"{units} encoder settings, {spent:.1%} of the exact search's cost", flush=True)

    table = budgeted_search(
        model,
        dataset,
        space,
        latency.predict,
        sampler=sampler,
        budget=budget,
        seed=seed,
        folder=folder / "evaluated",
        storage=storage,
        progress=report,
    )
    spent = table.attrs
    table = table.rename(columns={"latency_ms": "predicted_ms"})
    table = table.merge(timed[[*Arch.KNOBS, "latency_ms"]], on=list(Arch.KNOBS), how="left")
    about: dict[str, Any] = {
        "space": asdict(space),
        "measured": len(archs),
        "threads": threads,
        "sampler": sampler,
        "budget": budget,
        "spent": spent["spent"],
        "units": spent["units"],
        "latency_model": {
            "method": latency.method,
            "cross_validation": latency.cross_validation.to_dict("records"),
        },
    }
    return _write(folder, table, front(table, cost="predicted_ms"), timed, model, dataset, about, origin)


def _joined(
    model: "RFDETR", dataset: DetectionDataset, space: SearchSpace, storage: str, progress: Any
) -> "pd.DataFrame":
    from rfdetr.search.study import run_worker

    def report(state: Any) -> None:
        if callable(progress):
            progress(state.done, state.total)
        elif progress:
            print(state, flush=True)

    return run_worker(model, dataset, space, storage, on_progress=report)


def _write(
    folder: Path,
    table: "pd.DataFrame",
    best: "pd.DataFrame",
    timed: "pd.DataFrame",
    model: "RFDETR",
    dataset: DetectionDataset,
    about: dict[str, Any],
    origin: dict[str, Any] | None,
) -> SearchResult:
    for name, frame in (("table", table), ("front", best), ("latency", timed)):
        with atomic_path(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(
        folder / "search.json",
        {
            "sub_networks": len(table),
            "network": fingerprint(model),
            "dataset": {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint},
            **about,
            "provenance": origin or {},
        },
    )
    return SearchResult(table, best, folder / "table.csv")


def candidates(table: "pd.DataFrame", count: int, seed: int = 0) -> list[Arch]:
    """Sub-networks worth timing, `count` of them (or all, if there are fewer).

    Exporting is what takes long, and sub-networks of one encoder setting are cut out of one or two exports.
    So a quarter as many settings are chosen, two thirds of them evenly from the front in (AP, GFLOPs), the
    rest at random, and of each the ones on the front, then those with most and fewest layers and queries,
    then random ones.
    """
    rng = np.random.default_rng(seed)
    triples = table[list(Arch.KNOBS[:3])].apply(tuple, axis=1)
    on_front = front_mask(table["AP"].to_numpy(), table["gflops"].to_numpy())
    leading = list(dict.fromkeys(triples[on_front].iloc[np.argsort(table["gflops"][on_front].to_numpy())]))
    others = sorted(set(triples) - set(leading))
    settings = max(1, -(-count // 4))
    from_front = max(-(-2 * settings // 3), settings - len(others))
    chosen = [
        leading[i]
        for i in np.unique(np.linspace(0, len(leading) - 1, min(from_front, len(leading))).astype(int))
    ]
    chosen += [others[i] for i in rng.permutation(len(others))[: settings - len(chosen)]]

    def order(rows: "pd.DataFrame") -> list[int]:
        depth, queries = rows["decoder_layers"], rows["queries"]
        extreme = depth.isin((depth.min(), depth.max())) & queries.isin((queries.min(), queries.max()))
        rank = np.where(on_front[rows.index], 0, np.where(extreme, 1, 2))
        return rows.index[np.lexsort((rng.random(len(rows)), rank))].tolist()

    queues = [order(table[triples == triple]) for triple in chosen]
    # In turn, so that every setting is measured before one is measured twice.
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return [Arch(*map(int, row)) for row in table.loc[sorted(turns[:count]), list(Arch.KNOBS)].to_numpy()]
