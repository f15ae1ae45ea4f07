"""FP16 artifacts: which tensors leave FP16's range, and a conversion that keeps those in FP32.

A converted file is another artifact with its own SHA-256: its accuracy has to be measured, it is not that of
the FP32 file. Context: Table 1, where a naive FP16 export of D-FINE loses everything (0.5 AP).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.export.graph import in_order_of_use
from rfdetr.export.onnx import write_graph

if TYPE_CHECKING:
    import pandas as pd

FP16_MAX = 65504.0
# Sums of squares inside these are computed in FP16 by some runtimes although only their result can be seen.
_SQUARING = (
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "ReduceL2",
    "LpNormalization",
)
# Positions and ranks: a token grid of side n needs steps far below 1/n, and FP16 has 11 bits.
_KEPT_OPERATORS = ("TopK", "GridSample", "Resize", "Sin", "Cos")


def ranges(
    artifact: Artifact, inputs: Iterable[dict[str, np.ndarray]], limit: float = FP16_MAX
) -> "pd.DataFrame":
    """Run the graph in FP32 and report the largest magnitude of every floating-point tensor, largest first.

    inputs: one dict of arrays per pass; use real images, noise does not reach the same ranges. Columns:
    tensor, node, operator, max_abs, beyond (over `limit`, or not finite), inside_max (largest square summed
    inside a normalisation, which overflows in a runtime that normalises in FP16) and inside_beyond. Weights
    have node "" and operator "weight".
    """
    import onnx
    import onnxruntime
    import pandas as pd

    model = onnx.load(artifact.file)
    inferred = onnx.shape_inference.infer_shapes(model)
    float_type = onnx.TensorProto.FLOAT
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    types |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    outputs = {o.name for o in model.graph.output}
    producer = {name: node for node in model.graph.node for name in node.output if name}
    watched = [name for name in producer if types.get(name) == float_type]
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
    largest = dict.fromkeys(watched, 0.0)
    passes = 0
    for feed in inputs:
        passes += 1
        for name, value in zip(watched, session.run(watched, feed), strict=True):
            magnitude = float(np.abs(value).max(initial=0.0)) if np.isfinite(value).all() else np.inf
            largest[name] = max(largest[name], magnitude)
    if not passes:
        raise UserError("the ranges of a graph can only be seen with inputs; give at least one")

    rows = []
    for name in watched:
        node = producer[name]
        read = largest.get(node.input[0], 0.0) if node.input else 0.0
        inside = read**2 if node.op_type in _SQUARING else 0.0
        rows.append((name, node.name, node.op_type, largest[name], inside))
    for tensor in model.graph.initializer:
        if tensor.data_type == float_type:
            value = onnx.numpy_helper.to_array(tensor)
            rows.append((tensor.name, "", "weight", float(np.abs(value).max(initial=0.0)), 0.0))
    frame = pd.DataFrame(rows, columns=["tensor", "node", "operator", "max_abs", "inside_max"])
    frame["beyond"] = frame["max_abs"] > limit
    frame["inside_beyond"] = frame["inside_max"] > limit
    return frame.sort_values("max_abs", ascending=False, ignore_index=True)


def nodes_to_keep(artifact: Artifact, table: "pd.DataFrame") -> list[str]:
    """Names of the nodes that must stay in FP32: those that make or read a tensor beyond the range."""
    import onnx

    graph = onnx.load(artifact.file, load_external_data=False).graph
    beyond = set(table.loc[table["beyond"], "tensor"])
    inside = set(table.loc[table["inside_beyond"], "node"])
    return [
        n.name
        for n in graph.node
        if n.name in inside or beyond.intersection(n.output) or beyond.intersection(n.input)
    ]


def to_fp16(artifact: Artifact, path: str | Path, keep: Sequence[str] = ()) -> Artifact:
    """Convert an FP32 ONNX file to FP16 weights and activations; inputs and outputs stay FP32.

    keep: names of nodes that stay in FP32 (`nodes_to_keep`). Selection, sampling, resizing and the sine
    embedding always do. The file says its precision (fp16), its source's SHA-256 and the kept nodes.
    """
    import json

    import onnx

    if artifact.format != "onnx" or artifact.precision not in ("fp32", "unknown"):
        raise UserError(
            f"only FP32 ONNX files can be converted, not {artifact.name} ({artifact.format},"
            f" {artifact.precision})"
        )
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise UserError("the FP16 conversion needs ONNX Runtime: pip install onnxruntime") from error
    model = onnx.load(artifact.file)
    unknown = sorted(set(keep) - {n.name for n in model.graph.node})
    if unknown:
        raise UserError(f"the graph has no node {', '.join(unknown[:5])}")
    converted: Any = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_OPERATORS],
        node_block_list=list(keep),
    )
    del converted.graph.value_info[:]
    _clean_casts(converted.graph)
    # The converter puts casts at the end, but a valid graph makes every tensor before it is read.
    nodes = in_order_of_use(converted.graph, [o.name for o in converted.graph.output])
    _replace_nodes(converted.graph, nodes)
    metadata = dict(artifact.metadata) | {
        "precision": "fp16",
        "fp32_sha256": artifact.sha256,
        "kept_in_fp32": json.dumps(sorted(keep)),
    }
    write_graph(converted, path, metadata)
    return load_artifact(path)


def _clean_casts(graph: Any) -> None:
    """Repair what the converter does around nodes that stay in FP32.

    It casts a tensor once per such reader under one name, which is no valid graph: the first cast is kept.
    And it takes a tensor between two such nodes through FP16, where the very values overflow that the nodes
    were kept for.
    """
    import onnx

    seen: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            graph.node.remove(node)
        seen.update(node.output)

    def target(node: Any) -> int:
        return next(a.i for a in node.attribute if a.name == "to")

    casts = [n for n in graph.node if n.op_type == "Cast"]
    lowered = {n.output[0]: n.input[0] for n in casts if target(n) == onnx.TensorProto.FLOAT16}
    outputs = {o.name for o in graph.output}
    direct = {}
    for node in casts:
        if target(node) == onnx.TensorProto.FLOAT and node.input[0] in lowered:
            if node.output[0] in outputs:
                continue
            direct[node.output[0]] = lowered[node.input[0]]
            graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = direct.get(name, name)
    read = {name for node in graph.node for name in node.input} | outputs
    for node in casts:
        if node.output[0] not in read and node.output[0] not in direct:
            graph.node.remove(node)


def emulated(artifact: Artifact) -> bytes:
    """The graph of an FP16 file with FP32 operators, in which every tensor that is FP16 in the file is
    rounded to FP16.

    ONNX Runtime has few FP16 operators for processors and keeps what lies between two others in FP32, so it
    neither rounds nor overflows where a device with FP16 arithmetic would. This graph does (sums inside a
    product are FP32, as on tensor cores). It is a way to execute the file on a processor, slowly, and no
    other artifact.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(artifact.file)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    half = {v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    half |= {o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    nodes = []
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                value = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index] = f"{name}/exact"
                nodes.append(
                    helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], to=TensorProto.FLOAT16)
                )
                nodes.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    _replace_nodes(model.graph, nodes)
    return model.SerializeToString()


