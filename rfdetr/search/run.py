"""One search from a trained supernet to a table: accuracy of the whole grid, latencies, the front.

Source: Section 3 ("grid search over all sub-networks") and Figure 1. The table and its provenance are the
result; the front is computed from it.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.int8_layers import MAX_LOSS
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.interrupts import interruptible
from rfdetr.model.identity import fingerprint
from rfdetr.search.grid import evaluate_grid, with_gflops
from rfdetr.search.result import Job, SearchResult
from rfdetr.search.timing import Protocol, Timings, candidates

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


def chosen_metric(model: "RFDETR", dataset: DetectionDataset, metric: str = "") -> str:
    """The number that decides: the one asked for, or mask_AP for a network and data with masks, else AP.

    UserError for one that will not be there.
    """
    masks = model.config.segmentation and dataset.has_masks
    known = [*METRICS, *(f"mask_{name}" for name in METRICS if masks)]
    if metric and metric not in known:
        hint = "" if masks or not metric.startswith("mask_") else " (the network or the data have no masks)"
        raise UserError(f"--metric takes one of {', '.join(known)}, not {metric!r}{hint}")
    return metric or ("mask_AP" if masks else "AP")


def search(
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace,
    out_dir: str | Path,
    *,
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
    progress: bool | Callable[[int, int], None] = True,
    origin: dict[str, Any] | None = None,
) -> SearchResult:
    """Evaluate every sub-network of `space` on `dataset`, time `measured` of them and the whole front.

    out_dir     table.csv, front.csv, latency.csv, search.json (provenance), README.md, and finished work that
                is used again: evaluated/, intervals/, deployed/, onnx/
    metric      what decides (`chosen_metric`)
    measured    how many sub-networks are timed at first (`timing.candidates`); the latency of all others is
                predicted from them
    runtime, precision, threads, gpu, images   see `timing.Protocol`. With another precision than fp32 the
                front is that of the files that were timed, by their own accuracy, deployed_<metric>
                (`deployed.deployed_front`)
    max_loss    what INT8 may cost a network of the front; None: whatever it costs
    time_again  measure again what an earlier call has measured; otherwise those latencies are kept
    complete    also time the rows that lie on the front by prediction, so that all of it is measured
    intervals   bootstrap intervals for the front's rows, and `same_as` (`intervals.with_intervals`)
    storage     URL of a search by many workers (`study.run_worker`): join it until it is done, and use its
                accuracies

    A stopped search goes on where it was. Columns: arch and the five knobs, trained (whether training drew
    this encoder setting), the COCO numbers, gflops, latency_ms and noisy (empty where not measured),
    predicted_ms, time_ms (measured, else predicted).
    """
    folder, metric = Path(out_dir), chosen_metric(model, dataset, metric)
    protocol = Protocol(runtime, precision, threads, gpu, images)
    protocol.check()
    with interruptible():
        if storage:
            points = with_gflops(model, space, _joined(model, dataset, space, storage, progress))
        else:
            points = evaluate_grid(
                model, dataset, space, folder=folder / "evaluated", gflops=True, progress=progress
            )
        table = points.drop(columns=["nominal_resolution", "nominal_queries"])
        table = table.drop_duplicates(list(Arch.KNOBS)).reset_index(drop=True)
        timings = Timings(folder, model, fingerprint(model), protocol, time_again)
        timings.measure(candidates(table, measured, seed, metric), progress is True)
        about = {"space": asdict(space), "seconds": points.attrs["seconds"]}
        job = Job(model, dataset, timings, metric, seed, complete, intervals, max_loss, progress, origin)
        return job.finish(table, about)


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
