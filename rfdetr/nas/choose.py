"""Choosing networks by latency, and what they reach on pictures that played no part in choosing them.

A network that was chosen because it was best on the validation pictures looks better there than it is: the
choice takes its luck along. So every chosen network is evaluated on the test split, with a bootstrap interval
over pictures.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.bootstrap import Matches, bootstrap_ap, paired_difference
from rfdetr.evaluation.coco import CocoResult, evaluate
from rfdetr.files import strict, write_json
from rfdetr.model.detector import RFDETR
from rfdetr.model.identity import fingerprint
from rfdetr.nas.options import NasOptions
from rfdetr.nas.stages import once
from rfdetr.progress import progress_bar
from rfdetr.search.deployed import column as deployed_column
from rfdetr.search.pareto import front, latency_column, published_latency, select
from rfdetr.search.timing import Timings

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.nas.run import Run

SPREAD = (0.0, 0.5, 1.0)
"""Where three latencies lie on the useful part of the front, in the logarithm, when none is asked for."""
USEFUL = 0.5
"""That part has at least this share of the best accuracy."""
RESAMPLES = 1000
FEWEST_PICTURES = 6
"""That can resolve a difference: if all of five favour one network, that is a chance of 1 in 16 without any
difference, more than an interval of 95 % leaves out. Resampling so few pictures does not know this.
"""
MASKED = 500
"""Pictures up to which the masks of detections are kept for the report."""
_ROUNDS = 8  # of timing what is chosen; two nearly always do


def targets(options: NasOptions, table: "pd.DataFrame", metric: str) -> list[dict[str, Any]]:
    """The latencies to choose for: {label, ms, kind}, kind "at most" or "within 10 %"."""
    if options.targets_ms:
        return [{"label": f"at most {ms:g} ms", "ms": ms, "kind": "max"} for ms in options.targets_ms]
    if options.like:
        return [{"label": f"like {n}", "ms": published_latency(n), "kind": "like"} for n in options.like]
    column = latency_column(table)
    best = front(table, metric, column)
    best = best[best[metric] >= USEFUL * best[metric].max()]
    low, high = float(best[column].min()), float(best[column].max())
    points = [low * (high / low) ** share for share in SPREAD] if high > low else [low]
    return [{"label": f"at most {ms:.3g} ms", "ms": ms, "kind": "max"} for ms in points]


def pick(table: "pd.DataFrame", wanted: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The best sub-network of each target: the target and arch, its row's metric, latency, and whether it was
    timed.

    One network that is best for several targets stands once, with all their labels. Raises UserError when no
    target has a network.
    """
    column = latency_column(table)
    found: dict[str, dict[str, Any]] = {}
    refused = []
    for target in wanted:
        limit = {"max_latency_ms" if target["kind"] == "max" else "target_latency_ms": target["ms"]}
        try:
            row = select(table, accuracy=metric, latency=column, **limit)
        except UserError as error:
            refused.append(f"{target['label']}: {error}")
            continue
        arch = Arch(**{knob: int(row[knob]) for knob in Arch.KNOBS})
        entry = found.setdefault(
            arch.id,
            {
                "arch": arch.id,
                "targets": [],
                "val_AP": float(row[metric]),
                "latency_ms": float(row[column]),
                "timed": bool("latency_ms" in row and np.isfinite(row["latency_ms"])),
            },
        )
        entry["targets"].append(target["label"])
    if not found:
        raise UserError(
            f"no network fits a latency that was asked for ({'; '.join(refused)}). Training and search are"
            " kept: the same command with another --target-ms or --like goes on from here"
        )
    return [*found.values(), *({"refused": text} for text in refused)]


def timed_picks(run: "Run", model: RFDETR, folder: Path) -> list[dict[str, Any]]:
    """`pick` from the search's table, whose predicted choices are timed until all that are chosen are.

    A choice that turns out slower than its target gives way to the next one. Targets that nobody asked for
    move with the front.
    """
    table, options = run.table(), run.options
    if not (folder / "latency.csv").is_file():
        shutil.copyfile(run.folder("search") / "latency.csv", folder / "latency.csv")
    # In another precision than float32 the files' own accuracy decides, as in the search's front: these are
    # timed already.
    own = deployed_column(run.metric)
    decisive = own if own in table else run.metric
    timings = Timings(folder, model, fingerprint(model), run.protocol)
    for _ in range(_ROUNDS):
        entries = pick(table, targets(options, table, decisive), decisive)
        chosen = [entry for entry in entries if "arch" in entry]
        timings.measure(Arch.parse(entry["arch"]) for entry in chosen)
        # Not whether something was measured now: a run that was stopped here has measured it before.
        if all(entry["timed"] for entry in chosen):
            break
        table = timings.onto(table, options.seed)
    return entries


