"""The training loop: a supernet, one fixed architecture, or fine-tuning from a checkpoint, on any number of
processes.

A step's architecture and images are pure functions of (seed, step), everything else is in the checkpoint, so
a run that was stopped, killed or moved goes on with the weights that it would have had.
"""

import copy
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.model.detector import RFDETR
from rfdetr.model.origin import Origin
from rfdetr.training.batches import StepData, batches
from rfdetr.training.checkpoint import model_from_checkpoint
from rfdetr.training.config import TrainConfig
from rfdetr.training.evaluations import Evaluations
from rfdetr.training.inputs import check_inputs, check_recipe, single_point
from rfdetr.training.launch import launch
from rfdetr.training.log import Progress, Row, TrainingLog
from rfdetr.training.memory import keep_memory
from rfdetr.training.plan import estimate, lines, make_plan, write_plan
from rfdetr.training.signals import Interrupted, stop_signals
from rfdetr.training.state import RunState
from rfdetr.training.step import Stepper, StepResult
from rfdetr.training.tensorboard import Board

SETTLED = 5
"""Steps after which the remaining time is estimated."""


class TrainingDivergedError(UserError):
    """Loss or gradients were not finite for too many steps in a row."""


@dataclass(frozen=True)
class TrainResult:
    """step: updates done. model: the trained network in evaluation mode, with averaged weights where
    averaging was on, and the best ones of a training with `patience`. checkpoint, log: files. evaluations:
    one row per evaluation and architecture. best_step: the step that `model` is of.
    """

    step: int
    model: RFDETR
    checkpoint: Path
    log: Path
    evaluations: list[Row]
    best_step: int


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
    notes: Mapping[str, Any] | None = None,
    snapshots: Collection[int] = (),
    tensorboard: bool = False,
) -> TrainResult:
    """Train `model` in place on `dataset` and write checkpoint.pt, the log and the plan to `out_dir`.

    space        what each step draws its architecture from; an `Arch` (or a space of one point) trains that
                 one alone
    val          evaluated every `config.evaluate_every` steps and at the end, for the default, the dearest
                 and the cheapest architecture of the space (evaluations.jsonl, evaluations.csv)
    resume       go on from out_dir/checkpoint.pt if there is one; False starts anew and replaces it
    progress     True: a line on standard output; or a callable that gets every row
    devices      processes on this machine, one per GPU or sharing the processor; under torchrun its own
                 number counts
    accelerator  "cpu", "cuda" or "auto"
    notes        plain values for plan.json and the checkpoint: `start`, `recipe` (in words), `source` (name
                 or folder of the data, which later commands then need not be told)

    snapshots    steps whose weights, averaged where averaging is on, are kept as step-<step>.pt (state dicts)
    tensorboard  also write losses and AP for TensorBoard, which must be installed

    The network's default architecture becomes the dearest one of the space unless the one that it has is
    trained too.

    Raises UserError when model, data and space do not fit, when the checkpoint is of another run, or when the
    disk is full (the earlier checkpoint stays); TrainingDivergedError naming step and architecture;
    Interrupted (exit code 130) after SIGINT or SIGTERM, once the checkpoint is written.
    """
    config = config or TrainConfig()
    space = single_point(space) if isinstance(space, Arch) else space
    check_inputs(model, dataset, space, val)
    check_recipe(config, space, val)
    own = model.config.default_arch
    if own is None or own.encoder not in space.triples():
        model.config = model.config.replace(default_arch=space.largest)
    board = Board(Path(out_dir) / "tensorboard") if tensorboard else None
    fabric = launch(devices, accelerator)
    if fabric.device.type == "cpu":
        keep_memory()
    state = RunState(
        Stepper(model, config, fabric), dataset, space, config, Path(out_dir), fabric, notes or {}
    )
    return _Run(state, val, progress, frozenset(snapshots), board).train(resume)


