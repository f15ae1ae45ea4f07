"""The training loop: a supernet, one fixed architecture, or fine-tuning from a checkpoint, on any number of
processes.

A step's architecture and images are pure functions of (seed, step), everything else is in the checkpoint, so
a run that was stopped, killed or moved goes on with the weights that it would have had.
"""

import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.evaluation.classes import to_data_labels
from rfdetr.files import strict, write_atomic
from rfdetr.model.detector import RFDETR
from rfdetr.provenance import provenance
from rfdetr.training.batches import StepData, batches
from rfdetr.training.checkpoint import (
    Checkpoint,
    check_same,
    load_checkpoint,
    save_checkpoint,
)
from rfdetr.training.config import RESUMABLE, TrainConfig
from rfdetr.training.log import Progress, Row, TrainingLog
from rfdetr.training.optim import same_groups
from rfdetr.training.signals import Interrupted, stop_signals
from rfdetr.training.step import Stepper, StepResult


class TrainingDivergedError(UserError):
    """Loss or gradients were not finite for too many steps in a row."""


@dataclass(frozen=True)
class TrainResult:
    """step: updates done. model: the trained network in evaluation mode, with averaged weights where
    averaging was on. checkpoint, log: files. evaluations: one row per evaluation and architecture.
    """

    step: int
    model: RFDETR
    checkpoint: Path
    log: Path
    evaluations: list[Row]


def train(
    model: RFDETR,
    dataset: DetectionDataset,
    space: SearchSpace | Arch,
    config: TrainConfig | None = None,
    out_dir: str | os.PathLike[str] = "runs/train",
    val: DetectionDataset | None = None,
    *,
    resume: bool = True,
    progress: bool | Callable[[Row], None] = True,
    devices: int = 1,
    accelerator: str = "auto",
) -> TrainResult:
    """Train `model` in place on `dataset` and write checkpoint.pt, log.jsonl and log.csv to `out_dir`.

    space        what each step draws its architecture from; an `Arch` (or a space of one point) trains that
                 one alone
    val          evaluated every `config.evaluate_every` steps and at the end, for the dearest and the
                 cheapest architecture of the space (evaluations.jsonl)
    resume       go on from out_dir/checkpoint.pt if there is one; False starts anew and replaces it
    progress     True: a line on standard output; or a callable that gets every row
    devices      processes on this machine, one per GPU or sharing the processor; under torchrun its own
                 number counts
    accelerator  "cpu", "cuda" or "auto"

    Raises UserError when model, data and space do not fit, when the checkpoint is of another run, or when the
    disk is full (the earlier checkpoint stays); TrainingDivergedError naming step and architecture;
    Interrupted (exit code 130) after SIGINT or SIGTERM, once the checkpoint is written.
    """
    config = config or TrainConfig()
    space = single_point(space) if isinstance(space, Arch) else space
    check_inputs(model, dataset, space, val)
    fabric = _launch(devices, accelerator)
    run = _Run(Stepper(model, config, fabric), dataset, space, config, Path(out_dir), val, fabric)
    step = run.resume() if resume else 0
    return run.train(step, progress)


def single_point(arch: Arch) -> SearchSpace:
    """The space that holds one architecture."""
    return SearchSpace(*((value,) for value in arch.to_dict().values()))


def check_inputs(
    model: RFDETR, dataset: DetectionDataset, space: SearchSpace, val: DetectionDataset | None = None
) -> None:
    """Raise UserError (ArchError for the space) if model, data and space do not fit each other."""
    for data in (dataset, val):
        if data is None:
            continue
        if not len(data):
            raise UserError(f"{data!r} has no images; check the path and the split")
        if model.config.categories is None and data.num_classes != model.config.num_classes:
            raise UserError(
                f"{data!r} has {data.num_classes} classes ({data.category_ids}), the network has"
                f" {model.config.num_classes}; build the network with num_classes={data.num_classes}"
            )
        labels = to_data_labels(model, data)
        if data is dataset and labels is not None and labels.tolist() != list(range(data.num_classes)):
            raise UserError(
                f"the network's classes ({model.config.categories}) are not those of {data!r}"
                f" ({data.category_ids}) in the same order: give it new class layers with"
                " rfdetr.with_classes(network, categories=dataset.category_ids), as `train --weights` does"
            )
    if dataset.untrainable:
        raise UserError(f"there is nothing to learn from: {dataset.untrainable}")
    if model.config.segmentation and not dataset.has_masks:
        raise UserError(
            f"{dataset!r} has no masks, the network has a mask head"
            f"{': ' + dataset.maskless if dataset.maskless else ''}; give every object a mask, or train"
            " without --segmentation (segmentation=False)"
        )
    for arch in space.distinct():
        model.config.check(arch)