def _replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    # Nodes that are taken out of a graph are gone, so they are copied first.
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def to_fp16_safely(
    artifact: Artifact, path: str | Path, inputs: Sequence[dict[str, np.ndarray]]
) -> "tuple[Artifact, pd.DataFrame]":
    """Find what leaves FP16's range on `inputs`, convert with those nodes in FP32; returns the file and the
    report.
    """
    table = ranges(artifact, inputs)
    return to_fp16(artifact, path, nodes_to_keep(artifact, table)), table


def output_error(
    artifact: Artifact, reference: Artifact, inputs: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
    """Largest absolute difference of every output of two files over `inputs`; infinite where one is not
    finite.

    FP16 files are emulated. Rounding may swap two queries of nearly the same rank, so compare accuracy too
    (`rfdetr.benchmark.accuracy.evaluate_artifact`).
    """
    from rfdetr.benchmark.runtimes import load_runtime

    names = [o.name for o in artifact.outputs]
    loaded = [
        load_runtime("onnxruntime", a, emulate_fp16=a.precision == "fp16") for a in (artifact, reference)
    ]
    worst = dict.fromkeys(names, 0.0)
    for feed in inputs:
        found, expected = (runtime.run(feed) for runtime in loaded)
        for name in names:
            a, b = found[name], expected[name]
            error = float(np.abs(a - b).max()) if np.isfinite(a).all() and np.isfinite(b).all() else np.inf
            worst[name] = max(worst[name], error)
    return worst
