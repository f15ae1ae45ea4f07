"""What parts of studies have in common: scenes, a training, a test whose interval can be computed later."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.scenes import scenes
from rfdetr.experiments.base.painted import Painted
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

MODULES = ("rfdetr.training.loop", "rfdetr.data.scenes", "rfdetr.evaluation.bootstrap")
"""Code that decides what a trained network is and what its test says."""
RESAMPLES = 200
"""Resamples of the test images that are kept with every AP; the same ones for all networks, so that
differences are paired.
"""


def scenes_of(place: Place, profile: Profile, split: str, size: int | None = None) -> DetectionDataset:
    """The embedded scenes of a profile, painted once for all parts and processes. size: default the
    profile's.
    """
    recipe = profile.recipe
    return _painted(place.folder.parent / "painted", split, size or recipe.images[split], recipe.canvas)


@lru_cache(maxsize=16)
def _painted(folder: Path, split: str, size: int, canvas: int) -> Painted:
    # One for all parts of a process: its ground truth takes seconds to gather.
    return Painted(scenes("digits", split, size=size, canvas=canvas), folder)


def fastest_device() -> str:
    """Where a test that is not itself studied should run: cuda where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def new_network(dataset: DetectionDataset, sizes: Mapping[str, Any], seed: int) -> "RFDETR":
    """A network of these sizes for a dataset's classes with initial weights drawn with `seed`."""
    import torch

    from rfdetr.model.detector import RFDETR

    torch.manual_seed(seed)
    return RFDETR(categories=dataset.category_ids, **sizes)


def fit(
    place: Place,
    model: "RFDETR",
    dataset: DetectionDataset,
    space: SearchSpace | Arch,
    config: Mapping[str, Any],
    stage: str = "fit",
) -> "tuple[RFDETR, pd.DataFrame]":
    """Train on the part's device; a stopped training goes on. Returns the network in evaluation mode and the
    log.

    stage: name of the training among those of the part.
    """
    import pandas as pd

    from rfdetr.training.config import TrainConfig
    from rfdetr.training.log import read_log
    from rfdetr.training.loop import train

    folder = place.work / stage
    train_config = TrainConfig.from_dict(dict(config))
    result = train(model, dataset, space, train_config, folder, progress=False, accelerator=place.device)
    return result.model, pd.DataFrame(read_log(folder))


def about(log: "pd.DataFrame") -> dict[str, Any]:
    """What a part says about its training: steps, seconds in all, median of a step, last mean loss."""
    return {
        "steps": len(log),
        "seconds": round(float(log["seconds"].sum()), 1),
        "step_s": round(float(log["seconds"].median()), 4),
        "loss": round(float(log["total"].tail(20).mean()), 4),
        "skipped": int((~log["updated"].astype(bool)).sum()),
    }


def tested(
    model: "RFDETR",
    dataset: DetectionDataset,
    archs: Iterable[Arch],
    resamples: int = RESAMPLES,
    batch_size: int = 50,
) -> dict[str, dict[str, Any]]:
    """Name of each architecture -> AP, AP50 and `resampled`, AP on resamples of the images (as of seed 0).

    On the device that the model is on.
    """
    from rfdetr.evaluation.bootstrap import Matches, image_weights
    from rfdetr.evaluation.coco import evaluate

    found = {}
    weights = image_weights(len(dataset), resamples, 0)
    for arch in dict.fromkeys(archs):
        result = evaluate(model, dataset, arch, batch_size=batch_size, masks=False)
        matches = Matches(dataset, result.detections)
        found[arch.id] = {
            "AP": _plain(result.ap),
            "AP50": _plain(result.boxes["AP50"]),
            "resampled": [_plain(value, 5) for value in matches.ap(weights)],
        }
    return found


def _plain(value: Any, digits: int = 6) -> float | None:
    """A number for JSON; None where it is not defined."""
    return None if np.isnan(value) else round(float(value), digits)


def space_options(space: SearchSpace) -> dict[str, Any]:
    """A search space as options of a part; `SearchSpace(**options)` reads it back."""
    return json.loads(json.dumps(asdict(space)))


def resampled(records: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """AP on the resamples of several tests, [tests, resamples]; NaN where it is not defined."""
    return np.array([[np.nan if v is None else v for v in r["resampled"]] for r in records], dtype=float)
