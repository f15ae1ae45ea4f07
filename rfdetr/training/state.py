"""The state of a run on disk: going on from a checkpoint, and writing one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from rfdetr.arch import SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.files import atomic_path
from rfdetr.model.detector import RFDETR
from rfdetr.provenance import provenance
from rfdetr.training.checkpoint import BEST, LAST, Checkpoint, check_same, load_checkpoint, save_checkpoint
from rfdetr.training.config import RESUMABLE, TrainConfig
from rfdetr.training.optim import same_groups
from rfdetr.training.step import Stepper


class RunState:
    """What a run keeps in its folder, and whether a checkpoint there is its own.

    notes: what the caller knows; a resumed run takes over what the checkpoint has of them.
    """

    def __init__(
        self,
        stepper: Stepper,
        dataset: DetectionDataset,
        space: SearchSpace,
        config: TrainConfig,
        folder: Path,
        fabric: Fabric,
        notes: Mapping[str, Any],
    ) -> None:
        self.stepper, self.dataset, self.space, self.config = stepper, dataset, space, config
        self.folder, self.fabric, self.notes = folder, fabric, dict(notes)
        self.last, self.best = folder / LAST, folder / BEST

    def resume(self) -> int:
        """Load the last checkpoint if there is one. Returns the number of updates done.

        Raises UserError when it is of another network, recipe, space, data or number of processes.
        """
        if not self.last.exists():
            return 0
        stepper, saved = self.stepper, load_checkpoint(self.last)
        self._check(saved)
        stepper.model.load_state_dict(saved.weights)
        stepper.optimizer.load_state_dict(saved.optimizer)
        if stepper.ema is not None and saved.ema is not None:
            stepper.ema.load_state_dict(saved.ema)
        if saved.scaler:
            stepper.precision.scaler.load_state_dict(saved.scaler)
        torch.set_rng_state(saved.rng.cpu())
        self.notes.setdefault("source", saved.provenance.get("source", ""))
        return saved.step

    def _check(self, saved: Checkpoint) -> None:
        path, config = self.last, self.config
        check_same(
            "network", path, saved.model, self.stepper.model.config, ignore=frozenset({"default_arch"})
        )
        free = RESUMABLE if config.schedule == "none" else RESUMABLE - {"steps"}
        ends = saved.config.schedule == config.schedule != "none"
        if ends and saved.config.steps != config.steps:
            raise UserError(
                f"{path} is of a training of {saved.config.steps} steps whose learning rate ends with them"
                f" (schedule {config.schedule}), here {config.steps}: to train longer, start from its"
                f" weights: --weights {self.folder} --out {self.folder}-2"
            )
        check_same("training recipe", path, saved.config, config, free)
        check_same("search space", path, saved.space, self.space)
        here = {"data": self.dataset.fingerprint, "processes": self.fabric.world_size}
        for name, value in here.items():
            if saved.provenance.get(name) != value:
                raise UserError(
                    f"{path} was written for other {name} ({saved.provenance.get(name)}, here {value}): use"
                    " the same, or another output folder for a new run"
                )
        if not same_groups(self.stepper.optimizer, saved.optimizer):
            raise UserError(
                f"{path} was written under other rules for learning rates and weight decay, by another"
                f" version of this package: start a new run from its weights with --weights {path} and"
                " another --out"
            )

    def save(self, step: int) -> None:
        """Write the last checkpoint."""
        stepper = self.stepper
        self._write(
            self.last,
            step,
            weights=stepper.model.state_dict(),
            ema=None if stepper.ema is None else stepper.ema.state_dict(),
            optimizer=stepper.optimizer.state_dict(),
            scaler=stepper.precision.scaler.state_dict() or None,
        )

    def save_best(self, step: int, model: RFDETR) -> None:
        """Write the weights of `model`, and nothing to go on from, as the best ones."""
        self._write(self.best, step, weights=model.state_dict(), ema=None, optimizer={}, scaler=None)

    def snapshot(self, step: int, model: RFDETR) -> None:
        """Write the weights of `model` as step-<step>.pt, a state dict."""
        with atomic_path(self.folder / f"step-{step:06d}.pt") as temporary:
            torch.save(model.state_dict(), temporary)

    def clear(self) -> None:
        """Remove what an earlier training left in the folder and a new one does not overwrite."""
        for name in (BEST, "evaluations.jsonl", "evaluations.csv"):
            (self.folder / name).unlink(missing_ok=True)

    def _write(self, path: Path, step: int, **state: Any) -> None:
        origin = provenance(
            data=self.dataset.fingerprint,
            dataset=repr(self.dataset),
            categories=self.dataset.category_ids.to_coco(),
            processes=self.fabric.world_size,
            precision=self.stepper.precision.name,
            source=str(self.notes.get("source", "")),
        )
        checkpoint = Checkpoint(
            step=step,
            model=self.stepper.model.config,
            config=self.config,
            space=self.space,
            rng=torch.get_rng_state(),
            provenance=origin,
            **state,
        )
        save_checkpoint(path, checkpoint)
