"""INT8 files for OpenVINO: post-training quantisation by NNCF with images of the data.

A quantised model is another artifact with its own SHA-256 (of both its files): its accuracy has to be
measured.
"""

import contextlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.export import openvino_files
from rfdetr.export.artifact import Artifact, describe, load_artifact
from rfdetr.export.fp16 import coordinate_nodes

CALIBRATION_IMAGES = 200


def load_nncf() -> Any:
    """The module `nncf`. Raises UserError naming the extra when it is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets with a list of frameworks
            import nncf
    except ImportError as error:
        raise UserError(
            "quantisation needs OpenVINO and NNCF: pip install 'rf-detr-nas-companion[openvino]'"
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def floating_nodes(
    artifact: Artifact, inputs: Sequence[dict[str, np.ndarray]], keep: Sequence[str]
) -> set[str]:
    """Nodes that quantisation leaves in floating point, by name: `keep` and the arithmetic of coordinates.

    Raises UserError for what is no float32 ONNX file, without inputs, and for names that the graph lacks.
    """
    import onnx

    if artifact.format != "onnx" or artifact.precision not in ("fp32", "unknown"):
        raise UserError(
            f"only FP32 ONNX files can be quantised, not {artifact.name} ({artifact.format},"
            f" {artifact.precision})"
        )
    if not inputs:
        raise UserError("quantisation needs images: name the data")
    graph = onnx.load(artifact.file, load_external_data=False).graph
    unknown = sorted(set(keep) - {n.name for n in graph.node})
    if unknown:
        raise UserError(f"the graph has no node {', '.join(unknown[:5])}")
    return {*keep, *coordinate_nodes(graph)}


def to_int8(
    artifact: Artifact,
    path: str | Path,
    inputs: Sequence[dict[str, np.ndarray]],
    keep: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Artifact:
    """Quantise products and convolutions of a float32 ONNX file; write `<path>` (.xml) and its .bin.

    inputs  what the value ranges are taken from: images of the data that the file is for, best of its
            training split (`CALIBRATION_IMAGES` of them are plenty)
    keep    names of nodes that stay in floating point; the arithmetic of coordinates always does
    metadata  more texts for the description, such as which data the images are of

    Inputs and outputs stay float32. Raises UserError without inputs, for other files, and without NNCF.
    """
    nncf = load_nncf()
    import openvino

    path = Path(path)
    names = floating_nodes(artifact, inputs, keep)
    if path.suffix != ".xml":
        raise UserError(f"OpenVINO's files end in .xml, not {path}")
    # OpenVINO keeps the names of nodes, but a convolution with a bias becomes two.
    names |= {f"{name}/WithoutBiases" for name in names}
    ignored = nncf.IgnoredScope(names=sorted(names), validate=False)
    with contextlib.redirect_stdout(io.StringIO()):  # bars for every step
        quantised = nncf.quantize(
            openvino.Core().read_model(str(artifact.file)),
            nncf.Dataset(list(inputs)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
            ignored_scope=ignored,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "precision": "int8",
        "fp32_sha256": artifact.sha256,
        "calibration_images": str(sum(len(next(iter(feed.values()))) for feed in inputs)),
        "kept_in_fp32": json.dumps(sorted(keep)),
        "nncf": nncf.__version__,
        **(metadata or {}),
    }
    openvino_files.save(quantised, path, {**artifact.metadata, **about})
    describe(path, artifact, about)
    return load_artifact(path)
