"""A deployed peer with this package's input and outputs: what is traced, and what a file is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.data.transforms import MEAN, STD
from rfdetr.errors import UserError
from rfdetr.peers import libre, yolo
from rfdetr.peers.building import build, lively
from rfdetr.peers.catalogue import is_libre, is_yolo, named, takes_image_alone
from rfdetr.peers.deploying import deploy

NOT_EXPORTED = ("YOLOv10",)
"""Families whose export was tried and differs from the network; the cause is not known."""
_IMAGENET = ("LW-DETR",)
"""Families that take pictures normalised as RF-DETR does; the others take values 0..1."""


class Detector(nn.Module):
    """A deployed peer with this package's input: what is traced. Outputs: logits, boxes; of a YOLO those of
    `yolo.Cells`.
    """

    def __init__(self, entry: Mapping[str, Any], model: nn.Module) -> None:
        super().__init__()
        self.formed = is_yolo(entry) or is_libre(entry)
        self.model = model
        if is_yolo(entry):
            self.model = yolo.Cells(model, tuple(entry["input"]))
        elif is_libre(entry):
            self.model = libre.form(entry, model)
        plain = entry["name"] not in _IMAGENET
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(STD if plain else (1.0, 1.0, 1.0)).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor(MEAN if plain else (0.0, 0.0, 0.0)).view(1, 3, 1, 1))
        self.plain = plain

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [1, 3, S, S], normalised."""
        values = images * self.scale + self.shift if self.plain else images
        network: Any = self.model
        if self.formed:
            return network(values)
        found = network(pixel_values=values)
        return found.logits, found.pred_boxes

    @property
    def ends(self) -> bool:
        """Whether boxes are still to be chosen by `yolo.end_graph`."""
        return isinstance(self.model, yolo.Cells) and not self.model.chooses

    @property
    def names(self) -> list[str]:
        """Names of the traced outputs."""
        if self.ends:
            assert isinstance(self.model, yolo.Cells)
            return yolo.output_names(self.model.masks)
        return ["logits", "boxes"]


def detector(name: str, weights: str | Path | None = None) -> Detector:
    """A deployed peer that can be run and traced. UserError for a backbone, or one that needs a text."""
    entry = named(name)
    if not takes_image_alone(entry):
        raise UserError(f"{name} is no detector of pictures alone: it is counted, not exported or timed")
    if entry["name"] in NOT_EXPORTED:
        raise UserError(f"{name} is counted only: its exported file does not find what the network finds")
    model = lively(name) if weights is None else build(name, weights)
    network = Detector(entry, deploy(entry, model)).eval()
    if is_libre(entry):
        with torch.no_grad():
            # Anchors that a network makes at its first call are made before anything is traced.
            network(torch.zeros(1, 3, *entry["input"]))
    return network


def outputs(network: Detector, images: Tensor, nms: str = "deployed") -> dict[str, np.ndarray]:
    """What an exported file gives, computed in PyTorch and NumPy."""
    with torch.no_grad():
        values = [value.numpy() for value in network(images)]
    if network.ends:
        return yolo.finished(values, yolo.mode_of(nms))
    return dict(zip(network.names, values, strict=True))
