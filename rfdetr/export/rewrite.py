"""Rewrites of a traced graph: the same function with fewer operators, in forms that runtimes fuse.

Every rewrite looks for a pattern and leaves the graph alone where it does not find it, so a network that is
traced in another way is exported correctly, only with more nodes. Rounding may change in the last bits;
`export` compares the file with the network. All work on the protobuf graph as it comes from the exporter,
with shapes in `value_info`.
"""

from typing import Any

import numpy as np

from rfdetr.export.editor import Editor

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
_UNARY = ("Relu", "Erf", "Sigmoid", "Tanh", "Sqrt", "Exp")


def rewrite(graph: Any) -> None:
    """All rewrites, in place. `graph` must hold `value_info`, or those that need shapes do nothing."""
    fuse_gelu(Editor(graph))
    split_products(Editor(graph))
    transpose_keys(Editor(graph))
    fold_scales(Editor(graph))
    flatten_tokens(Editor(graph))


def fuse_gelu(editor: Editor) -> None:
    """Turn x * (0.5 * (1 + erf)) into (x * (1 + erf)) * 0.5, the form that runtimes know as one operator.

    The result is the same to the last bit, as one half is a power of two.
    """
    scalars = {name: float(value) for name, value in editor.constants.items() if not value.shape}
    for last in editor.graph.node:
        if last.op_type != "Mul":
            continue
        for x, halved in (tuple(last.input), tuple(last.input)[::-1]):
            first = editor.made_by(halved, "Mul")
            if first is None or sorted(scalars.get(i, 0.0) for i in first.input) != [0.0, 0.5]:
                continue
            half, one_plus = sorted(first.input, key=lambda i: scalars.get(i, 0.0), reverse=True)
            added = editor.made_by(one_plus, "Add")
            if added is not None and any(editor.made_by(i, "Erf") for i in added.input):
                first.input[:] = [x, one_plus]
                last.input[:] = [halved, half]
                break


def _linear(editor: Editor, name: str) -> tuple[Any, Any, str, str] | None:
    """(MatMul, Add, weight, bias) of a tensor made by a product with a constant matrix and a constant
    bias.
    """
    added = editor.made_by(name, "Add")
    if added is None or not editor.only_use(name):
        return None
    for product, bias in (tuple(added.input), tuple(added.input)[::-1]):
        matmul = editor.made_by(product, "MatMul")
        if matmul is None or bias not in editor.constants or not editor.only_use(product):
            continue
        weight = matmul.input[1]
        if editor.constants.get(weight, np.empty(0)).ndim == 2 and editor.constants[bias].ndim == 1:
            return matmul, added, weight, bias
    return None


def split_products(editor: Editor) -> None:
    """One product whose result is cut into parts (queries, keys, values) becomes one product per part.

    The parts need no copy then. Two patterns: product, Split of the last axis; and product, Reshape to [...,
    P, H, D], Transpose that brings P to the front, Slice and Squeeze of each part.
    """
    gone: list[Any] = []
    for node in list(editor.graph.node):
        if node.op_type == "Split":
            gone += _split_last_axis(editor, node)
        elif node.op_type == "Transpose":
            gone += _split_parts(editor, node)
    editor.remove(gone)


