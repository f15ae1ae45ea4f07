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
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, categories_text, load_artifact
from rfdetr.export.onnx import ExportError, cpu_session, write_graph
from rfdetr.files import check_target
from rfdetr.peers import yolo
from rfdetr.peers.building import build
from rfdetr.peers.catalogue import BACKBONE, key, named
from rfdetr.peers.checking import TOLERANCE, compare
from rfdetr.peers.detectors import Detector, detector
from rfdetr.peers.liveliness import picture

if TYPE_CHECKING:
    import onnx

OPSET = 18


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
    graph = _traced(network, images, network.names)
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


class Backbone(nn.Module):
    """A backbone alone: its feature maps, or its tokens."""

    def __init__(self, entry: Mapping[str, Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.extra = dict(entry["config"].get("forward_kwargs", {}))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images [1, 3, S, S]."""
        network: Any = self.model
        found = network(images, **self.extra)
        maps = getattr(found, "feature_maps", None) or getattr(found, "intermediate_hidden_states", None)
        return tuple(maps) if maps is not None else (found.last_hidden_state,)


def export_backbone(name: str, path: str | Path) -> Artifact:
    """Export a backbone with random weights, to be timed: its outputs are `features_0`, ... UserError for a
    detector. Raises ExportError when the file differs from the network.
    """
    entry = named(name)
    if entry["size"] != BACKBONE:
        raise UserError(f"{name} is a detector, not a backbone")
    network = Backbone(entry, build(name)).eval()
    images = picture((entry["input"][0], entry["input"][1]))
    with torch.no_grad():
        expected = [value.numpy() for value in network(images)]
    graph = _traced(network, images, [f"features_{i}" for i in range(len(expected))])
    about = {"preset": key(entry), "precision": "fp32", "batch": "1", "opset": str(OPSET)}
    write_graph(graph, path, {**about, "weights": "random", "licence": entry["licence"]})
    artifact = load_artifact(path)
    found = cpu_session(artifact.file).run(None, {"images": images.numpy()})
    scale = max(float(np.abs(value).max()) for value in expected)
    off = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)) / scale
    if off > TOLERANCE:
        raise ExportError(f"the exported {name} differs from the network by {off:.2g} of its largest value")
    return artifact


def _traced(network: nn.Module, images: Tensor, names: list[str]) -> "onnx.ModelProto":
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["images"],
            output_names=names,
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
