"""INT8 files for ONNX Runtime: products between QuantizeLinear and DequantizeLinear, by its own quantiser.

A quantised model is another artifact with its own SHA-256: its accuracy has to be measured.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.export.int8 import floating_nodes
from rfdetr.export.onnx import write_graph

PRODUCTS = ("MatMul", "Gemm", "Conv")


def to_int8_onnx(
    artifact: Artifact,
    path: str | Path,
    inputs: Sequence[dict[str, np.ndarray]],
    keep: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Artifact:
    """Quantise products with weights and convolutions of a float32 ONNX file; write `path` (.onnx).

    The arguments are those of `int8.to_int8`. Weights have a scale for every channel; products of two
    activations (attention) stay in floating point, as ONNX Runtime's are no faster in INT8. Raises UserError
    without inputs and for other files.
    """
    import onnx

    path = Path(path)
    names = floating_nodes(artifact, inputs, keep)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.stem}.half-made.onnx")
    try:
        _quantise(artifact.file, scratch, inputs, sorted(names))
        quantised = onnx.load(scratch)
    finally:
        scratch.unlink(missing_ok=True)
    about = {
        "precision": "int8",
        "fp32_sha256": artifact.sha256,
        "calibration_images": str(sum(len(next(iter(feed.values()))) for feed in inputs)),
        "kept_in_fp32": json.dumps(sorted(keep)),
        "quantiser": version(),
        **(metadata or {}),
    }
    write_graph(quantised, path, dict(artifact.metadata) | about)
    return load_artifact(path)


def _quantise(
    source: Path, target: Path, inputs: Sequence[dict[str, np.ndarray]], excluded: list[str]
) -> None:
    try:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ImportError as error:
        raise UserError("quantisation needs ONNX Runtime: pip install onnxruntime") from error

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(inputs)

        def get_next(self) -> Any:
            return next(self.feeds, None)

    with _silence():
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the advice to run another preparation first: this package's graphs are prepared."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def version() -> str:
    """What the files' metadata say of their maker."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
