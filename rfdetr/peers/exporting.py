"""ONNX files of the peers with the inputs and outputs of this package's own exports.

Input `images` [1, 3, S, S] float32, normalised as for RF-DETR (what a peer was trained on is computed from
that in the graph); outputs `logits` [1, Q, K], `boxes` [1, Q, 4] (cxcywh, 0..1) and, for -seg, `masks`
[1, Q, S / 4, S / 4] (logits). So `predict`, `evaluate`, `benchmark` and `rfdetr.load_exported` take them.
What a user waits for is inside: suppression and whole masks for a YOLO.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.data.categories import CategoryMap
from rfdetr.data.transforms import MEAN, STD
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, categories_text, load_artifact
from rfdetr.export.onnx import ExportError, cpu_session, write_graph
from rfdetr.files import check_target
from rfdetr.peers import yolo
from rfdetr.peers.building import build, lively
from rfdetr.peers.catalogue import is_yolo, key, named, takes_image_alone
from rfdetr.peers.deploying import deploy
from rfdetr.peers.liveliness import picture

if TYPE_CHECKING:
    import onnx

OPSET = 18
TOLERANCE = 1e-3
"""Of FP32 outputs against eager ones: scores as probabilities, boxes in 0..1, mask logits over their
largest."""
_IMAGENET = ("LW-DETR",)
"""Families that take pictures normalised as RF-DETR does; the others take values 0..1."""


class Detector(nn.Module):
    """A deployed peer with this package's input: what is traced. Outputs: logits, boxes; of a YOLO those of
    `yolo.Cells`.
    """

    def __init__(self, entry: Mapping[str, Any], model: nn.Module) -> None:
        super().__init__()
        self.yolo = is_yolo(entry)
        self.model: nn.Module = yolo.Cells(model, tuple(entry["input"])) if self.yolo else model
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
        if self.yolo:
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
    model = lively(name) if weights is None else build(name, weights)
    return Detector(entry, deploy(entry, model)).eval()


def outputs(network: Detector, images: Tensor, nms: str = "deployed") -> dict[str, np.ndarray]:
    """What an exported file gives, computed in PyTorch and NumPy."""
    with torch.no_grad():
        values = [value.numpy() for value in network(images)]
    if network.ends:
        return yolo.finished(values, yolo.mode_of(nms))
    return dict(zip(network.names, values, strict=True))


def export_peer(
    name: str,
    path: str | Path,
    weights: str | Path | None = None,
    nms: str = "deployed",
    masks: str = "whole",
    check: bool = True,
) -> Artifact:
    """Export a deployed peer.

    nms    for a YOLO: "deployed" or "evaluation" (`rfdetr.peers.yolo`)
    masks  for -seg: "whole", or "prototypes": what assembling them costs is the difference
    check  run the file in ONNX Runtime and compare with the network (ExportError beyond `TOLERANCE`)

    Raises UserError before the work for what cannot be exported or written.
    """
    check_target(path, "the path")
    how = yolo.mode_of(nms)
    if masks not in ("whole", "prototypes"):
        raise UserError(f"--masks is whole or prototypes, not {masks!r}")
    network = detector(name, weights)
    entry = named(name)
    images = torch.zeros(1, 3, *entry["input"])
    graph = _traced(network, images)
    if network.ends:
        with torch.no_grad():
            shapes = [tuple(value.shape) for value in network(images)]
        graph = _ended(graph, network.names, shapes, how, masks == "whole")
    write_graph(graph, path, _metadata(entry, network, weights, nms, masks))
    artifact = load_artifact(path)
    if check:
        try:
            compare(artifact, network, nms)
        except Exception:
            Path(path).unlink()
            raise
    return artifact


def _traced(network: Detector, images: Tensor) -> "onnx.ModelProto":
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["images"],
            output_names=network.names,
        )
    assert program is not None
    return program.model_proto


def _ended(
    graph: "onnx.ModelProto",
    names: list[str],
    shapes: list[tuple[int, ...]],
    how: yolo.Suppression,
    whole: bool,
) -> "onnx.ModelProto":
    """A YOLO's graph with its end."""
    from onnx import compose

    end = yolo.end_graph(shapes if whole else shapes[:2], how, OPSET)
    end.ir_version = graph.ir_version
    taken = [name for name in names if name in {value.name for value in end.graph.input}]
    made = [value.name for value in end.graph.output]
    end = compose.add_prefix(end, "end/", rename_inputs=False, rename_outputs=False)
    left = [name for name in names if name not in taken]
    merged = compose.merge_models(graph, end, io_map=[(name, name) for name in taken], outputs=[*made, *left])
    outputs = sorted(merged.graph.output, key=lambda value: [*made, *left].index(value.name))
    del merged.graph.output[:]
    merged.graph.output.extend(outputs)
    return merged


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, and without a check of transformers that has no ONNX form."""
    logger, before = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    asked = os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
        if asked is None:
            del os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"]
        else:
            os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = asked


def _metadata(
    entry: Mapping[str, Any], network: Detector, weights: str | Path | None, nms: str, masks: str
) -> dict[str, str]:
    classes = 91 if entry["name"] == "LW-DETR" else 80
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return {
        "preset": key(entry),
        "categories": categories_text(CategoryMap.official() if classes == 91 else CategoryMap.coco80()),
        "precision": "fp32",
        "batch": "1",
        "opset": str(OPSET),
        "weights": "random" if weights is None else Path(weights).name,
        "licence": entry["licence"],
        "source_sha256": digest.hexdigest(),
        "versions": json.dumps({p: version(p) for p in ("torch", "onnx", entry["package"])}),
        **({"nms": nms} if network.ends else {}),
        **({"masks": masks} if entry["name"].endswith("-seg") else {}),
    }


def compare(
    artifact: Artifact,
    network: Detector,
    nms: str = "deployed",
    tolerance: float = TOLERANCE,
    pictures: Callable[[int], Tensor] | None = None,
) -> float:
    """Largest difference between a file in ONNX Runtime and the network: of scores, boxes, and mask logits
    over their largest value.

    pictures: seed -> a picture; default: noise. Two tokens that score alike may change ranks by rounding,
    which changes what the queries of that rank become: so up to four pictures are tried, and the best
    counts. A wrong graph is wrong for all. Raises ExportError above `tolerance`.
    """
    session = cpu_session(artifact.file)
    make = pictures or (lambda seed: picture(_side(artifact), seed))
    best = float("inf")
    for seed in range(4):
        images = make(seed)
        expected = outputs(network, images, nms)
        names = [o.name for o in artifact.outputs if o.name in expected]
        found = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
        best = min(best, max(_difference(name, found[name], expected[name]) for name in names))
        if best <= tolerance:
            return best
    raise ExportError(
        f"the exported {artifact.name} differs from the network by {best:.2g} ({tolerance:.2g})"
    )


def _side(artifact: Artifact) -> tuple[int, int]:
    height, width = artifact.inputs[0].sized()[-2:]
    return height, width


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    if name == "logits":
        # As probabilities: a class that a box does not have is one of the largest negative numbers.
        found, expected = (1 / (1 + np.exp(-np.clip(v, -80, 80))) for v in (found, expected))
    scale = max(1.0, float(np.abs(expected).max())) if name == "masks" else 1.0
    return float(np.abs(found - expected).max()) / scale
