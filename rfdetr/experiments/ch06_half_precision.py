"""FP16 for chapter 06: a file that converts well, and one of the same function that does not.

Source: Table 1 of the paper, where a naive FP16 export of D-FINE loses nearly all of its AP.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rfdetr.arch import Arch
from rfdetr.benchmark import fp16
from rfdetr.export.artifact import Artifact
from rfdetr.export.fp16 import to_fp16
from rfdetr.export.onnx import export_onnx
from rfdetr.model.decoder import DecoderLayer

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

SCALE = 2.0**17
"""A power of two, so that scaling by it rounds nothing, large enough to leave FP16's range."""


@dataclass(frozen=True)
class Halves:
    """An FP32 file, its plain FP16 conversion, the one that keeps overflowing nodes in FP32, and what was
    seen.

    ranges: as `rfdetr.benchmark.fp16.ranges`.
    """

    full: Artifact
    plain: Artifact
    safe: Artifact
    ranges: "pd.DataFrame"

    @property
    def kept(self) -> list[str]:
        """Names of the nodes that `safe` keeps in FP32 because their values leave FP16's range."""
        return json.loads(self.safe.metadata["kept_in_fp32"])


def halves(model: "RFDETR", arch: Arch, folder: Path, inputs: Sequence[dict[str, np.ndarray]]) -> Halves:
    """Export one sub-network and convert it to FP16, plainly and with what overflows on `inputs` kept in
    FP32.
    """
    full = export_onnx(model, arch, folder / f"{arch.id}.onnx")
    plain = to_fp16(full, folder / f"{arch.id}-fp16-plain.onnx")
    safe, ranges = fp16.to_fp16_safely(full, folder / f"{arch.id}-fp16.onnx", inputs)
    return Halves(full, plain, safe, ranges)


def rescaled(model: "RFDETR", factor: float = SCALE) -> "RFDETR":
    """The same function with the hidden units of the decoder's feed-forward layers `factor` times as large.

    Their ReLU does not mind (relu(s x) = s relu(x) for s > 0), and the layer behind it divides by the same
    factor. With a power of two FP32 gives the same outputs to the last bit. Nothing in a training keeps such
    scales away.
    """
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for layer in changed.decoder.layers:
            assert isinstance(layer, DecoderLayer)
            layer.fc1.weight.mul_(factor)
            layer.fc1.bias.mul_(factor)
            layer.fc2.weight.div_(factor)
    return changed


def report(graphs: dict[str, Halves]) -> "pd.DataFrame":
    """One row per graph: graph, largest (tensor), operator, max_abs, tensors, beyond (of them), kept (nodes
    in FP32).
    """
    import pandas as pd

    rows = []
    for name, found in graphs.items():
        top = found.ranges.iloc[0]
        beyond = found.ranges["beyond"] | found.ranges["inside_beyond"]
        rows.append(
            {
                "graph": name,
                "largest": top["node"] or top["tensor"],
                "operator": top["operator"],
                "max_abs": top["max_abs"],
                "tensors": len(found.ranges),
                "beyond": int(beyond.sum()),
                "kept": len(found.kept),
            }
        )
    return pd.DataFrame(rows)


def beyond_range(found: Halves) -> "pd.DataFrame":
    """The tensors that leave FP16's range, largest first: node, operator, max_abs, inside (sum inside a
    norm).
    """
    rows = found.ranges[found.ranges["beyond"] | found.ranges["inside_beyond"]]
    named = rows["node"].where(rows["node"] != "", rows["tensor"])
    return rows.assign(node=named, inside=rows["inside_max"].where(rows["inside_beyond"]))[
        ["node", "operator", "max_abs", "inside"]
    ].reset_index(drop=True)
