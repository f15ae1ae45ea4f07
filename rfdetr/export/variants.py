"""The graph for any number of queries, from the graphs for fewest and for most."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def between(
    low: "onnx.ModelProto", high: "onnx.ModelProto", queries: tuple[int, int], wanted: int
) -> "onnx.ModelProto | None":
    """The graph for `wanted` queries from the graphs for fewer and for more, or None if they do not determine
    it.

    Query dropping keeps the first ranks (Appendix B), so two graphs that differ in queries only have the same
    nodes, and their constants differ in two ways: whole numbers (sizes) that are linear in the number of
    queries, and tables with one row per query, of which the smaller holds the first rows. Tracing costs
    seconds, this milliseconds.
    """
    import onnx
    from onnx import numpy_helper

    if [_key(n) for n in low.graph.node] != [_key(n) for n in high.graph.node]:
        return None
    if len(low.graph.initializer) != len(high.graph.initializer):
        return None
    result = onnx.ModelProto()
    result.CopyFrom(high)
    for small, large, target in zip(
        low.graph.initializer, high.graph.initializer, result.graph.initializer, strict=True
    ):
        if small.dims == large.dims and small.raw_data == large.raw_data:
            continue
        a, b = numpy_helper.to_array(small), numpy_helper.to_array(large)
        value = _first_rows(a, b, queries, wanted) if a.shape != b.shape else _linear(a, b, queries, wanted)
        if value is None:
            return None
        del target.dims[:]
        target.dims.extend(value.shape)
        target.raw_data = np.ascontiguousarray(value).tobytes()
    for output in result.graph.output:
        dims = output.type.tensor_type.shape.dim
        if len(dims) > 1 and dims[1].dim_value == queries[1]:
            dims[1].dim_value = wanted
    return result


def _key(node: Any) -> tuple[Any, ...]:
    attributes = tuple(a.SerializeToString(deterministic=True) for a in node.attribute)
    return node.op_type, node.domain, node.name, tuple(node.input), tuple(node.output), attributes


def _linear(a: np.ndarray, b: np.ndarray, queries: tuple[int, int], wanted: int) -> np.ndarray | None:
    if a.dtype.kind not in "iu":
        return None
    few, many = queries
    steps = (b - a) * (wanted - few)
    return a + steps // (many - few) if not (steps % (many - few)).any() else None


def _first_rows(a: np.ndarray, b: np.ndarray, queries: tuple[int, int], wanted: int) -> np.ndarray | None:
    few, many = queries
    if a.ndim != b.ndim:
        return None
    differing = [axis for axis in range(a.ndim) if a.shape[axis] != b.shape[axis]]
    if any((a.shape[axis], b.shape[axis]) != (few, many) for axis in differing):
        return None

    def rows(count: int) -> np.ndarray:
        return b[tuple(slice(count if axis in differing else None) for axis in range(b.ndim))]

    return rows(wanted) if np.array_equal(rows(few), a) else None
