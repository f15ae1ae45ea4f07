"""One search from a trained supernet to a table: accuracy of the whole grid, latencies, the front.

Source: Section 3 ("grid search over all sub-networks") and Figure 1. The table and its provenance are the
result; the front is computed from it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.int8_layers import MAX_LOSS
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.files import atomic_path, write_json
from rfdetr.interrupts import interruptible
from rfdetr.model.identity import fingerprint
from rfdetr.search import folder as kept
from rfdetr.search.deployed import column, deployed_front
from rfdetr.search.grid import GridEvaluator, evaluate_grid, with_gflops
from rfdetr.search.intervals import resampled_ap, with_intervals
from rfdetr.search.pareto import front
from rfdetr.search.space import trained_triples
from rfdetr.search.timing import Protocol, Timings, candidates

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


@dataclass(frozen=True)
class SearchResult:
    """table: one row per evaluated sub-network. front: the rows that no other beats in `metric` and time, all
    of them measured, cheapest first. notes: what a reader of the front should know, one sentence each.
    """

    table: "pd.DataFrame"
    front: "pd.DataFrame"
    path: Path
    metric: str = "AP"
    notes: tuple[str, ...] = ()


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
        return finish(
            model,
            dataset,
            table,
            timings,
            metric,
            about,
            origin,
            complete,
            intervals,
            seed,
            progress,
            max_loss=max_loss,
        )


def finish(
    model: "RFDETR",
    dataset: DetectionDataset,
    table: "pd.DataFrame",
    timings: Timings,
    metric: str,
    about: dict[str, Any],
    origin: dict[str, Any] | None,
    complete: bool,
    intervals: bool,
    seed: int,
    progress: bool | Callable[[int, int], None],
    notes: tuple[str, ...] = (),
    max_loss: float | None = MAX_LOSS,
) -> SearchResult:
    """Latencies onto a table of accuracies, the front with what is known of it, and the files of a search."""
    trained, folder = trained_triples(model), timings.folder
    archs = [Arch(*map(int, row)) for row in table[list(Arch.KNOBS)].to_numpy()]
    table = table.assign(arch=[a.id for a in archs], trained=[a.encoder in trained for a in archs])
    if complete:
        table = timings.complete_front(table, metric, progress is True, seed)
    else:
        table = timings.onto(table, seed)
    precision = timings.protocol.check()
    if precision == "fp32":
        best = front(table.dropna(subset=["latency_ms"]), metric, "time_ms")
        best = _with_intervals(model, dataset, best, folder, metric, intervals, seed)
    else:
        table, best, found, more = deployed_front(model, table, timings, dataset, metric, seed, max_loss)
        notes = (*notes, *more)
        samples = {arch: one.samples for arch, one in found.items() if one.samples is not None}
        if intervals and all(Arch.parse(name) in samples for name in best["arch"]):
            best = with_intervals(best, samples, column(metric))
    extra = [c for c in best.columns if c not in table.columns]
    table = table.merge(best[["arch", *extra]], on="arch", how="left") if extra else table
    leading = ["arch", *Arch.KNOBS, "trained"]
    table = table[[*leading, *(c for c in table.columns if c not in leading)]]
    latency = timings.model_of_latency(seed)
    about = {
        **about,
        "metric": metric,
        "measured": len(timings.rows),
        "threads": timings.protocol.threads,
        "runtime": timings.protocol.runtime,
        "precision": precision,
        "latency_model": {
            "method": latency.method,
            "cross_validation": None
            if latency.cross_validation is None
            else latency.cross_validation.to_dict("records"),
        },
    }
    notes = (*notes, *kept.notes(table, best, timings, latency, metric))
    for name, frame in (("table", table), ("front", best)):
        with atomic_path(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(
        folder / "search.json",
        {
            "sub_networks": len(table),
            "network": fingerprint(model),
            "dataset": {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint},
            **about,
            "notes": list(notes),
            "provenance": origin or {},
        },
    )
    kept.describe(folder, dataset, metric, len(table), len(best))
    return SearchResult(table, best, folder / "table.csv", metric, notes)


def _with_intervals(
    model: "RFDETR",
    dataset: DetectionDataset,
    best: "pd.DataFrame",
    folder: Path,
    metric: str,
    intervals: bool,
    seed: int,
) -> "pd.DataFrame":
    """The front of float32 accuracies with intervals."""
    archs = [Arch.parse(name) for name in best["arch"]]
    if "images" in best and bool((best["images"] < len(dataset)).any()):
        # Expected from few images: evaluating all to say how sure that is would cost what was to be saved.
        reach = 1.96 * best[f"{metric}_sd"]
        return best.assign(**{f"{metric}_low": best[metric] - reach, f"{metric}_high": best[metric] + reach})
    if not (intervals and metric in ("AP", "mask_AP") and archs):
        return best
    evaluator = GridEvaluator(model, dataset)
    return with_intervals(best, resampled_ap(evaluator, archs, metric, seed, folder / "intervals"), metric)


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
