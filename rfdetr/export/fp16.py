"""FP16 files: a conversion that keeps coordinates and named nodes in FP32, and its emulation on a processor.

A converted file is another artifact with its own SHA-256: its accuracy has to be measured, it is not that of
the FP32 file. Which nodes leave FP16's range is found by running the graph, `rfdetr.benchmark.fp16`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.export.graph import in_order_of_use
from rfdetr.export.onnx import write_graph

# Positions and ranks: a token grid of side n needs steps far below 1/n, and FP16 has 11 bits.
KEPT_OPERATORS = ("TopK", "GridSample", "Resize", "Sin", "Cos")
# What computes features; everything between its result and a coordinate is arithmetic on coordinates.
_FEATURES = ("MatMul", "Gemm", "Conv", "Einsum", "LayerNormalization", "Softmax", *KEPT_OPERATORS)


def coordinate_nodes(graph: Any) -> list[str]:
    """Names of the nodes that make coordinates out of a network's predictions.

    These are all nodes between the last product and where a coordinate is used: the positions that GridSample
    reads, and the output `boxes`. In FP16 they would round every position to 1/2048 of the picture, although
    GridSample itself runs in FP32; the offsets that the products predict are small and lose nothing.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    todo = [node.input[1] for node in graph.node if node.op_type == "GridSample"]
    todo += [output.name for output in graph.output if output.name == "boxes"]
    found: dict[str, None] = {}
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node.name not in found and node.op_type not in _FEATURES:
            found[node.name] = None
            todo += node.input
    return [node.name for node in graph.node if node.name in found]


def to_fp16(artifact: Artifact, path: str | Path, keep: Sequence[str] = ()) -> Artifact:
    """Convert an FP32 ONNX file to FP16 weights and activations; inputs and outputs stay FP32.

    keep: names of nodes that stay in FP32 because of their range (`rfdetr.benchmark.fp16.nodes_to_keep`).
    Selection, sampling, resizing, the sine embedding and the arithmetic of coordinates (`coordinate_nodes`)
    always do. The file says its precision (fp16), its source's SHA-256 and the nodes of `keep`.
    """
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
    own = {n.name for n in model.graph.node}
    unknown = sorted(set(keep) - own)
    if unknown:
        raise UserError(f"the graph has no node {', '.join(unknown[:5])}")
    converted: Any = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_OPERATORS],
        node_block_list=sorted({*keep, *coordinate_nodes(model.graph)}),
    )
    del converted.graph.value_info[:]
    _clean_casts(converted.graph, own)
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