def _split_last_axis(editor: Editor, split: Any) -> list[Any]:
    found = _linear(editor, split.input[0])
    shape = editor.shapes.get(split.input[0], ())
    axis = editor.attribute(split, "axis") or 0
    if found is None or not shape or axis not in (-1, len(shape) - 1):
        return []
    matmul, added, weight, bias = found
    width = editor.constants[weight].shape[1]
    if len(split.input) > 1:
        if split.input[1] not in editor.constants:
            return []
        sizes = editor.constants[split.input[1]].tolist()
    else:
        sizes = [width // len(split.output)] * len(split.output)
    ends = np.cumsum(sizes)
    if ends[-1] != width:
        return []
    for output, end, size in zip(split.output, ends, sizes, strict=True):
        part = slice(int(end - size), int(end))
        product = editor.add(
            "MatMul", [matmul.input[0], editor.constant(editor.constants[weight][:, part])], matmul
        )
        editor.add("Add", [product, editor.constant(editor.constants[bias][part])], added, output)
        editor.shapes[product] = (*shape[:-1], size)
    return [matmul, added, split]


def _split_parts(editor: Editor, transpose: Any) -> list[Any]:
    reshape = editor.made_by(transpose.input[0], "Reshape")
    permutation = list(editor.attribute(transpose, "perm") or [])
    if reshape is None or len(permutation) < 3 or not editor.only_use(transpose.input[0]):
        return []
    found, target = _linear(editor, reshape.input[0]), editor.constants.get(reshape.input[1])
    if found is None or target is None or len(target) != len(permutation):
        return []
    matmul, added, weight, bias = found
    axis, parts = permutation[0], int(target[permutation[0]])
    matrix, offset = editor.constants[weight], editor.constants[bias]
    inner = int(np.prod(target[axis + 1 :]))
    uses = editor.consumers[transpose.output[0]]
    # The parts must be the slowest of the axes that the product's columns are made of.
    if inner * parts != matrix.shape[1] or len(uses) != parts or transpose.output[0] in editor.outputs:
        return []
    squeezes: dict[int, tuple[Any, Any]] = {}
    for use in uses:
        bounds = [editor.constants.get(i, np.empty(0)).tolist() for i in use.input[1:]]
        after = editor.consumers[use.output[0]]
        if use.op_type != "Slice" or len(after) != 1 or after[0].op_type != "Squeeze":
            return []
        if len(bounds) < 3 or bounds[2] != [0] or bounds[1] != [bounds[0][0] + 1]:
            return []
        if editor.constants.get(after[0].input[1], np.empty(0)).tolist() != [0]:
            return []
        squeezes[bounds[0][0]] = (use, after[0])
    if sorted(squeezes) != list(range(parts)):
        return []
    shape = np.delete(target, axis)
    order = [a - (a > axis) for a in permutation[1:]]
    source = editor.shapes.get(matmul.output[0], ())
    for part, (_, squeeze) in sorted(squeezes.items()):
        columns = slice(part * inner, (part + 1) * inner)
        product = editor.add("MatMul", [matmul.input[0], editor.constant(matrix[:, columns])], matmul)
        biased = editor.add("Add", [product, editor.constant(offset[columns])], added)
        heads = editor.add("Reshape", [biased, editor.constant(shape)], reshape, allowzero=1)
        editor.add("Transpose", [heads], transpose, squeeze.output[0], perm=order)
        for name in (product, biased):
            if source:
                editor.shapes[name] = (*source[:-1], inner)
                _describe(editor, name)
    return [matmul, added, reshape, transpose, *(n for pair in squeezes.values() for n in pair)]


def _describe(editor: Editor, name: str) -> None:
    """Write the known shape of a new tensor into the graph, for the rewrites that follow."""
    from onnx import TensorProto, helper

    editor.graph.value_info.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(editor.shapes[name]))
    )


def transpose_keys(editor: Editor) -> None:
    """[B, H, N, D] by Reshape, Transpose and Reshape to [B, H, D, N] is one Transpose, which runtimes
    fuse.
    """
    gone: list[Any] = []
    for last in list(editor.graph.node):
        if last.op_type != "Reshape":
            continue
        middle = editor.made_by(last.input[0], "Transpose")
        first = editor.made_by(middle.input[0], "Reshape") if middle is not None else None
        if first is None or not editor.only_use(last.input[0]) or not editor.only_use(middle.input[0]):
            continue
        before, after = editor.shapes.get(first.input[0], ()), editor.shapes.get(last.output[0], ())
        if len(before) != 4 or (*before[:2], before[3], before[2]) != after:
            continue
        if editor.attribute(middle, "perm") == [0, 2, 1]:
            editor.add("Transpose", [first.input[0]], middle, last.output[0], perm=[0, 1, 3, 2])
            gone += [first, middle, last]
    editor.remove(gone)


def fold_scales(editor: Editor) -> None:
    """(s q) (t k)^T with scalars s, t becomes q' k^T, where the product that makes q' has s t in its
    weights.
    """
    gone: list[Any] = []
    for node in list(editor.graph.node):
        if node.op_type != "MatMul":
            continue
        first, second = (_scaled(editor, name) for name in node.input)
        if first is None or second is None:
            continue
        (left, query, s), (right, key, t) = first, second
        name = query
        while (step := editor.producer.get(name)) is not None and step.op_type in ("Reshape", "Transpose"):
            if not editor.only_use(name):
                break
            name = step.input[0]
        found = _linear(editor, name)
        if found is None:
            continue
        matmul, added, weight, bias = found
        factor = np.float32(s * t)
        matmul.input[1] = editor.constant(editor.constants[weight] * factor)
        for index, constant in enumerate(added.input):
            if constant == bias:
                added.input[index] = editor.constant(editor.constants[bias] * factor)
        node.input[:] = [query, key]
        gone += [left, right]
    editor.remove(gone)


