"""Checkpoints: written whole or not at all, read without running code from the file.

A checkpoint holds everything that a run needs to go on as if it had never stopped, and everything that is
needed to use the network without knowing where it came from.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfdetr.arch import SearchSpace
from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError
from rfdetr.files import atomic_path
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.model.origin import Origin
from rfdetr.training.config import TrainConfig

FORMAT = "rfdetr-training-checkpoint"
VERSION = 1
LAST, BEST = "checkpoint.pt", "best.pt"
"""Names of a training's files of weights: the last ones, from which it goes on, and the best ones."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` updates.

    model: sizes of the network; weights and, where averaging was on, ema weights by name. optimizer, scaler:
    state dicts. space: what architectures were drawn from. rng: torch's state. provenance: versions, time,
    data.
    """

    step: int
    model: ModelConfig
    weights: dict[str, Tensor]
    ema: dict[str, Any] | None
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    config: TrainConfig
    space: SearchSpace
    rng: Tensor
    provenance: dict[str, Any]

    def best_weights(self, ema: bool = True) -> dict[str, Tensor]:
        """The averaged weights where there are some and `ema`, else the trained ones."""
        return self.ema["weights"] if ema and self.ema is not None else self.weights


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write atomically. Raises UserError when the disk is full; an earlier file at `path` then stays as it
    was.
    """
    content = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    content |= {
        "format": FORMAT,
        "version": VERSION,
        "model": checkpoint.model.to_dict(),
        "config": checkpoint.config.to_dict(),
        "space": {f.name: getattr(checkpoint.space, f.name) for f in fields(checkpoint.space)},
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch hides the reason of a failed write behind its own error.
            raise _write_error(error) or error from error


def _write_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def load_checkpoint(
    path: str | os.PathLike[str], expect: ModelConfig | None = None, map_location: str | torch.device = "cpu"
) -> Checkpoint:
    """Read a checkpoint. No code in the file is run.

    Raises UserError, naming the file, when it is missing, truncated, or something else, and when `expect` is
    given and the network has other sizes (the message lists the fields that differ).
    """
    path = Path(path)
    if not path.is_file():
        hint = _published(path.parent) if any(path.parent.glob("*.safetensors")) else ""
        raise UserError(
            f"there is no checkpoint {path}: give the path of a checkpoint.pt that `train` has written{hint}"
        )
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged file can break the reader in any way
        raise UserError(
            f"cannot read {path}: it is truncated or no checkpoint of this package; restore it from a copy or"
            f" train again{_published(path)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no training checkpoint of this package{_published(path)}")
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} has checkpoint version {content.get('version')}, this package reads version {VERSION}"
        )
    values = {f.name: content[f.name] for f in fields(Checkpoint)}
    values["model"] = _sizes(content["model"], content["provenance"])
    # Before there was a choice of mask points they were drawn from the whole picture.
    values["config"] = TrainConfig.from_dict({"mask_sampling": "uniform", **content["config"]})
    values["space"] = SearchSpace(**content["space"])
    checkpoint = Checkpoint(**values)
    if expect is not None:
        check_same("network", path, checkpoint.model, expect)
    return checkpoint


def _published(path: Path) -> str:
    """How weights of the published package are given instead, as the end of a message."""
    return f"; weights of the published package are given with their configuration, such as nano:{path}"


def _sizes(values: dict[str, Any], origin: dict[str, Any]) -> ModelConfig:
    """Sizes of a checkpoint's network. Earlier versions kept the names of its classes there, and the category
    ids of the data in the provenance.
    """
    names, listed = values.get("class_names"), origin.get("categories")
    if names and listed:
        found = CategoryMap.from_coco(listed)
        if found.class_names == tuple(names):
            values = {**values, "class_names": None, "categories": found.to_dict()}
    return ModelConfig.from_dict(values)


def check_same(what: str, path: Path, found: Any, wanted: Any, ignore: frozenset[str] = frozenset()) -> None:
    """Raise UserError listing the fields in which two dataclass values differ."""
    differing = [
        f"{f.name} is {getattr(found, f.name)!r}, here {getattr(wanted, f.name)!r}"
        for f in fields(wanted)
        if f.name not in ignore and getattr(found, f.name) != getattr(wanted, f.name)
    ]
    if differing:
        raise UserError(
            f"{path} was written for another {what}: {'; '.join(differing)}. "
            "Use the same values, or another output folder for a new run"
        )


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """The file to open for a path: itself, or in a folder of a training the weights that it ended with.

    These are best.pt of a training with `patience`, else checkpoint.pt.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    return path / BEST if (path / BEST).is_file() else path / LAST


def model_from_checkpoint(path: str | os.PathLike[str], ema: bool = True) -> RFDETR:
    """The network of a checkpoint or a training's folder, in evaluation mode, on the processor.

    Averaged weights where there are some and `ema`. `model.origin` says what the file knows of the training.
    """
    path = checkpoint_file(path)
    checkpoint = load_checkpoint(path)
    model = RFDETR(**checkpoint.model.to_dict())
    model.load_state_dict(checkpoint.best_weights(ema))
    data = str(checkpoint.provenance.get("source", ""))
    model.origin = Origin(str(path), checkpoint.step, checkpoint.space, checkpoint.config.anchor, data)
    return model.eval()
