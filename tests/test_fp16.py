import json

import numpy as np
import onnx
import pytest
from lab_fixtures import exported, network
from onnx import numpy_helper

from rfdetr.benchmark import fp16
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import load_artifact
from rfdetr.export.onnx import cpu_session


@pytest.fixture(scope="module")
def artifact():
    return exported()


def feeds(count: int = 2):
    random = np.random.default_rng(0)
    return [{"images": random.standard_normal((1, 3, 48, 48)).astype(np.float32)} for _ in range(count)]


def best(half, full) -> float:
    """The error on the image that suffers least: where no two queries of nearly equal rank change places."""
    return min(max(fp16.output_error(half, full, [feed]).values()) for feed in feeds(8))


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
    table = fp16.ranges(artifact, feeds())
    assert not table["beyond"].any() and table["max_abs"].is_monotonic_decreasing
    assert {"logits", "boxes"} <= set(table["tensor"])
    half = fp16.to_fp16(artifact, tmp_path / "half.onnx")
    assert half.precision == "fp16" and half.sha256 != artifact.sha256
    assert half.metadata["fp32_sha256"] == artifact.sha256 and half.arch == artifact.arch
    assert half.inputs == artifact.inputs and half.outputs == artifact.outputs
    onnx.checker.check_model(str(half.file), full_check=True)
    types = {t.data_type for t in onnx.load(half.file).graph.initializer if len(t.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in types
    assert half.file.stat().st_size < 0.75 * artifact.file.stat().st_size
    assert best(half, artifact) < 0.1


def test_ranges_are_those_of_the_tensors(artifact) -> None:
    table = fp16.ranges(artifact, feeds(1)).set_index("tensor")
    logits, boxes = cpu_session(artifact.file).run(None, feeds(1)[0])
    assert table.loc["logits", "max_abs"] == pytest.approx(np.abs(logits).max(), rel=1e-3)
    assert table.loc["boxes", "max_abs"] == pytest.approx(np.abs(boxes).max(), rel=1e-3)
    norm = table[table["operator"] == "LayerNormalization"].iloc[0]
    assert norm["inside_max"] > 0


def test_overflow_is_named_and_remedied(overflowing, artifact, tmp_path) -> None:
    big, names = overflowing
    # The rescaled graph is the same function in FP32 ...
    assert max(fp16.output_error(big, artifact, feeds()).values()) < 1e-3
    table = fp16.ranges(big, feeds())
    beyond = table[table["beyond"]]
    assert set(beyond["tensor"]) == {"large", "up/Mul:1"}
    assert names <= set(fp16.nodes_to_keep(big, table))
    # ... is broken by a plain conversion ...
    naive = fp16.to_fp16(big, tmp_path / "naive.onnx")
    assert not best(naive, artifact) < 0.5
    # ... and works when the named nodes stay in FP32.
    safe, _ = fp16.to_fp16_safely(big, tmp_path / "safe.onnx", feeds())
    assert best(safe, artifact) < 0.1
    assert names <= set(json.loads(safe.metadata["kept_in_fp32"]))


def test_precision_is_that_of_the_execution(artifact, tmp_path) -> None:
    half = fp16.to_fp16(artifact, tmp_path / "half.onnx")
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
    safe, _ = fp16.to_fp16_safely(overflowing[0], tmp_path / "safe.onnx", feeds())
    graph = onnx.load_from_string(fp16.emulated(safe)).graph
    assert not any(t.data_type == onnx.TensorProto.FLOAT16 for t in graph.initializer)
    rounded = {n.output[0].removesuffix("/half") for n in graph.node if n.output[0].endswith("/half")}
    assert "backbone.blocks.1.norm2/LayerNormalization.out" in rounded
    # The tensor that was kept in FP32 because it overflows is not rounded.
    assert "large" not in rounded


def test_only_fp32_files_are_converted_and_nodes_must_exist(artifact, tmp_path) -> None:
    half = fp16.to_fp16(artifact, tmp_path / "half.onnx")
    with pytest.raises(UserError, match="only FP32"):
        fp16.to_fp16(half, tmp_path / "again.onnx")
    with pytest.raises(UserError, match="no node x/y"):
        fp16.to_fp16(artifact, tmp_path / "bad.onnx", keep=["x/y"])
    with pytest.raises(UserError, match="at least one"):
        fp16.ranges(artifact, [])


def test_conversion_leaves_the_network_alone(artifact) -> None:
    assert all(p.dtype.itemsize == 4 for p in network().parameters())
