"""Rewrites of graphs: the same function afterwards, and no change where a pattern is not quite there."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from lab_fixtures import SIZES, exported
from onnx import TensorProto, helper, numpy_helper, parser

from rfdetr.export import rewrite

RANDOM = np.random.default_rng(0)


def graph_of(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.value_info.extend(inferred.graph.value_info)
    return model


def run(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ordered(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def ordered(model: onnx.ModelProto) -> onnx.ModelProto:
    from rfdetr.export.graph import in_order_of_use

    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = in_order_of_use(model.graph, [o.name for o in model.graph.output])
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    return result


def operators(model: onnx.ModelProto) -> Counter:
    return Counter(n.op_type for n in ordered(model).graph.node)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


ATTENTION = """
g (float[2, 5, 8] x) => (float[2, 5, 12] y) {
  p = MatMul(x, w)
  a = Add(p, b)
  r = Reshape(a, shape)
  t = Transpose <perm = [2, 0, 3, 1, 4]> (r)
  q1 = Slice(t, zero, one, zero)
  q = Squeeze(q1, zero)
  k1 = Slice(t, one, two, zero)
  k = Squeeze(k1, zero)
  v1 = Slice(t, two, three, zero)
  v = Squeeze(v1, zero)
  qs = Mul(q, s)
  kr = Reshape(k, flat)
  kt = Transpose <perm = [0, 2, 1]> (kr)
  kb = Reshape(kt, back)
  ks = Mul(kb, s)
  m = MatMul(qs, ks)
  o = Softmax <axis = -1> (m)
  h = MatMul(o, v)
  ht = Transpose <perm = [0, 2, 1, 3]> (h)
  y = Reshape(ht, out)
}"""


def attention() -> onnx.ModelProto:
    shapes = {"shape": [2, 5, 3, 3, 4], "flat": [6, 5, 4], "back": [2, 3, 4, 5], "out": [2, 5, 12]}
    indexes = {"zero": [0], "one": [1], "two": [2], "three": [3]}
    whole = {name: np.array(value) for name, value in {**shapes, **indexes}.items()}
    return graph_of(ATTENTION, w=normal(8, 36), b=normal(36), s=np.array(0.7, np.float32), **whole)


def test_attention_has_a_product_per_part_and_no_scaling() -> None:
    model, x = attention(), normal(2, 5, 8)
    (before,) = run(model, x=x)
    rewrite.rewrite(model.graph)
    (after,) = run(model, x=x)
    np.testing.assert_allclose(after, before, atol=1e-5)
    found = operators(model)
    assert not {"Slice", "Squeeze", "Split", "Mul"} & found.keys()
    # Queries, keys, values and two products between them; a transposition each, one more of the keys, one of
    # the result.
    assert found["MatMul"] == 5 and found["Transpose"] == 5
    # Tokens become rows for the three products; heads are made of each.
    assert found["Reshape"] == 1 + 3 + 1


@pytest.mark.parametrize("change", ["another reader", "a graph output", "another part order", "no constant"])
def test_attention_that_is_not_quite_that_is_left_alone(change: str) -> None:
    model = attention()
    graph = model.graph
    if change == "another reader":
        graph.node.append(helper.make_node("Relu", ["a"], ["extra"]))
        graph.output.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [2, 5, 36]))
    elif change == "a graph output":
        graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [3, 2, 3, 5, 4]))
    elif change == "another part order":
        # The parts lie inside the heads, so no part is a range of columns.
        node = next(n for n in graph.node if n.output[0] == "t")
        node.attribute[0].CopyFrom(helper.make_attribute("perm", [3, 0, 2, 1, 4]))
    else:
        graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [36]))
        del graph.initializer[1]
    feed = {"x": normal(2, 5, 8)} | ({"b": normal(36)} if change == "no constant" else {})
    before = run(model, **feed)
    rewrite.split_products(rewrite.Editor(graph))
    assert operators(model)["MatMul"] == 3
    for a, b in zip(before, run(model, **feed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_split_of_the_last_axis_becomes_products() -> None:
    text = """g (float[2, 5, 8] x) => (float[2, 5, 2] y, float[2, 5, 4] z) {
      p = MatMul(x, w)
      a = Add(b, p)
      y, z = Split <axis = -1> (a, sizes)
    }"""
    model = graph_of(text, w=normal(8, 6), b=normal(6), sizes=np.array([2, 4]))
    x = normal(2, 5, 8)
    before = run(model, x=x)
    rewrite.rewrite(model.graph)
    assert operators(model)["Split"] == 0 and operators(model)["MatMul"] == 2
    for a, b in zip(before, run(model, x=x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_tokens_are_rows_between_what_mixes_them() -> None:
    text = """g (float[2, 5, 8] x, float[2, 5, 8] u) => (float[2, 5, 8] y, float[2, 5, 8] n) {
      n = LayerNormalization <axis = -1> (x, g, b)
      p = MatMul(n, w)
      a = Add(p, b)
      r = Relu(a)
      s = Add(r, u)
      m = ReduceMean <keepdims = 1> (s, axes)
      c = Sub(s, m)
      y = Mul(c, s)
    }"""
    model = graph_of(text, w=normal(8, 8), b=normal(8), g=normal(8), axes=np.array([1]))
    feed = {"x": normal(2, 5, 8), "u": normal(2, 5, 8)}
    before = run(model, **feed)
    rewrite.rewrite(model.graph)
    for a, b in zip(before, run(model, **feed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    rows = onnx.shape_inference.infer_shapes(ordered(model), data_prop=True).graph.value_info
    shapes = {v.name: len(v.type.tensor_type.shape.dim) for v in rows}
    assert [shapes[f"{name}_flat"] for name in "npars"] == [2] * 5
    # x, u and c go in, n, s and y come out; c needs the mean of all tokens and stays as it is.
    assert operators(model)["Reshape"] == 6 and shapes["c"] == 3


def test_operators_without_a_product_are_left_alone() -> None:
    model = graph_of("g (float[2, 5, 8] x) => (float[2, 5, 8] y) { r = Relu(x) y = Erf(r) }")
    rewrite.rewrite(model.graph)
    assert operators(model) == {"Relu": 1, "Erf": 1}


@pytest.mark.parametrize("segmentation", [False, True])
def test_exported_network_has_the_short_forms(segmentation: bool) -> None:
    graph = onnx.load(exported(segmentation).file).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    assert not {"Split", "Squeeze"} & {n.op_type for n in graph.node if "attention" in n.name}
    for index in range(SIZES["depth"]):
        block = [
            n
            for n in graph.node
            if n.name.startswith((f"backbone.blocks.{index}.", f"backbone.blocks.{index}/"))
        ]
        products = [n for n in block if n.op_type == "MatMul" and n.input[1] in constants]
        assert len(products) == 6  # queries, keys, values, output and the two of the perceptron
        assert not any(n.op_type == "Mul" and "attention" in n.name for n in block)
    reshapes = [n for n in graph.node if n.op_type == "Reshape"]
    assert not any(producer.get(n.input[0]) in reshapes for n in reshapes)