def _clean_casts(graph: Any, own: set[str]) -> None:
    """Repair what the converter does around nodes that stay in FP32. own: nodes of the FP32 graph.

    It casts a tensor once per such reader under one name, which is no valid graph: the first cast is kept.
    And it takes a tensor between two such nodes through FP16, where the very values overflow that the nodes
    were kept for. A cast of the graph's own (of counts or of a mask, say) is then from that type to FP32.
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
    lowered = {n.output[0]: n for n in casts if target(n) == onnx.TensorProto.FLOAT16}
    outputs = {o.name for o in graph.output}
    direct = {}
    for node in casts:
        if target(node) == onnx.TensorProto.FLOAT and node.input[0] in lowered:
            maker = lowered[node.input[0]]
            if maker.name in own:
                node.input[0] = maker.input[0]
            elif node.output[0] not in outputs:
                direct[node.output[0]] = maker.input[0]
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
    rounded to FP16, and so are the sums inside layer normalisations and means.

    ONNX Runtime has few FP16 operators for processors and keeps what lies between two others in FP32, so it
    neither rounds nor overflows where a device with FP16 arithmetic would. This graph does. Two limits: sums
    inside a product are FP32, as on tensor cores, and inside operators other than LayerNormalization,
    ReduceMean and ReduceL2 nothing is rounded but the result. A device that adds up normalisations in FP32
    does better than this. It is a way to execute the file on a processor, slowly, and no other artifact.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(artifact.file)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    known = [*inferred.graph.value_info, *model.graph.output, *model.graph.input]
    half = {v.name for v in known if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    rounded = _Rounded(model.graph, shapes)
    for node in list(model.graph.node):
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                value = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
        rounded.add(node, half)
    _replace_nodes(model.graph, rounded.nodes)
    return model.SerializeToString()


class _Rounded:
    """The nodes of an emulated graph: every result of a node that is half is rounded."""

    def __init__(self, graph: Any, shapes: dict[str, list[int]]) -> None:
        self.nodes: list[Any] = []
        self._graph, self._shapes = graph, shapes
        self._values = {t.name: t for t in graph.initializer}

    def add(self, node: Any, half: set[str]) -> None:
        """A node of the file; its sums are taken apart where it has such inside and is half itself."""
        apart = node.output[0] in half and len(node.output) == 1 and self._summed(node)
        if apart and node.op_type == "LayerNormalization":
            self._layer_norm(node)
        elif apart and node.op_type in ("ReduceMean", "ReduceL2"):
            self._reduced(node)
        else:
            self.nodes.append(node)
            for index, name in enumerate(node.output):
                if name in half:
                    node.output[index] = f"{name}/exact"
                    self._round(f"{name}/exact", name)

    def _summed(self, node: Any) -> bool:
        """Whether the node sums inside, over a number of values that is known."""
        shape = self._shapes.get(node.input[0], [])
        axes = sum_axes(node, self._values, len(shape)) if shape else []
        return bool(axes) and all(shape[a] > 0 for a in axes)

    def _round(self, name: str, result: str) -> None:
        from onnx import TensorProto, helper

        self.nodes.append(helper.make_node("Cast", [name], [f"{result}/half"], to=TensorProto.FLOAT16))
        self.nodes.append(helper.make_node("Cast", [f"{result}/half"], [result], to=TensorProto.FLOAT))

    def _compute(self, operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [f"{result}/exact"], **attributes))
        self._round(f"{result}/exact", result)
        return result

    def _constant(self, name: str, value: float | list[int]) -> str:
        from onnx import numpy_helper

        array = np.array(value, dtype=np.int64 if isinstance(value, list) else np.float32)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _layer_norm(self, node: Any) -> None:
        attributes = {a.name: a for a in node.attribute}
        shape, out = self._shapes[node.input[0]], node.output[0]
        over = sum_axes(node, self._values, len(shape))
        axes = self._constant(f"{out}/axes", over)
        count = self._constant(f"{out}/count", float(np.prod([shape[a] for a in over])))
        tiny = self._constant(f"{out}/epsilon", attributes["epsilon"].f if "epsilon" in attributes else 1e-5)

        def mean(name: str, result: str) -> str:
            total = self._compute("ReduceSum", [name, axes], f"{result}/sum", keepdims=1)
            return self._compute("Div", [total, count], result)

        apart = self._compute("Sub", [node.input[0], mean(node.input[0], f"{out}/mean")], f"{out}/apart")
        square = self._compute("Mul", [apart, apart], f"{out}/square")
        variance = self._compute("Add", [mean(square, f"{out}/variance"), tiny], f"{out}/variance+")
        deviation = self._compute("Sqrt", [variance], f"{out}/deviation")
        steps = [("Div", deviation), ("Mul", node.input[1]), *(("Add", n) for n in node.input[2:3])]
        value = apart
        for number, (operator, other) in enumerate(steps):
            last = number == len(steps) - 1
            value = self._compute(operator, [value, other], out if last else f"{out}/step{number}")

    def _reduced(self, node: Any) -> None:
        """A mean or a Euclidean norm as the rounded sum and what is done with it."""
        shape, out = self._shapes[node.input[0]], node.output[0]
        axes = sum_axes(node, self._values, len(shape))
        wanted = self._constant(f"{out}/axes", axes)
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        value = node.input[0]
        if node.op_type == "ReduceL2":
            value = self._compute("Mul", [value, value], f"{out}/square")
        total = self._compute("ReduceSum", [value, wanted], f"{out}/sum", keepdims=keep)
        if node.op_type == "ReduceL2":
            self._compute("Sqrt", [total], out)
        else:
            count = self._constant(f"{out}/count", float(np.prod([shape[a] for a in axes])))
            self._compute("Div", [total, count], out)


def sum_axes(node: Any, constants: dict[str, Any], rank: int) -> list[int]:
    """The axes over which an operator sums inside, counted from 0; [] for one that has no sum inside.

    Of normalisations and of reductions to means and norms. constants: the graph's initializers by name.
    """
    from onnx import helper, numpy_helper

    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind = node.op_type
    if kind in ("LayerNormalization", "RMSNormalization"):
        return list(range(given.get("axis", -1) % rank, rank))
    if kind in ("InstanceNormalization", "GlobalAveragePool", "GroupNormalization"):
        return list(range(2, rank))
    if kind == "LpNormalization":
        return [given.get("axis", -1) % rank]
    if kind in ("ReduceMean", "ReduceL2"):
        axes = given.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        return sorted(a % rank for a in axes) if axes else list(range(rank))
    return []


def _replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    # Nodes that are taken out of a graph are gone, so they are copied first.
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