def scored(
    model: RFDETR, dataset: DetectionDataset, arch: Arch, metric: str, seed: int
) -> tuple[dict[str, Any], CocoResult]:
    """(numbers, result) of one sub-network: AP with its interval, AP50, by size, by class; of boxes or
    masks.
    """
    result = evaluate(model, dataset, arch)
    masks = metric.startswith("mask")
    numbers = result.masks if masks else result.boxes
    if numbers is None:
        raise UserError(f"{dataset!r} or the network has no masks: search with --metric AP")
    kind = "segm" if masks else "bbox"
    entry: dict[str, Any] = {
        "AP": numbers["AP"],
        "numbers": dict(numbers.values),
        "per_class": dict(numbers.per_class),
        "images": len(dataset),
    }
    if masks:
        entry["box_AP"] = result.boxes["AP"]
    if np.isfinite(numbers["AP"]):
        interval = bootstrap_ap(dataset, result.detections, kind, resamples=RESAMPLES, seed=seed)
        entry |= {"low": interval.low, "high": interval.high}
    return strict(entry), result


def choose(run: "Run", folder: Path) -> dict[str, Any]:
    """The stage: networks with their validation and test numbers, and what no network was found for."""
    model = run.network()
    entries = timed_picks(run, model, folder)
    networks = [entry for entry in entries if "arch" in entry]

    def one(arch: Arch) -> dict[str, Any]:
        val, _ = scored(model, run.data("val"), arch, run.metric, run.options.seed)
        return {"val": val, "test": run.test_scores(model, arch, folder / f"test-{arch.id}.json")}

    with progress_bar(True, len(networks), "evaluate the chosen", "network") as report:
        for number, entry in enumerate(networks, start=1):
            arch = Arch.parse(entry["arch"])
            entry |= once(folder / f"{arch.id}.json", partial(one, arch))
            report(number, len(networks))
    return {"networks": networks, "refused": [entry["refused"] for entry in entries if "refused" in entry]}


def compared(
    dataset: DetectionDataset, first: CocoResult, second: CocoResult, metric: str, seed: int
) -> dict[str, Any]:
    """difference: `metric` of the first network minus that of the second on the same pictures, low and high:
    its paired interval, resolved: whether that leaves out 0. Fewer than `FEWEST_PICTURES` resolve nothing.
    """
    kind = "segm" if metric.startswith("mask") else "bbox"
    both = (Matches(dataset, result.detections, kind) for result in (first, second))
    found = paired_difference(*both, resamples=RESAMPLES, seed=seed)
    resolved = found.resolved and len(dataset) >= FEWEST_PICTURES
    return {"difference": found.diff, "low": found.low, "high": found.high, "resolved": resolved}


def keep_detections(path: Path, result: CocoResult, least: float = 0.02) -> None:
    """Detections of a split for the report: JSON, one entry per picture; scores under `least` are left
    out, and masks where there are more than `MASKED` pictures.
    """
    rows = []
    for found in result.detections:
        keep = np.flatnonzero(np.asarray(found["scores"]) >= least)
        row = {
            "image_id": int(found["image_id"]),
            "scores": np.asarray(found["scores"])[keep].round(4).tolist(),
            "labels": np.asarray(found["labels"])[keep].tolist(),
            "boxes": np.asarray(found["boxes"])[keep].round(1).tolist(),
        }
        if "rles" in found and len(result.detections) <= MASKED:
            row["rles"] = [_text(found["rles"][i]) for i in keep]
        rows.append(row)
    write_json(path, {"least_score": least, "pictures": rows})


def _text(code: Mapping[str, Any]) -> dict[str, Any]:
    """A run-length code for JSON."""
    counts = code["counts"]
    return {"size": list(code["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def read_detections(path: Path) -> list[dict[str, Any]]:
    """What `keep_detections` wrote, as the evaluation takes it."""
    rows = json.loads(path.read_text(encoding="utf-8"))["pictures"]
    return [
        {
            "image_id": row["image_id"],
            "scores": np.array(row["scores"], dtype=np.float32),
            "labels": np.array(row["labels"], dtype=np.int64),
            "boxes": np.array(row["boxes"], dtype=np.float32).reshape(-1, 4),
            **({"rles": row["rles"]} if "rles" in row else {}),
        }
        for row in rows
    ]
