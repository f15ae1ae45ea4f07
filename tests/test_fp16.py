import json

import numpy as np
import onnx
import pytest
from lab_fixtures import exported, network, output_error
from onnx import numpy_helper

from rfdetr.benchmark.fp16 import nodes_to_keep, ranges, to_fp16_safely
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import load_artifact
from rfdetr.export.fp16 import coordinate_nodes, emulated, to_fp16
from rfdetr.export.onnx import cpu_session


@pytest.fixture(scope="module")
def artifact():
    return exported()


def feeds(count: int = 2):
    random = np.random.default_rng(0)
    return [{"images": random.standard_normal((1, 3, 48, 48)).astype(np.float32)} for _ in range(count)]


def best(half, full) -> float:
    """The error on the image that suffers least: where no two queries of nearly equal rank change places."""
    return min(max(output_error(half, full, [feed]).values()) for feed in feeds(8))


@pytest.fixture(scope="module")
def overflowing(artifact, tmp_path_factory):
    """The same function, with one tensor of the backbone at 1e6 times its scale: too large for FP16."""
    model = onnx.load(artifact.file)
    norm = "backbone.blocks.1.norm2/LayerNormalization.out"
    index, node = next((i, n) for i, n in enumerate(model.graph.node) if norm in n.input)
    assert node.op_type == "MatMul"
    output, node.output[0] = node.output[0], "plain"
    for offset, (name, factor, read, written) in enumerate(
        [("up/Mul", 1e6, "plain", "large"), ("down/Mul", 1e-6, "large", output)]
    ):
        model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"{name}:1"))
        model.graph.node.insert(
            index + 1 + offset, onnx.helper.make_node("Mul", [read, f"{name}:1"], [written], name=name)
        )
    path = tmp_path_factory.mktemp("overflow") / "big.onnx"
    onnx.save(model, path)
    return load_artifact(path), {"up/Mul", "down/Mul"}


