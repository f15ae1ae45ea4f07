"""FP16 by running a graph: which tensors and which sums inside operators leave FP16's range.

Context: Table 1, where a naive FP16 export of D-FINE loses everything (0.5 AP). The conversion itself is
`rfdetr.export.fp16`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact
from rfdetr.export.fp16 import sum_axes, to_fp16

if TYPE_CHECKING:
    import pandas as pd

FP16_MAX = 65504.0
_MEANS = ("ReduceMean", "GlobalAveragePool")


def ranges(
    artifact: Artifact, inputs: Iterable[dict[str, np.ndarray]], limit: float = FP16_MAX
) -> "pd.DataFrame":
    """Run the graph in FP32 and report the largest magnitude of every floating-point tensor, largest first.

    inputs: one dict of arrays per pass; use real images, noise does not reach the same ranges. Columns:
    tensor, node, operator, max_abs, beyond (over `limit`, or not finite), inside_max (largest sum formed
    inside a normalisation or mean, of squares or magnitudes, which overflows in a runtime that adds up in
    FP16) and inside_beyond. Weights have node "" and operator "weight", the graph's inputs "input".
    """
    import pandas as pd

    graph, watched, session = _watching(artifact)
    makers = {name: node for node in graph.node for name in node.output if name}
    constants = {t.name: t for t in graph.initializer}
    given = [i.name for i in graph.input if i.name not in constants]
    largest, inside = dict.fromkeys([*given, *watched], 0.0), dict.fromkeys(watched, 0.0)
    passes = 0
    for feed in inputs:
        passes += 1
        values = {**feed, **dict(zip(watched, session.run(watched, feed), strict=True))}
        for name in largest:
            largest[name] = max(largest[name], _largest(values[name]))
        for name in watched:
            node = makers[name]
            if node.input and node.input[0] in values:
                inside[name] = max(inside[name], _largest_sum(node, values[node.input[0]], constants))
    if not passes:
        raise UserError("the ranges of a graph can only be seen with inputs; give at least one")
    rows = [(name, "", "input", largest[name], 0.0) for name in given if _is_float(feed[name])]
    rows += [(n, makers[n].name, makers[n].op_type, largest[n], inside[n]) for n in watched]
    rows += _weights(graph)
    frame = pd.DataFrame(rows, columns=["tensor", "node", "operator", "max_abs", "inside_max"])
    frame["beyond"] = frame["max_abs"] > limit
    frame["inside_beyond"] = frame["inside_max"] > limit
    return frame.sort_values("max_abs", ascending=False, ignore_index=True, kind="stable")


def _watching(artifact: Artifact) -> tuple[Any, list[str], Any]:
    """The graph, the names of its computed floating-point tensors, and a session that gives all of them."""
    import onnx
    import onnxruntime

    model = onnx.load(artifact.file)
    inferred = onnx.shape_inference.infer_shapes(model)
    float_type = onnx.TensorProto.FLOAT
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    types |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    outputs = {o.name for o in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    watched = [name for name in made if types.get(name) == float_type]
    for name in watched:
        if name not in outputs:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, float_type, None))
    options = onnxruntime.SessionOptions()
    # Otherwise fused operators would hide the tensors between their parts.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return model.graph, watched, session


def _is_float(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.floating)


def _largest(value: np.ndarray) -> float:
    if not _is_float(value):
        return 0.0
    return float(np.abs(value).max(initial=0.0)) if np.isfinite(value).all() else np.inf


def _largest_sum(node: Any, value: np.ndarray, constants: dict[str, Any]) -> float:
    """Largest sum that a runtime may form inside the operator: of magnitudes, for norms also of squares."""
    axes = sum_axes(node, constants, value.ndim)
    if not axes or not value.size or not _is_float(value):
        return 0.0
    if not np.isfinite(value).all():
        return np.inf
    value = np.abs(value.astype(np.float64))
    if node.op_type == "GroupNormalization":
        groups = next(a.i for a in node.attribute if a.name == "num_groups")
        value, axes = value.reshape(value.shape[0], groups, -1), [2]
    largest = value.sum(axis=tuple(axes)).max()
    if node.op_type not in _MEANS:
        largest = max(largest, np.square(value).sum(axis=tuple(axes)).max())
    return float(largest)


def _weights(graph: Any) -> list[tuple[str, str, str, float, float]]:
    import onnx

    return [
        (t.name, "", "weight", float(np.abs(onnx.numpy_helper.to_array(t)).max(initial=0.0)), 0.0)
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT
    ]


def nodes_to_keep(artifact: Artifact, table: "pd.DataFrame") -> list[str]:
    """Names of the nodes that must stay in FP32: those that make or read a tensor beyond the range, or sum
    beyond it inside.
    """
    import onnx

    graph = onnx.load(artifact.file, load_external_data=False).graph
    beyond = set(table.loc[table["beyond"], "tensor"])
    inside = set(table.loc[table["inside_beyond"], "node"])
    return [
        n.name
        for n in graph.node
        if n.name in inside or beyond.intersection(n.output) or beyond.intersection(n.input)
    ]


def to_fp16_safely(
    artifact: Artifact, path: str | Path, inputs: Sequence[dict[str, np.ndarray]]
) -> "tuple[Artifact, pd.DataFrame]":
    """Find what leaves FP16's range on `inputs`, convert with those nodes in FP32; returns the file and the
    report.
    """
    table = ranges(artifact, inputs)
    return to_fp16(artifact, path, nodes_to_keep(artifact, table)), table
