"""How sure the accuracies of a front are: bootstrap intervals over images, and which are the same."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.evaluation.bootstrap import image_weights
from rfdetr.files import write_json
from rfdetr.interrupts import check
from rfdetr.search.blocks import resampled
from rfdetr.search.grid import GridEvaluator, Triple

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 500
LEVEL = 0.95


def resampled_ap(
    evaluator: GridEvaluator,
    archs: Iterable[Arch],
    metric: str = "AP",
    seed: int = 0,
    keep: Path | None = None,
) -> dict[Arch, np.ndarray]:
    """AP [RESAMPLES] of each sub-network on resampled images, the same images for all.

    metric  AP, or mask_AP
    keep    folder of results, which a later call finds again

    One more encoder pass for each encoder setting among them.
    """
    by_triple: dict[Triple, list[Arch]] = {}
    for arch in dict.fromkeys(archs):
        by_triple.setdefault(arch.encoder, []).append(arch)
    weights = image_weights(len(evaluator.images.truth.images), RESAMPLES, seed)
    found: dict[Arch, np.ndarray] = {}
    for triple, members in by_triple.items():
        check()
        kept = _kept(keep, evaluator.key, metric, seed, members)
        if kept is None:
            kept = _computed(evaluator, triple, members, metric, weights)
            if keep is not None:
                for arch, values in kept.items():
                    write_json(_path(keep, evaluator.key, metric, seed, arch), values.tolist())
        found |= kept
    return found


def _computed(
    evaluator: GridEvaluator, triple: Triple, archs: list[Arch], metric: str, weights: np.ndarray
) -> dict[Arch, np.ndarray]:
    pairs = [(arch.decoder_layers, arch.queries) for arch in archs]
    order, matches, _ = evaluator.block(triple, pairs, range(len(evaluator.images)))
    kind = matches["mask_" if metric.startswith("mask_") else ""]
    truth = evaluator.images.truth
    return {
        arch: resampled(truth, kind, order.index(pair)).ap(weights)
        for arch, pair in zip(archs, pairs, strict=True)
    }


def _path(folder: Path, key: str, metric: str, seed: int, arch: Arch) -> Path:
    return folder / f"{key}-{metric}-{seed}" / f"{arch.id}.json"


def _kept(
    folder: Path | None, key: str, metric: str, seed: int, archs: list[Arch]
) -> dict[Arch, np.ndarray] | None:
    if folder is None:
        return None
    found = {}
    for arch in archs:
        try:
            values: Any = json.loads(_path(folder, key, metric, seed, arch).read_text())
            found[arch] = np.array(values, dtype=float)
        except (OSError, ValueError):
            return None
    return found


def with_intervals(
    front: "pd.DataFrame", samples: dict[Arch, np.ndarray], metric: str = "AP"
) -> "pd.DataFrame":
    """A front (cheapest first) with `<metric>_low` and `_high`, the 95 % interval over images, and `same_as`:
    the cheapest network of the front whose accuracy is not resolved from this one's, "" if there is none.

    The difference of two networks is taken on the same resampled images.
    """
    archs = [Arch.parse(name) for name in front["arch"]]
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    ends = [_ends(samples[arch], tails) for arch in archs]
    same = []
    for number, arch in enumerate(archs):
        cheaper = (a for a in archs[:number] if not _resolved(samples[arch] - samples[a], tails))
        same.append(next((a.id for a in cheaper), ""))
    low, high = ([end[i] for end in ends] for i in range(2))
    columns: dict[str, Any] = {f"{metric}_low": low, f"{metric}_high": high, "same_as": same}
    return front.assign(**columns)


def _ends(values: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, tails)
    return float(low), float(high)


def _resolved(differences: np.ndarray, tails: tuple[float, float]) -> bool:
    low, high = _ends(differences, tails)
    return low > 0 or high < 0
