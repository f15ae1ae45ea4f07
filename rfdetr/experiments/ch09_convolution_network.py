"""A convolutional detector of a public package, trained with the package's own loss and exported.

YOLOX (Ge and others, arXiv 2107.08430) as the package `libreyolo` (MIT) has it. The package's trainer needs
torchvision, which has no build beside a processor's torch. So the loop here is this project's: the package's
network gives its loss, and pictures, flips and crops are those that a supernet of the same seed is trained on
(`rfdetr.training.batches`).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfdetr.arch import SearchSpace
from rfdetr.data.dataset import DetectionDataset, Target
from rfdetr.data.transforms import MEAN, STD
from rfdetr.export.artifact import Artifact, categories_text, load_artifact
from rfdetr.export.graph import quiet_exporter
from rfdetr.export.onnx import write_graph
from rfdetr.files import atomic_path
from rfdetr.peers import yolo
from rfdetr.training.batches import prepare
from rfdetr.training.config import TrainConfig
from rfdetr.training.memory import keep_memory
from rfdetr.training.signals import Interrupted, stop_signals

WARM_UP = 0.05
"""Part of the time in which the learning rate rises; then it falls to zero along a cosine."""
_DECAY, _MOMENTUM = 5e-4, 0.9  # as the package has them; biases and normalisation are not decayed
_SAVE_SECONDS = 20.0
_OPSET = 18


@dataclass(frozen=True)
class Trained:
    """What a training did: steps, processor seconds, mean loss of the last steps, steps whose loss was not
    finite and that were skipped.
    """

    steps: int
    seconds: float
    loss: float
    skipped: int


def values(images: Tensor) -> Tensor:
    """Pictures normalised as for RF-DETR -> as the package takes them, 0..255. [B, 3, S, S]."""
    scale, shift = (images.new_tensor(numbers).view(1, 3, 1, 1) * 255 for numbers in (STD, MEAN))
    return images * scale + shift


def labels(targets: list[Target], side: int) -> Tensor:
    """Objects as the package's loss takes them: [B, M, 5] class, centre x, centre y, width, height in px of
    the input; rows of zeros where a picture has fewer.
    """
    most = max(1, *(len(target) for target in targets))
    found = torch.zeros(len(targets), most, 5)
    for row, target in zip(found, targets, strict=True):
        row[: len(target), 0] = target.labels.float()
        row[: len(target), 1:] = target.boxes * side
    return found


def fit(
    model: nn.Module,
    dataset: DetectionDataset,
    recipe: Mapping[str, Any],
    seconds: float,
    side: int,
    work: Path,
    clock: Callable[[], float] = time.process_time,
) -> Trained:
    """Train `model` in place for so many processor seconds of this process; a stopped training goes on.

    recipe  optimizer ("sgd" or "adamw"), lr, batch_size, seed
    work    folder for the state of an unfinished training
    """
    keep_memory()  # as a supernet's training does
    space = SearchSpace((side,), (side,), (1,), (0,), (1,))  # one resolution; nothing else is read
    config = TrainConfig(batch_size=recipe["batch_size"], seed=recipe["seed"], augment=True)
    optimizer = _optimizer(model, recipe)
    path = work / "convolution.pt"
    state: dict[str, Any] = {"step": 0, "spent": 0.0, "skipped": 0, "losses": []}
    if path.is_file():
        stored = torch.load(path, weights_only=True)
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        state = stored["state"]
    model.train()
    began, before, saved = clock(), state["spent"], state["spent"]
    with stop_signals() as stopped:
        while state["spent"] < seconds:
            data = prepare(dataset, space, config, state["step"])
            for group in optimizer.param_groups:
                group["lr"] = recipe["lr"] * _factor(state["spent"] / seconds)
            loss = model(values(data.images[0][0]), labels(data.targets[0], side))["total_loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if math.isfinite(number := float(loss.detach())):
                optimizer.step()
                state["losses"] = [*state["losses"][-19:], number]
            else:
                state["skipped"] += 1
            state["step"] += 1
            state["spent"] = before + clock() - began
            if stopped.is_set() or state["spent"] - saved > _SAVE_SECONDS:
                _save(path, model, optimizer, state)
                saved = state["spent"]
            if stopped.is_set():
                raise Interrupted(state["step"], path)
    model.eval()
    last = state["losses"]
    mean = sum(last) / len(last) if last else math.nan
    return Trained(state["step"], round(state["spent"], 1), mean, state["skipped"])


def _factor(progress: float) -> float:
    """The learning rate's factor when this part of the time is over."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


def _optimizer(model: nn.Module, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": _DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe["optimizer"] == "sgd":
        return torch.optim.SGD(groups, lr=recipe["lr"], momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe["lr"])


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    whole = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": dict(state)}
    with atomic_path(path) as temporary:
        torch.save(whole, temporary)


class Cells(nn.Module):
    """What is exported, up to the choice of boxes: pictures normalised as for RF-DETR [1, 3, S, S] -> boxes
    [1, N, 4] (cxcywh, 0..1) and scores [1, K, N].
    """

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The score of a class in a cell is that of an object times that of the class."""
        found = self.model(values(images))
        scores = found[..., 4:5] * found[..., 5:]
        return found[..., :4] / self.side, scores.transpose(1, 2)


def export(
    model: nn.Module, side: int, dataset: DetectionDataset, nms: str, path: Path, name: str = "yolox-n"
) -> Artifact:
    """Write the network with the choice of boxes inside (`rfdetr.peers.yolo`), with the inputs and outputs of
    this package's own files. nms: "evaluation" or "deployed".
    """
    from onnx import compose

    network = Cells(model, side).eval()
    images = torch.zeros(1, 3, side, side)
    names = yolo.output_names(False)
    with quiet_exporter(), torch.no_grad(), _decoding(model):
        shapes = [tuple(value.shape) for value in network(images)]
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=_OPSET,
            verbose=False,
            input_names=["images"],
            output_names=names,
        )
    assert program is not None
    graph = program.model_proto
    end = yolo.end_graph(shapes, yolo.mode_of(nms), _OPSET)
    end.ir_version = graph.ir_version
    end = compose.add_prefix(end, "end/", rename_inputs=False, rename_outputs=False)
    whole = compose.merge_models(graph, end, io_map=[(one, one) for one in names])
    about = {"preset": name, "precision": "fp32", "batch": "1", "opset": str(_OPSET), "nms": nms}
    write_graph(whole, path, {**about, "categories": categories_text(dataset.category_ids)})
    return load_artifact(path)


@contextmanager
def _decoding(model: Any) -> Iterator[None]:
    """In the block the package's head gives decoded boxes and scores in one tensor [1, N, 5 + K]."""
    before, model.head.export = model.head.export, True
    try:
        yield
    finally:
        model.head.export = before
