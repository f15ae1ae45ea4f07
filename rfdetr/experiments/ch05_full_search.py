"""The printed grid in miniature: all 6,468 sub-networks of one supernet, evaluated exactly, and latencies of
a tenth.

Source: Section 3, Figure 1 and Appendix A of the paper. Chapter 05 shows the kept result, which
`ch05_full_parts` makes, and evaluates a part of it again.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.search import grid
from rfdetr.search.latency_model import LatencyModel, measurement_plan

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

PROFILE = "full"
THREADS, ROUNDS = 1, 7  # of the timings


def time_sample(
    model: "RFDETR", space: SearchSpace, measured: int, held_out: int, folder: Path, seed: int
) -> "pd.DataFrame":
    """Latency of `measured` sub-networks for fitting and of `held_out` others for testing the fit.

    The columns of `measure_latency` and `held_out` (bool).
    """
    from rfdetr.benchmark.subnetworks import measure_latency

    archs = measurement_plan(space, measured, seed)
    test = held_out_archs(space, archs, held_out, seed)
    timed = measure_latency(
        model, [*archs, *test], threads=THREADS, rounds=ROUNDS, cache_dir=folder, progress=True
    )
    chosen = {arch.id for arch in test}
    about = timed.attrs
    timed = timed.assign(held_out=[name in chosen for name in timed["arch"]])
    timed.attrs = about
    return timed


def held_out_archs(space: SearchSpace, taken: list[Arch], count: int, seed: int) -> list[Arch]:
    """`count` sub-networks whose (encoder, queries) is not among `taken`; three depths of each, all at
    random.
    """
    rng = np.random.default_rng((seed, 1))
    have = {(arch.encoder, arch.queries) for arch in taken}
    groups: dict[Any, list[Arch]] = {}
    for arch in space.distinct():
        if (arch.encoder, arch.queries) not in have:
            groups.setdefault((arch.encoder, arch.queries), []).append(arch)
    names = list(groups)
    found = [
        groups[names[i]][j]
        for i in rng.permutation(len(names))
        for j in rng.permutation(len(groups[names[i]]))[:3]
    ]
    return found[:count]


def undisturbed(timed: "pd.DataFrame") -> "pd.DataFrame":
    """The timings with each sub-network's fastest round as its latency.

    On a machine that does other work too, a round is slowed or it is not; the fastest one says most about the
    network.
    """
    return timed.assign(latency_ms=timed["latency_low_ms"])


def with_latency(table: "pd.DataFrame", timed: "pd.DataFrame") -> "tuple[pd.DataFrame, LatencyModel]":
    """The table with `latency_ms` (measured, or NaN) and `predicted_ms`, and the model fitted to rows not
    held out.
    """
    model = LatencyModel.fit(timed[~timed["held_out"]])
    found = table.merge(timed[[*Arch.KNOBS, "latency_ms", "held_out"]], on=list(Arch.KNOBS), how="left")
    return found.assign(predicted_ms=model.predict(found)), model


def held_out_errors(timed: "pd.DataFrame") -> "pd.DataFrame":
    """Errors on the held-out sub-networks (`LatencyModel.report`), one row per reading of the timings."""
    import pandas as pd

    rows = []
    for name, readings in (("fastest round", undisturbed(timed)), ("median of the rounds", timed)):
        away = readings["held_out"]
        rows.append({"latency": name, **LatencyModel.fit(readings[~away]).report(readings[away])})
    return pd.DataFrame(rows)


def recomputed(
    model: "RFDETR",
    dataset: "DetectionDataset",
    table: "pd.DataFrame",
    space: SearchSpace,
    count: int,
    seed: int = 0,
    dtype: "torch.dtype | None" = None,
) -> "pd.DataFrame":
    """Evaluate `count` encoder triples, drawn at random, again and hold them against a table: five knobs, AP,
    kept_AP.

    dataset: of the table, or its first images if the table has AP for their number (AP_200 for 200). dtype:
    as of `grid.evaluate_grid`. `attrs["seconds"]` is the time of encoder and decoder.
    """
    import pandas as pd

    work = grid.units(space)
    triples = list(work)
    rng = np.random.default_rng(seed)
    evaluator = grid.GridEvaluator(model, dataset, dtype=dtype)
    rows, seconds = [], 0.0
    for triple in sorted(triples[i] for i in rng.permutation(len(triples))[:count]):
        result = evaluator.unit(triple, work[triple])
        seconds += result["seconds"]["encoder"] + result["seconds"]["decoder"]
        for pair, numbers in zip(result["pairs"], result["rows"], strict=True):
            rows.append(dict(zip(Arch.KNOBS, (*triple, *pair), strict=True)) | {"AP": numbers["AP"]})
    column = f"AP_{len(dataset)}" if f"AP_{len(dataset)}" in table else "AP"
    kept_ap = table[[*Arch.KNOBS, column]].rename(columns={column: "kept_AP"})
    found = pd.DataFrame(rows).merge(kept_ap, on=list(Arch.KNOBS), how="left")
    found.attrs = {"seconds": seconds}
    return found