class _Run:
    """State of one call of `train`."""

    def __init__(
        self,
        state: RunState,
        val: DetectionDataset | None,
        progress: bool | Callable[[Row], None],
        snapshots: frozenset[int],
        board: Board | None,
    ) -> None:
        self.state, self.val, self.progress = state, val, progress
        self.snapshots, self.board = snapshots, board
        self.stepper, self.config, self.space = state.stepper, state.config, state.space
        self.folder, self.fabric = state.folder, state.fabric
        self.main = self.fabric.global_rank == 0
        own = cast(Arch, self.stepper.model.config.default_arch)
        archs = (own, self.space.largest, self.space.smallest)
        self.evaluations = Evaluations(self.folder, val, archs)
        self.evaluated = -1  # step of the last evaluation, the same in every process
        self.stalled = False  # whether the last evaluations brought nothing; the same in every process

    def train(self, resume: bool) -> TrainResult:
        """The steps that are left (fewer where the AP stalls), then the result."""
        first = self.state.resume() if resume else 0
        if first:
            self.evaluations.read(first)
            self.evaluated = self.evaluations.last_step
            self.stalled = self.evaluations.stalled(self.config.patience)
        plan = self._announce(first)
        left = first < self.config.steps and not self.stalled
        step = self._steps(first, plan) if left else first
        if self.val is not None and self.evaluated != step:
            self.evaluate(step)
        kept = self.config.patience > 0 and self.state.best.is_file()
        return TrainResult(
            step,
            model_from_checkpoint(self.state.best) if kept else self.final_model(step),
            self.state.last,
            self.folder / "log.jsonl",
            self.evaluations.rows,
            self.evaluations.best_step if kept else step,
        )

    def _announce(self, first: int) -> dict[str, Any]:
        """Write the plan (main process only), and print it where a progress line is wanted."""
        plan = make_plan(
            self.stepper.model,
            self.state.dataset,
            self.val,
            self.space,
            self.config,
            self.fabric.world_size,
            self.stepper.precision.name,
            self.state.notes,
        )
        if not self.main:
            return plan
        if not first:
            self.state.clear()
        write_plan(self.folder, plan)
        if self.progress is True:
            steps = self.config.steps
            done = first >= steps or self.stalled
            where = f"finished at step {first} of {steps}" if done else f"going on at step {first} of {steps}"
            print("\n".join([*lines(plan), *([f"{'resumed':9s}{where}"] if first else [])]), flush=True)
        return plan

    def _steps(self, first: int, plan: dict[str, Any]) -> int:
        """The steps themselves; returns the number of updates done in all."""
        config, fabric = self.config, self.fabric
        log = TrainingLog(self.folder, first) if self.main else None
        report = Progress(self.progress if self.main else False, config.steps, first)
        bad, step, saved = 0, first, first if first else -1
        source = batches(self.state.dataset, self.space, config, first, fabric.global_rank, fabric.world_size)
        try:
            with stop_signals() as stopped:
                begun = started = time.monotonic()
                for data in source:
                    objects, stop = self._agree(data.objects, stopped.is_set())
                    if stop:
                        self._save(step)
                        self._leave(step)
                    result = self.stepper(data, step, objects)
                    step += 1
                    bad = 0 if result.updated else bad + 1
                    if bad >= config.max_bad_steps:
                        raise _diverged(step, data.archs, result, bad)
                    now = time.monotonic()
                    row = self._row(step, data, result, now - started)
                    if log is not None and (step % config.log_every == 0 or step == config.steps):
                        log.write(row)
                        self._show(row)
                    if self.main and step in self.snapshots:
                        self.state.snapshot(step, self.final_model(step))
                    report(row)
                    if step == first + SETTLED and step < config.steps:
                        self._estimate(plan, now - begun, step)
                    if step % config.checkpoint_every == 0 or step == config.steps:
                        self._save(step)
                        saved = step
                    if self._evaluation_due(step):
                        self.evaluate(step)
                        if self.stalled:
                            break
                    started = time.monotonic()  # a step's time is without files and evaluations
        finally:
            source.close()
            if log is not None:
                log.close()
        if saved != step:
            self._save(step)
        return step

    def _show(self, row: Row) -> None:
        if self.board is not None:
            self.board.write(row)

    def _save(self, step: int) -> None:
        if self.main:
            self.state.save(step)

    def _estimate(self, plan: dict[str, Any], seconds: float, step: int) -> None:
        if not self.main:
            return
        each = seconds / SETTLED
        plan |= {"seconds_per_step": each, "seconds_left": each * (self.config.steps - step)}
        write_plan(self.folder, plan)
        if self.progress is True:
            print(estimate(seconds, SETTLED, self.config.steps - step), flush=True)

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
                f"\nstopped after step {step} of {self.config.steps}; {self.state.last} is written. "
                "Run the same command again to go on.",
                file=sys.stderr,
                flush=True,
            )
        self.fabric.barrier()
        raise Interrupted(step, self.state.last)

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
        """AP of a few architectures on `val`, by the main process; the others wait (`launch.PATIENCE`)."""
        if self.main:
            model = self.final_model(step)
            self.evaluations.add(model, step)
            for row in self.evaluations.at(step):
                self._show(row)
            if self.config.patience and self.evaluations.best_step == step:
                self.state.save_best(step, model)
        self.evaluated = step
        stalled = self.main and self.evaluations.stalled(self.config.patience)
        self.stalled = bool(self.fabric.broadcast(stalled))

    def final_model(self, step: int) -> RFDETR:
        """A copy in evaluation mode, with averaged weights where there are some."""
        model = copy.deepcopy(self.stepper.model).eval()
        if self.stepper.ema is not None:
            model.load_state_dict(self.stepper.ema.weights)
        source = str(self.state.notes.get("source", ""))
        model.origin = Origin(str(self.state.last), step, self.space, self.config.anchor, source)
        return model


def _diverged(step: int, archs: list[Arch], result: StepResult, bad: int) -> TrainingDivergedError:
    broken = [name for name, value in result.losses.items() if not math.isfinite(value)]
    return TrainingDivergedError(
        f"training diverged: {bad} steps in a row up to step {step} ({', '.join(arch.id for arch in archs)})"
        f" had no finite {'loss (' + ', '.join(broken) + ')' if broken else 'gradients'}. Lower lr, keep"
        " clip_norm on or use fp32; the last checkpoint is kept"
    )