def _launch(devices: int, accelerator: str) -> Fabric:
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    several = devices * nodes > 1
    # Precision is handled in the step itself; Fabric places devices and starts and connects processes.
    fabric = Fabric(
        accelerator=accelerator, devices=devices, num_nodes=nodes, strategy="ddp" if several else "auto"
    )
    if several:
        fabric.launch()
    return fabric


class _Run:
    """State of one call of `train`."""

    def __init__(
        self,
        stepper: Stepper,
        dataset: DetectionDataset,
        space: SearchSpace,
        config: TrainConfig,
        folder: Path,
        val: DetectionDataset | None,
        fabric: Fabric,
    ) -> None:
        self.stepper, self.dataset, self.space, self.config = stepper, dataset, space, config
        self.folder, self.val, self.fabric = folder, val, fabric
        self.checkpoint = folder / "checkpoint.pt"
        self.main = fabric.global_rank == 0
        self.evaluations: list[Row] = []
        self.evaluated = -1  # step of the last evaluation, the same in every process

    # -- state
    # ------------------------------------------------------------------------------------------------------

    def resume(self) -> int:
        """Load out_dir/checkpoint.pt if there is one. Returns the number of updates done."""
        if not self.checkpoint.exists():
            return 0
        stepper, path = self.stepper, self.checkpoint
        saved = load_checkpoint(path, expect=stepper.model.config)
        free = RESUMABLE if self.config.schedule == "none" else RESUMABLE - {"steps"}
        check_same("training recipe", path, saved.config, self.config, free)
        check_same("search space", path, saved.space, self.space)
        here = {"data": self.dataset.fingerprint, "processes": self.fabric.world_size}
        for name, value in here.items():
            if saved.provenance.get(name) != value:
                raise UserError(
                    f"{path} was written for other {name} ({saved.provenance.get(name)}, here {value}): use"
                    " the same, or another output folder for a new run"
                )
        if not same_groups(stepper.optimizer, saved.optimizer):
            raise UserError(
                f"{path} was written under other rules for learning rates and weight decay, by another"
                f" version of this package: start a new run from its weights with --weights {path} and"
                " another --out"
            )
        stepper.model.load_state_dict(saved.weights)
        stepper.optimizer.load_state_dict(saved.optimizer)
        if stepper.ema is not None and saved.ema is not None:
            stepper.ema.load_state_dict(saved.ema)
        if saved.scaler:
            stepper.precision.scaler.load_state_dict(saved.scaler)
        torch.set_rng_state(saved.rng.cpu())
        self.evaluations = [
            row for row in _rows(self.folder / "evaluations.jsonl") if row["step"] <= saved.step
        ]
        self.evaluated = max((row["step"] for row in self.evaluations), default=-1)
        return saved.step

    def save(self, step: int) -> None:
        """Write the checkpoint (main process only)."""
        if not self.main:
            return
        stepper = self.stepper
        save_checkpoint(
            self.checkpoint,
            Checkpoint(
                step=step,
                model=stepper.model.config,
                weights=stepper.model.state_dict(),
                ema=None if stepper.ema is None else stepper.ema.state_dict(),
                optimizer=stepper.optimizer.state_dict(),
                scaler=stepper.precision.scaler.state_dict() or None,
                config=self.config,
                space=self.space,
                rng=torch.get_rng_state(),
                provenance=provenance(
                    data=self.dataset.fingerprint,
                    dataset=repr(self.dataset),
                    categories=self.dataset.category_ids.to_coco(),
                    processes=self.fabric.world_size,
                    precision=stepper.precision.name,
                ),
            ),
        )

    # -- loop
    # -------------------------------------------------------------------------------------------------------

    def train(self, first: int, progress: bool | Callable[[Row], None]) -> TrainResult:
        """Steps first..config.steps-1, then the result."""
        config, fabric = self.config, self.fabric
        log = TrainingLog(self.folder, first) if self.main else None
        report = Progress(progress if self.main else False, config.steps, first)
        bad = 0
        step, saved = first, first if first else -1
        source = batches(self.dataset, self.space, config, first, fabric.global_rank, fabric.world_size)
        try:
            with stop_signals() as stopped:
                started = time.monotonic()
                for data in source:
                    objects, stop = self._agree(data.objects, stopped.is_set())
                    if stop:
                        self.save(step)
                        self._leave(step)
                    result = self.stepper(data, step, objects)
                    step += 1
                    bad = 0 if result.updated else bad + 1
                    if bad >= config.max_bad_steps:
                        raise _diverged(step, data.archs, result, bad)
                    now = time.monotonic()
                    row = self._row(step, data, result, now - started)
                    started = now
                    if log is not None and (step % config.log_every == 0 or step == config.steps):
                        log.write(row)
                    report(row)
                    if step % config.checkpoint_every == 0 or step == config.steps:
                        self.save(step)
                        saved = step
                    if self._evaluation_due(step):
                        self.evaluate(step)
        finally:
            source.close()
            if log is not None:
                log.close()
        if saved != step:
            self.save(step)
        if self.val is not None and self.evaluated != step:
            self.evaluate(step)
        return TrainResult(
            step, self.final_model(), self.checkpoint, self.folder / "log.jsonl", self.evaluations
        )

    def _agree(self, objects: int, stop: bool) -> tuple[int, bool]:
        """Objects of all processes, and whether any of them was told to stop."""
        if self.fabric.world_size == 1:
            return objects, stop
        sums = torch.tensor([objects, int(stop)], device=self.fabric.device)
        total, stops = cast(Tensor, self.fabric.all_reduce(sums, reduce_op="sum")).tolist()
        return total, stops > 0

    def _leave(self, step: int) -> None:
        if self.main:
            print(
                f"\nstopped after step {step} of {self.config.steps}; {self.checkpoint} is written. "
                "Run the same command again to go on.",
                file=sys.stderr,
                flush=True,
            )
        self.fabric.barrier()
        raise Interrupted(step, self.checkpoint)

    def _row(self, step: int, data: StepData, result: StepResult, seconds: float) -> Row:
        images = self.config.batch_size * self.config.accumulate * self.fabric.world_size
        return {
            "step": step,
            "arch": "+".join(arch.id for arch in data.archs),
            "total": result.losses["total"],
            "grad_norm": result.grad_norm,
            "lr": result.lr,
            "updated": result.updated,
            "seconds": round(seconds, 4),
            "images_per_s": round(images / max(seconds, 1e-9), 2),
            **{name: value for name, value in result.losses.items() if name != "total"},
        }

    def _evaluation_due(self, step: int) -> bool:
        every = self.config.evaluate_every
        return self.val is not None and every > 0 and step % every == 0

    def evaluate(self, step: int) -> None:
        """AP of the dearest and the cheapest architecture of the space on `val`, by the main process."""
        assert self.val is not None
        if self.main:
            # Imported here: training alone needs no evaluation.
            from rfdetr.evaluation.coco import evaluate

            model = self.final_model()
            for arch in dict.fromkeys((self.space.largest, self.space.smallest)):
                row = {"step": step, "arch": arch.id, **evaluate(model, self.val, arch).row()}
                self.evaluations.append(strict(row))
            lines = "".join(json.dumps(row) + "\n" for row in self.evaluations)
            write_atomic(self.folder / "evaluations.jsonl", lines)
        self.evaluated = step
        self.fabric.barrier()

    def final_model(self) -> RFDETR:
        """A copy in evaluation mode, with averaged weights where there are some."""
        model = copy.deepcopy(self.stepper.model).eval()
        if self.stepper.ema is not None:
            model.load_state_dict(self.stepper.ema.weights)
        return model


def _rows(path: Path) -> list[Row]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def _diverged(step: int, archs: list[Arch], result: StepResult, bad: int) -> TrainingDivergedError:
    broken = [name for name, value in result.losses.items() if not math.isfinite(value)]
    return TrainingDivergedError(
        f"training diverged: {bad} steps in a row up to step {step} ({', '.join(arch.id for arch in archs)})"
        f" had no finite {'loss (' + ', '.join(broken) + ')' if broken else 'gradients'}. Lower lr, keep"
        " clip_norm on or use fp32; the last checkpoint is kept"
    )