def test_a_healthy_graph_stays_in_range_and_converts(artifact, tmp_path) -> None:
    table = ranges(artifact, feeds())
    assert not table["beyond"].any() and table["max_abs"].is_monotonic_decreasing
    assert {"logits", "boxes"} <= set(table["tensor"])
    half = to_fp16(artifact, tmp_path / "half.onnx")
    assert half.precision == "fp16" and half.sha256 != artifact.sha256
    assert half.metadata["fp32_sha256"] == artifact.sha256 and half.arch == artifact.arch
    assert half.inputs == artifact.inputs and half.outputs == artifact.outputs
    onnx.checker.check_model(str(half.file), full_check=True)
    types = {t.data_type for t in onnx.load(half.file).graph.initializer if len(t.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in types
    assert half.file.stat().st_size < 0.75 * artifact.file.stat().st_size
    assert best(half, artifact) < 0.1


def test_ranges_are_those_of_the_tensors(artifact) -> None:
    table = ranges(artifact, feeds(1)).set_index("tensor")
    logits, boxes = cpu_session(artifact.file).run(None, feeds(1)[0])
    assert table.loc["logits", "max_abs"] == pytest.approx(np.abs(logits).max(), rel=1e-3)
    assert table.loc["boxes", "max_abs"] == pytest.approx(np.abs(boxes).max(), rel=1e-3)
    norm = table[table["operator"] == "LayerNormalization"].iloc[0]
    assert norm["inside_max"] > 0


def test_overflow_is_named_and_remedied(overflowing, artifact, tmp_path) -> None:
    big, names = overflowing
    # The rescaled graph is the same function in FP32 ...
    assert max(output_error(big, artifact, feeds()).values()) < 1e-3
    table = ranges(big, feeds())
    beyond = table[table["beyond"]]
    assert set(beyond["tensor"]) == {"large", "up/Mul:1"}
    assert names <= set(nodes_to_keep(big, table))
    # ... is broken by a plain conversion ...
    naive = to_fp16(big, tmp_path / "naive.onnx")
    assert not best(naive, artifact) < 0.5
    # ... and works when the named nodes stay in FP32.
    safe, _ = to_fp16_safely(big, tmp_path / "safe.onnx", feeds())
    assert best(safe, artifact) < 0.1
    assert names <= set(json.loads(safe.metadata["kept_in_fp32"]))


def test_precision_is_that_of_the_execution(artifact, tmp_path) -> None:
    half = to_fp16(artifact, tmp_path / "half.onnx")
    # A processor computes most of an FP16 file in FP32 ...
    with load_runtime("onnxruntime", half) as runtime:
        assert runtime.info.precision == "mixed"
        plain = runtime.run(feeds(1)[0])
    # ... unless every tensor is rounded, as on a device with FP16 arithmetic; which has no latency.
    with load_runtime("onnxruntime", half, emulate_fp16=True) as runtime:
        assert runtime.info.precision == "fp16" and runtime.artifact.sha256 == half.sha256
        rounded = runtime.run(feeds(1)[0])
        assert np.array_equal(rounded["boxes"], rounded["boxes"].astype(np.float16).astype(np.float32))
        with pytest.raises(UserError, match="no latency"):
            time_artifact(runtime, "buffered")
    assert not np.array_equal(plain["logits"], rounded["logits"])
    with pytest.raises(UserError, match="not for fp32 on cpu"):
        load_runtime("onnxruntime", artifact, emulate_fp16=True)


def test_emulation_rounds_every_half_tensor_and_no_other(artifact, overflowing, tmp_path) -> None:
    safe, _ = to_fp16_safely(overflowing[0], tmp_path / "safe.onnx", feeds())
    graph = onnx.load_from_string(emulated(safe)).graph
    assert not any(t.data_type == onnx.TensorProto.FLOAT16 for t in graph.initializer)
    rounded = {n.output[0].removesuffix("/half") for n in graph.node if n.output[0].endswith("/half")}
    assert "backbone.blocks.1.norm2/LayerNormalization.out" in rounded
    # The tensor that was kept in FP32 because it overflows is not rounded.
    assert "large" not in rounded


def test_only_fp32_files_are_converted_and_nodes_must_exist(artifact, tmp_path) -> None:
    half = to_fp16(artifact, tmp_path / "half.onnx")
    with pytest.raises(UserError, match="only FP32"):
        to_fp16(half, tmp_path / "again.onnx")
    with pytest.raises(UserError, match="no node x/y"):
        to_fp16(artifact, tmp_path / "bad.onnx", keep=["x/y"])
    with pytest.raises(UserError, match="at least one"):
        ranges(artifact, [])


def test_conversion_leaves_the_network_alone(artifact) -> None:
    assert all(p.dtype.itemsize == 4 for p in network().parameters())


def norm_file(path, scale: float, operator: str = "LayerNormalization", **attributes):
    """images [1, 3, 8, 8] -> boxes: the mean-free part of `scale` times the images, normalised over 192
    values.
    """
    from onnx import TensorProto, helper

    tensor = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    values = {
        "scale": np.float32(scale),
        "shape": np.array([1, 192], np.int64),
        "gamma": np.ones(192, np.float32),
        "axes": np.array([1], np.int64),
    }
    inputs = ["rows", "gamma"] if operator == "LayerNormalization" else ["rows", "axes"]
    nodes = [
        helper.make_node("Mul", ["images", "scale"], ["large"], name="scale/Mul"),
        helper.make_node("Reshape", ["large", "shape"], ["rows"], name="rows/Reshape"),
        helper.make_node(operator, inputs, ["logits"], name="norm", **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("images", [1, 3, 8, 8])],
        [tensor("logits", [1, 192] if operator == "LayerNormalization" else [1, 1])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="precision", value="fp32")
    onnx.save(model, path)
    return load_artifact(path)


@pytest.mark.parametrize("operator", ["LayerNormalization", "ReduceMean", "ReduceL2"])
def test_a_sum_inside_a_norm_that_leaves_the_range_is_seen_kept_and_emulated(tmp_path, operator) -> None:
    feed = [{"images": np.where(np.arange(192).reshape(1, 3, 8, 8) % 2, 1, -1).astype(np.float32)}]
    if operator == "ReduceMean":
        feed = [{"images": np.ones((1, 3, 8, 8), np.float32)}]
    scales = {"LayerNormalization": (20, 10), "ReduceMean": (400, 300), "ReduceL2": (20, 10)}[operator]
    for scale, beyond in zip(scales, (True, False), strict=True):
        file = norm_file(tmp_path / f"{scale}.onnx", scale, operator)
        table = ranges(file, feed).set_index("node")
        squares = operator != "ReduceMean"
        assert table.loc["norm", "inside_max"] == pytest.approx(192 * (scale**2 if squares else scale))
        # No tensor is anywhere near the end of the range: only the sum inside is.
        assert table["max_abs"].max() <= 500 and bool(table.loc["norm", "inside_beyond"]) == beyond
        naive = to_fp16(file, tmp_path / "naive.onnx")
        assert (output_error(naive, file, feed)["logits"] > 0.5) == beyond
        safe, _ = to_fp16_safely(file, tmp_path / "safe.onnx", feed)
        assert json.loads(safe.metadata["kept_in_fp32"]) == (["norm"] if beyond else [])
        assert output_error(safe, file, feed)["logits"] < 0.5


def test_inputs_of_the_graph_count(tmp_path) -> None:
    file = norm_file(tmp_path / "g.onnx", 1e-5)
    feed = [{"images": np.random.default_rng(0).normal(0, 1e6, (1, 3, 8, 8)).astype(np.float32)}]
    table = ranges(file, feed)
    row = table[table["operator"] == "input"].iloc[0]
    assert row["tensor"] == "images" and row["max_abs"] > 1e6 and row["beyond"]
    assert nodes_to_keep(file, table) == ["scale/Mul"]
    safe, _ = to_fp16_safely(file, tmp_path / "safe.onnx", feed)
    assert output_error(safe, file, feed)["logits"] < 0.05


def test_the_arithmetic_of_coordinates_stays_in_fp32(artifact, tmp_path) -> None:
    half = to_fp16(artifact, tmp_path / "half.onnx")
    graph = onnx.load(half.file).graph
    names = coordinate_nodes(onnx.load(artifact.file).graph)
    makers = {name: node for node in graph.node for name in node.output}
    kept = [node for node in graph.node if node.name in names]
    assert len(kept) == len(names) > 20
    inferred = onnx.shape_inference.infer_shapes(onnx.load(half.file))
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert all(types.get(n, 1) != onnx.TensorProto.FLOAT16 for node in kept for n in node.output)
    # From the positions that GridSample reads there is FP32 all the way to a product.
    grids = [node.input[1] for node in graph.node if node.op_type == "GridSample"]
    assert grids and all(makers[name].name in names for name in grids)


@pytest.mark.parametrize("kind", [onnx.TensorProto.BOOL, onnx.TensorProto.INT64])
def test_a_cast_of_the_graph_itself_stays_one_where_its_reader_stays_in_fp32(tmp_path, kind) -> None:
    """A mask that is resized: bool to FP32, to FP16 and back would read the bool as if it were FP32."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["first"], "first", to=kind),
        helper.make_node("Cast", ["first"], ["second"], "second", to=floats),
        helper.make_node("Resize", ["second", "", "scales"], ["large"], "large", mode="nearest"),
        helper.make_node("Add", ["second", "second"], ["twice"], "twice"),
        helper.make_node("Resize", ["twice", "", "scales"], ["y"], "y", mode="nearest"),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    inputs = [helper.make_tensor_value_info("x", floats, [1, 1, 2, 2])]
    outputs = [helper.make_tensor_value_info(name, floats, [1, 1, 4, 4]) for name in ("large", "y")]
    graph = helper.make_graph(nodes, "mask", inputs, outputs, [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "mask.onnx")
    half = to_fp16(load_artifact(tmp_path / "mask.onnx"), tmp_path / "half.onnx")
    onnx.checker.check_model(onnx.load(half.file), full_check=True)
    feed = {"x": np.array([[[[0, 1], [2, 2000]]]], np.float32)}
    expected = cpu_session(tmp_path / "mask.onnx").run(None, feed)
    for value, exact in zip(cpu_session(half.file).run(None, feed), expected, strict=True):
        np.testing.assert_array_equal(value, exact)
