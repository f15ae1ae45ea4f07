"""The exact search by many workers: one work unit per encoder triple, on an Optuna storage.

On a cluster, as a job array of any size; workers may be added and killed at any time:
`python -m rfdetr search --worker --storage postgresql://search@host/search ...`
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import SearchSpace
from rfdetr.data.dataset import DetectionDataset, digest
from rfdetr.interrupts import interruptible
from rfdetr.search import grid
from rfdetr.search.cost import TRIPLE, unit_flops
from rfdetr.search.queue import Progress, WorkQueue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

_CALIBRATION_IMAGES = 8


def search_name(evaluator: grid.GridEvaluator, space: SearchSpace) -> str:
    """Name of a search: the same for every worker with the same weights, data, options and space, and no
    other.
    """
    return f"rfdetr-{digest(evaluator.key, space)}"


def run_worker(
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    storage: str,
    *,
    name: str | None = None,
    limit: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    heartbeat: float = 20.0,
    grace: float = 120.0,
    **options: Any,
) -> "pd.DataFrame":
    """Evaluate units until the whole search is done, by whichever worker; start as many of these as you like.

    storage      see `WorkQueue`; the search is created by the first worker and resumed by later ones
    name         of the search; default: `search_name`, so that workers with other weights or data never mix
    limit        leave after so many units;   on_progress: called after every unit with the state over all
                 workers
    options      of `GridEvaluator` (batch_size, dtype, masks)

    Returns the table of `evaluate_grid` with every point that is done. Raises UserError when units keep
    failing, and `rfdetr.interrupts.Interrupted` after SIGINT or SIGTERM, once its unit has been given back.
    """
    model.config.check(space.largest)
    evaluator = grid.GridEvaluator(model, dataset, **options)
    queue = open_search(evaluator, space, storage, name=name, heartbeat=heartbeat, grace=grace)
    work = {grid.unit_name(triple): (triple, pairs) for triple, pairs in grid.units(space).items()}
    with interruptible():
        queue.work(lambda unit: evaluator.unit(*work[unit]), on_progress, limit)
    return collect(queue, space)


def open_search(
    evaluator: grid.GridEvaluator, space: SearchSpace, storage: str, name: str | None = None, **options: Any
) -> WorkQueue:
    """The queue of a search without working on it: `.progress()` tells how far all workers are."""
    units = [grid.unit_name(triple) for triple in grid.units(space)]
    return WorkQueue(storage, name or search_name(evaluator, space), units, **options)


def collect(queue: WorkQueue, space: SearchSpace) -> "pd.DataFrame":
    """The rows of all finished units (see `grid.to_table`), with their seconds by stage in
    `attrs["seconds"]`.
    """
    triples = {grid.unit_name(triple): triple for triple in grid.units(space)}
    done = {triples[unit]: value for unit, value in queue.values().items()}
    table = grid.to_table(space, done)
    seconds = {s: sum(r["seconds"].get(s, 0.0) for r in done.values()) for s in grid.STAGES}
    table.attrs = {"key": queue.name, "seconds": seconds}
    return table


def dry_run(
    model: "RFDETR", dataset: DetectionDataset, space: SearchSpace, workers: int = 1, **options: Any
) -> "pd.DataFrame":
    """What a search would cost here, without doing it: runs the cheapest and the median unit on up to 8
    images.

    One row: units, subnetworks, points, images, shared_pflops, one_by_one_pflops (operations over all images,
    1e15), hours (with `workers` workers as fast as this machine) and one_by_one_hours (scaled by operations).
    Hours assume that time grows linearly with operations between and beyond the two calibration units.
    """
    import pandas as pd

    model.config.check(space.largest)
    work = grid.units(space)
    few = dataset.subset(_CALIBRATION_IMAGES)
    evaluator = grid.GridEvaluator(model, few, **options)
    by_unit = unit_flops(model, space).groupby(TRIPLE)[["shared_gflops", "one_by_one_gflops"]].sum()
    ranked = by_unit["shared_gflops"].sort_values()
    chosen = [ranked.index[0], ranked.index[len(ranked) // 2]]
    seconds, gflops = [], []
    for triple in chosen:
        triple = tuple(int(v) for v in triple)
        evaluator.unit(triple, work[triple])  # warm-up: reads pictures, fills caches
        spent = evaluator.unit(triple, work[triple])["seconds"]
        seconds.append(sum(spent.values()) / len(few))
        gflops.append(float(ranked[triple]))
    slope = (seconds[1] - seconds[0]) / (gflops[1] - gflops[0]) if gflops[1] > gflops[0] else -1.0
    if slope <= 0:
        slope = seconds[1] / gflops[1]
    fixed = max(0.0, seconds[0] - slope * gflops[0])
    images = len(dataset)
    shared, alone = float(by_unit["shared_gflops"].sum()), float(by_unit["one_by_one_gflops"].sum())
    subnetworks = sum(map(len, work.values()))
    return pd.DataFrame(
        [
            {
                "units": len(work),
                "subnetworks": subnetworks,
                "points": len(space),
                "images": images,
                "shared_pflops": shared * images / 1e6,
                "one_by_one_pflops": alone * images / 1e6,
                "hours": images * (fixed * len(work) + slope * shared) / 3600 / workers,
                "one_by_one_hours": images * (fixed * subnetworks + slope * alone) / 3600 / workers,
            }
        ]
    )


def export_selected(model: "RFDETR", table: "pd.DataFrame", path: "str | Path", **limits: Any) -> Any:
    """Choose a sub-network (`pareto.select`: max_latency_ms, like, target_latency_ms, ...) and export it to
    ONNX.

    Returns the artifact of `rfdetr.export.onnx.export_onnx`. The network is not changed.
    """
    from rfdetr.arch import Arch
    from rfdetr.export.onnx import export_onnx
    from rfdetr.search.pareto import select

    row = select(table, **limits)
    arch = Arch(**{knob: int(row[knob]) for knob in Arch.KNOBS})
    return export_onnx(model, arch, path)
