"""One search from a trained supernet to a table: accuracy of the whole grid, latency of a sample, the front.

Source: Section 3 ("grid search over all sub-networks") and Figure 1. The table and its provenance are the result; the
front is computed from it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.files import atomic_path, write_json
from rfdetr.search.grid import KNOBS, evaluate_grid, fingerprint
from rfdetr.search.pareto import front, front_mask

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


@dataclass(frozen=True)
class SearchResult:
    """table: one row per distinct sub-network. front: the measured rows that no other measured row beats."""

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
    progress: bool | Callable[[int, int], None] = True,
    origin: dict[str, Any] | None = None,
) -> SearchResult:
    """Evaluate every sub-network of `space` on `dataset`, time `measured` of them in ONNX Runtime, write table.csv.

    out_dir   table.csv, front.csv, search.json (provenance), evaluated/ (finished work, used again) and onnx/
    measured  how many sub-networks are timed: the front in (AP, GFLOPs) first, then a random sample of the rest
    threads   CPU threads of ONNX Runtime

    A stopped search goes on where it was. The columns are the five knobs, the COCO numbers, gflops, and latency_ms
    (NaN where not measured).
    """
    from rfdetr.benchmark.latency import measure_latency

    folder = Path(out_dir)
    points = evaluate_grid(model, dataset, space, folder=folder / "evaluated", gflops=True, progress=progress)
    table = points.drop(columns=["nominal_resolution", "nominal_queries"]).drop_duplicates(list(KNOBS))
    table = table.reset_index(drop=True)
    archs = candidates(table, measured, seed)
    timed = measure_latency(model, archs, threads=threads, progress=bool(progress), cache_dir=folder / "onnx")
    table = table.merge(timed[[*KNOBS, "latency_ms"]], on=list(KNOBS), how="left")
    best = front(table.dropna(subset=["latency_ms"]))
    for name, frame in (("table", table), ("front", best), ("latency", timed)):
        with atomic_path(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(
        folder / "search.json",
        {
            "space": asdict(space),
            "sub_networks": len(table),
            "measured": len(archs),
            "network": fingerprint(model),
            "dataset": {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint},
            "seconds": points.attrs["seconds"],
            "threads": threads,
            "provenance": origin or {},
        },
    )
    return SearchResult(table, best, folder / "table.csv")


def candidates(table: "pd.DataFrame", count: int, seed: int = 0) -> list[Arch]:
    """Sub-networks worth timing: the front in (AP, GFLOPs), then random others, `count` in all."""
    accuracy, cost = table["AP"].to_numpy(), table["gflops"].to_numpy()
    on_front = np.flatnonzero(front_mask(accuracy, cost))
    # A long front is thinned evenly, and a third of the budget is kept for points off the front.
    most = max(1, 2 * count // 3)
    if len(on_front) > most:
        by_cost = on_front[np.argsort(cost[on_front])]
        on_front = by_cost[np.unique(np.linspace(0, len(by_cost) - 1, most).round().astype(int))]
    rest = np.setdiff1d(np.arange(len(table)), on_front)
    extra = np.random.default_rng(seed).permutation(rest)[: max(0, count - len(on_front))]
    chosen = table.iloc[np.sort(np.concatenate([on_front, extra]))]
    return [Arch(*map(int, row)) for row in chosen[list(KNOBS)].to_numpy()]
