"""Training the chosen networks further, one by one, from the supernet's weights (the paper's protocol for
RF100-VL).

A fine-tuned network takes the place of the inherited one only where the validation pictures say so beyond the
paired interval.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.model.detector import RFDETR
from rfdetr.nas.choose import compared, scored
from rfdetr.nas.measure import step_seconds
from rfdetr.nas.plan import RESERVE_S
from rfdetr.nas.processes import Trainer
from rfdetr.nas.run import Run
from rfdetr.nas.stages import once
from rfdetr.training.checkpoint import model_from_checkpoint
from rfdetr.training.config import TrainConfig

LOWER = 0.3
"""Of the supernet's learning rates: its weights are good already."""
_FEWEST = 10
"""Steps; with time for fewer a network is left as it is."""


def alone(config: TrainConfig, steps: int) -> TrainConfig:
    """The supernet's recipe for one architecture: no setting of the grid comes more often, and the AP is
    computed at the end alone.
    """
    return config.replace(steps=steps, anchor=None, evaluate_every=0, patience=0)


def tuning_config(config: TrainConfig, steps: int) -> TrainConfig:
    """The recipe for one architecture, shorter and gentler, with the rate falling to zero at the end."""
    found = alone(config, steps).replace(
        lr=config.lr * LOWER, encoder_lr=config.encoder_lr * LOWER, schedule="cosine"
    )
    return _lasting(found, steps)


def _lasting(config: TrainConfig, steps: int) -> TrainConfig:
    """The recipe for a number of steps."""
    return config.replace(
        steps=steps,
        warmup_steps=min(config.warmup_steps, steps // 10),
        checkpoint_every=max(25, steps // 4),
    )


def fitting_passes(config: TrainConfig, arch: Arch, space: SearchSpace) -> TrainConfig:
    """The recipe with smaller passes for an architecture that has more tokens than the largest of `space`,
    whose passes fit into memory; a step has as many images as before.
    """
    most = max(one.tokens for one in space.distinct())
    parts = (n for n in range(1, config.batch_size + 1) if config.batch_size % n == 0)
    part = next((n for n in parts if n * most >= arch.tokens), config.batch_size)
    return config.replace(batch_size=config.batch_size // part, accumulate=config.accumulate * part)


def affordable(most: int, seconds: Sequence[float], left_s: float) -> int:
    """Steps for each of some networks whose steps take `seconds`, at most `most`, in the time that is left; 0
    where that is not worth it.
    """
    steps = min(most, int(left_s / max(sum(seconds), 1e-9)))
    return steps if steps >= min(most, _FEWEST) else 0


def _steps(run: Run, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """steps of each chosen network: the plan's, or what the hours have left for it, by a few steps of these
    very networks. step_s: seconds of a step, by network; {} without a limit, where nothing needs measuring.
    """
    left = run.left_s
    if left is None:
        return {"steps": config.steps, "step_s": {}}
    left -= RESERVE_S
    if run.options.baseline:  # trains as long as the supernet and the chosen ones together
        left = (left - run.stages.done["train"].seconds) / 2
    seconds = {}
    for entry in run.chosen:
        arch = Arch.parse(entry["arch"])
        own = fitting_passes(config, arch, run.space)
        step = step_seconds(run.trainer, run.network(), arch, own, folder, run.step_cost(arch))
        seconds[arch.id] = step * own.accumulate
    return {"steps": affordable(config.steps, list(seconds.values()), left), "step_s": seconds}


def fine_tune(
    model: RFDETR,
    arch: Arch,
    trainer: Trainer,
    config: TrainConfig,
    folder: Path,
    metric: str,
) -> dict[str, Any]:
    """Train one architecture of `model` further and hold it against the inherited network on val.

    Returns inherited and tuned AP, their difference with its paired interval, `better`: whether the interval
    lies above zero, and the tuned network's numbers. That network is in `folder`, and `arch` its own.
    """
    val = trainer.split("val")
    before, first = scored(model, val, arch, metric, config.seed)
    model.config = model.config.replace(default_arch=arch)
    notes = {"start": f"{arch.id} of the supernet", "recipe": "gentler"}
    trainer(model, arch, config, folder, notes=notes)
    tuned = model_from_checkpoint(folder)
    after, second = scored(tuned, val, arch, metric, config.seed)
    held = compared(val, second, first, metric, config.seed)
    return {
        "arch": arch.id,
        "inherited": before["AP"],
        "tuned": after["AP"],
        **held,
        "better": held["resolved"] and held["difference"] > 0,
        "val": after,
        "steps": config.steps,
    }


def fine_tune_all(run: Run, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """The stage: every chosen network, each in its own folder; the better ones with their test numbers.

    config: of the plan, whose steps are the most. networks: none where the hours have no time left.
    """

    def one(name: str, arch: Arch, place: Path) -> dict[str, Any]:
        own = fitting_passes(_lasting(config, steps), arch, run.space)
        row = fine_tune(run.network(), arch, run.trainer, own, place, run.metric)
        if row["better"]:
            tuned = model_from_checkpoint(place)
            row["test"] = run.test_scores(tuned, arch, folder / f"test-{name}.json")
        return row

    # Kept: a stopped run goes on with as many, whatever time it is.
    found = once(folder / "steps.json", partial(_steps, run, config, folder))
    steps, rows = int(found["steps"]), []
    for entry in run.chosen if steps else ():
        name = entry["arch"]
        work = partial(one, name, Arch.parse(name), folder / name)
        rows.append(once(folder / f"{name}.json", work))
    return {"networks": rows, **found}