def _scaled(editor: Editor, name: str) -> tuple[Any, str, float] | None:
    """(Mul, tensor, scalar) of a tensor that is another one times a constant."""
    node = editor.made_by(name, "Mul")
    if node is None or not editor.only_use(name):
        return None
    for tensor, scalar in (tuple(node.input), tuple(node.input)[::-1]):
        value = editor.constants.get(scalar)
        if value is not None and value.size == 1:
            return node, tensor, float(value.reshape(()))
    return None


def flatten_tokens(editor: Editor) -> None:
    """Operators that treat every token alike work on [B * N, C] instead of [B, N, C].

    A product with a matrix then is a plain one, without the reshapes that runtimes put around it. Only groups
    of connected operators with a product among them are changed.
    """
    members = {id(n): n for n in editor.graph.node if _treats_tokens_alike(editor, n)}
    groups = _groups(editor, members)
    inside = {id(n) for group in groups if any(n.op_type == "MatMul" for n in group) for n in group}
    made_inside = {name for n in members.values() if id(n) in inside for name in n.output}
    flat: dict[str, str] = {}
    for node in list(editor.graph.node):
        if id(node) not in inside:
            continue
        for index, name in enumerate(node.input):
            if len(editor.shapes.get(name, ())) != 3 or name in editor.constants:
                continue
            if name not in made_inside and name not in flat:
                target = editor.constant(np.array([-1, editor.shapes[name][2]]))
                flat[name] = editor.add("Reshape", [name, target], node, allowzero=1)
            node.input[index] = flat.get(name, f"{name}_flat")
        for index, name in enumerate(node.output):
            shape = editor.shapes[name]
            node.output[index] = f"{name}_flat"
            readers = [n for n in editor.consumers[name] if id(n) not in inside]
            if readers or name in editor.outputs:
                target = editor.constant(np.array([-1, shape[1], shape[2]]))
                editor.add("Reshape", [f"{name}_flat", target], node, name, allowzero=1)
    _join_reshapes(Editor(editor.graph))


def _treats_tokens_alike(editor: Editor, node: Any) -> bool:
    """Whether a node's result for a token depends on that token alone, for inputs [B, N, C]."""
    shape = editor.shapes.get(node.output[0], ()) if len(node.output) == 1 else ()
    if len(shape) != 3 or not all(isinstance(d, int) and d > 0 for d in shape[1:]):
        return False
    first = editor.shapes.get(node.input[0], ())
    if node.op_type in _UNARY:
        return first == shape
    if node.op_type == "LayerNormalization":
        return first == shape and editor.attribute(node, "axis") in (-1, 2)
    if node.op_type == "MatMul":
        weight = editor.constants.get(node.input[1])
        return len(first) == 3 and weight is not None and weight.ndim == 2
    if node.op_type in _ELEMENTWISE:
        for name in node.input:
            value = editor.constants.get(name)
            small = value is not None and (value.ndim == 1 or value.size == 1) and value.ndim < 3
            if not small and (value is not None or editor.shapes.get(name, ()) != shape):
                return False
        return any(name not in editor.constants for name in node.input)
    return False


def _groups(editor: Editor, members: dict[int, Any]) -> list[list[Any]]:
    """Connected groups of the members: one makes what another reads."""
    groups, seen = [], set()
    for start in members.values():
        if id(start) in seen:
            continue
        group, stack = [], [start]
        seen.add(id(start))
        while stack:
            node = stack.pop()
            group.append(node)
            made = [editor.producer.get(name) for name in node.input]
            read = [n for name in node.output for n in editor.consumers[name]]
            for other in (*made, *read):
                if other is not None and id(other) in members and id(other) not in seen:
                    seen.add(id(other))
                    stack.append(other)
        groups.append(group)
    return groups


def _join_reshapes(editor: Editor) -> None:
    """A Reshape of a Reshape needs the last one only."""
    for node in editor.graph.node:
        target = editor.constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None or (not editor.attribute(node, "allowzero") and (target == 0).any()):
            continue
        while (before := editor.made_by(node.input[0], "Reshape")) is not None:
            node.input[0] = before.input[0]
