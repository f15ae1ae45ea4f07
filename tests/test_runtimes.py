import sys

import numpy as np
import pytest
import torch
from lab_fixtures import ARCH, exported, network

from rfdetr.benchmark import latency
from rfdetr.benchmark.inputs import random_inputs
from rfdetr.benchmark.lab import benchmark_command, protocol_runs
from rfdetr.benchmark.nms import WithNms, nms
from rfdetr.benchmark.records import JointRecord, read_records
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.torch import TorchRuntime
from rfdetr.errors import UserError


@pytest.fixture(scope="module")
def artifact():
    return exported(True)


def test_onnxruntime_and_torch_give_the_same(artifact) -> None:
    feed = random_inputs(artifact)
    with (
        load_runtime("onnxruntime", artifact, threads=2) as ort,
        TorchRuntime.of(network(True).subnet(ARCH)) as eager,
    ):
        a, b = ort.run(feed), eager.run(feed)
        assert a.keys() == b.keys() == {"logits", "boxes", "masks"}
        for name in a:
            np.testing.assert_allclose(a[name], b[name], atol=1e-4)
        assert ort.device_ms() is None and not ort.has_copies
        assert ort.info.details == {"threads": 2} and ort.info.precision == "fp32"
        # In-memory networks have names too, and not that of the file.
        assert eager.artifact.sha256 not in (artifact.sha256, eager.artifact.metadata["source_sha256"])


def test_half_precision_is_another_artifact() -> None:
    subnet = network().subnet(ARCH)
    full, half = TorchRuntime.of(subnet), TorchRuntime.of(subnet, precision="bf16")
    assert full.artifact.sha256 != half.artifact.sha256 and half.info.precision == "bf16"
    assert next(subnet.parameters()).dtype == torch.float32


def test_what_is_missing_is_named(artifact, monkeypatch) -> None:
    with pytest.raises(UserError, match="onnxruntime-gpu"):
        load_runtime("onnxruntime-cuda", artifact)
    with pytest.raises(UserError, match="onnxruntime, onnxruntime-cuda"):
        load_runtime("coreml", artifact)
    with pytest.raises(UserError, match="threads must be at least 1"):
        load_runtime("onnxruntime", artifact, threads=0)
    subnet = network().subnet(ARCH)
    with pytest.raises(UserError, match="CUDA"):
        TorchRuntime.of(subnet, mode="cudagraph")
    with pytest.raises(UserError, match="no CUDA device"):
        TorchRuntime.of(subnet, device="cuda")
    with pytest.raises(UserError, match="runs networks, not files"):
        TorchRuntime.load(artifact)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        load_runtime("onnxruntime", artifact)


def test_record_of_a_real_measurement(artifact) -> None:
    with load_runtime("onnxruntime", artifact) as runtime:
        record = latency.time_artifact(runtime, "buffered", pause_ms=0, samples=12)
    assert record.sha256 == artifact.sha256 and record.includes == ("network", "masks")
    assert record.statistics["count"] == 24 and 0 < record.statistics["min_ms"] <= record.median_ms
    assert record.input_shape == (1, 3, 48, 48) and record.copies_ms == {}
    assert record.throttle == "not monitored" and record.readings["cpus"] >= 1
    assert record.environment["versions"]["onnxruntime"] == record.runtime_version


def test_command_times_evaluates_and_records_one_artifact(artifact, tmp_path) -> None:
    lines: list[str] = []
    found = benchmark_command(
        str(artifact.file),
        protocols=("buffered", "rate"),
        pauses_ms=(0.0, 1.0),
        samples=8,
        seconds=0.3,
        runs=1,
        coco="digits",
        images=2,
        out=tmp_path / "r.jsonl",
        progress=False,
        log=lines.append,
    )
    assert [r.latency.protocol for r in found] == ["buffered", "buffered", "rate"]
    assert all(isinstance(r, JointRecord) and r.accuracy.sha256 == artifact.sha256 for r in found)
    assert len(read_records(tmp_path / "r.jsonl")) == 3
    assert "median_ms" in lines[0] and "mask_AP" in lines[0]


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("nowhere.onnx", {}, "there is no file nowhere.onnx"),
        ("nowhere", {}, "random:"),
        ("nowhere.onnx", {"runtime": "torch"}, "runs networks"),
        ("nowhere.onnx", {"arch": "nano"}, "already is one sub-network"),
        ("nowhere.onnx", {"runtime": "ort"}, "unknown runtime 'ort'"),
        ("nowhere.onnx", {"protocols": ("fast",)}, "unknown protocol fast"),
    ],
)
def test_wrong_commands_are_named(target, options, words) -> None:
    with pytest.raises(UserError, match=words):
        benchmark_command(target, **options, log=lambda text: None)


def test_protocol_options() -> None:
    runs = protocol_runs(("buffered", "sustained", "rate"), (0, 200), 5, 2, (30, 60))
    assert [name for name, _ in runs] == ["buffered", "buffered", "sustained", "rate", "rate"]
    assert runs[1][1] == {"pause_ms": 200, "samples": 5} and runs[4][1] == {"fps": 60, "seconds": 2}


def test_nms_keeps_the_best_of_overlapping_boxes_of_a_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 30, 40, 40]], float)
    scores, labels = np.array([0.8, 0.9, 0.7, 0.1]), np.array([0, 0, 1, 0])
    assert nms(boxes, scores, labels, 0.5).tolist() == [1, 2, 3]
    assert nms(boxes, scores, labels, 0.95).tolist() == [1, 0, 2, 3]
    assert nms(np.empty((0, 4)), np.empty(0), np.empty(0)).tolist() == []


def test_nms_is_inside_the_pass_of_a_detector_that_needs_it(tmp_path) -> None:
    import onnx
    from onnx import TensorProto, helper

    from rfdetr.export.artifact import load_artifact

    raw = np.zeros((1, 6, 3), np.float32)
    raw[0, :4] = [[5, 6, 35], [5, 5, 35], [10, 10, 10], [10, 10, 10]]
    raw[0, 4:] = [[0.8, 0.9, 0.0], [0.0, 0.0, 0.6]]
    value = helper.make_tensor("raw", TensorProto.FLOAT, raw.shape, raw.tobytes(), raw=True)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
        helper.make_node("Add", ["raw", "zero"], ["output0"]),
    ]
    tensor = lambda n, s: helper.make_tensor_value_info(n, TensorProto.FLOAT, s)  # noqa: E731
    graph = helper.make_graph(
        nodes, "g", [tensor("images", [1, 3, 8, 8])], [tensor("output0", raw.shape)], [value]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "y.onnx",
    )
    with WithNms(load_runtime("onnxruntime", load_artifact(tmp_path / "y.onnx"))) as runtime:
        found = runtime.run(random_inputs(runtime.artifact))["detections"]
        np.testing.assert_allclose(found[0], [[1, 0, 11, 10, 0.9, 0], [30, 30, 40, 40, 0.6, 1]], rtol=1e-6)
        record = latency.time_artifact(runtime, "buffered", pause_ms=0, samples=8, runs=1, watch=False)
    assert record.includes == ("network", "nms") and record.precision == "unknown"


def test_nms_refuses_detectors_that_do_not_need_it(artifact) -> None:
    with load_runtime("onnxruntime", artifact) as runtime, pytest.raises(UserError, match="one output"):
        WithNms(runtime)
