"""Training the chosen networks further, one by one, from the supernet's weights (the paper's protocol for
RF100-VL).

A fine-tuned network takes the place of the inherited one only where the validation pictures say so beyond the
paired interval.
"""

from functools import partial
from pathlib import Path
from typing import Any

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.evaluation.bootstrap import paired_difference
from rfdetr.model.detector import RFDETR
from rfdetr.nas.choose import RESAMPLES, matches, scored
from rfdetr.nas.run import Run
from rfdetr.nas.stages import once
from rfdetr.training.checkpoint import model_from_checkpoint
from rfdetr.training.config import TrainConfig
from rfdetr.training.loop import train

LOWER = 0.3
"""Of the supernet's learning rates: its weights are good already."""


def alone(config: TrainConfig, steps: int) -> TrainConfig:
    """The supernet's recipe for one architecture: no setting of the grid comes more often, and the AP is
    computed at the end alone.
    """
    return config.replace(steps=steps, anchor=None, evaluate_every=0, patience=0)


def tuning_config(config: TrainConfig, steps: int) -> TrainConfig:
    """The recipe for one architecture, shorter and gentler, with the rate falling to zero at the end."""
    return alone(config, steps).replace(
        lr=config.lr * LOWER,
        encoder_lr=config.encoder_lr * LOWER,
        warmup_steps=min(config.warmup_steps, steps // 10),
        schedule="cosine",
        checkpoint_every=max(25, steps // 4),
    )


def fine_tune(
    model: RFDETR,
    arch: Arch,
    train_set: DetectionDataset,
    val: DetectionDataset,
    config: TrainConfig,
    folder: Path,
    metric: str,
) -> dict[str, Any]:
    """Train one architecture of `model`, in place, further and hold it against the inherited network on
    `val`.

    Returns inherited and tuned AP, their difference with its paired interval, `better`: whether the interval
    lies above zero, and the tuned network's numbers. That network is in `folder`, and `arch` its own.
    """
    before, first = scored(model, val, arch, metric, config.seed)
    model.config = model.config.replace(default_arch=arch)
    notes = {"start": f"{arch.id} of the supernet", "recipe": "gentler"}
    train(model, train_set, arch, config, folder, val, notes=notes)
    tuned = model_from_checkpoint(folder)
    after, second = scored(tuned, val, arch, metric, config.seed)
    difference = paired_difference(
        matches(val, second, metric), matches(val, first, metric), resamples=RESAMPLES, seed=config.seed
    )
    return {
        "arch": arch.id,
        "inherited": before["AP"],
        "tuned": after["AP"],
        "difference": difference.diff,
        "low": difference.low,
        "high": difference.high,
        "better": bool(difference.low > 0),
        "val": after,
        "steps": config.steps,
    }


def fine_tune_all(run: Run, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """The stage: every chosen network, each in its own folder; the better ones with their test numbers."""

    def one(name: str, arch: Arch, place: Path) -> dict[str, Any]:
        row = fine_tune(run.network(), arch, run.data("train"), run.data("val"), config, place, run.metric)
        if row["better"]:
            tuned = model_from_checkpoint(place)
            row["test"] = run.test_scores(tuned, arch, folder / f"test-{name}.json")
        return row

    rows = []
    for entry in run.chosen:
        name = entry["arch"]
        work = partial(one, name, Arch.parse(name), folder / name)
        rows.append(once(folder / f"{name}.json", work))
    return {"networks": rows}
