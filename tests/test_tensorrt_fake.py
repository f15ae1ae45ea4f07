import json
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from fake_cuda import Device
from fake_tensorrt import Flags, TacticSource, install
from onnx import TensorProto, helper

import rfdetr
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.runtimes import tensorrt_build
from rfdetr.benchmark.runtimes.tensorrt import TensorRTRuntime
from rfdetr.errors import UserError
from rfdetr.export.artifact import load_artifact


@pytest.fixture
def graph(tmp_path):
    """A small graph with our names: logits = images * 2, boxes = images + 1, open batch."""
    shape = ["batch", 3, 4, 4]
    images, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("images", "logits", "boxes")
    )
    two, one = (helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("two", 2.0), ("one", 1.0)))
    nodes = [
        helper.make_node("Mul", ["images", "two"], ["doubled"], name="a/Mul"),
        helper.make_node("Identity", ["doubled"], ["logits"], name="b/Identity"),
        helper.make_node("Add", ["images", "one"], ["boxes"], name="c/Add"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], outputs, [two, one]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    model.metadata_props.add(key="precision", value="fp32")
    model.metadata_props.add(key="arch", value="r64-p8-w2-d2-q10")
    onnx.save(model, tmp_path / "g.onnx")
    return load_artifact(tmp_path / "g.onnx")


def images(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"images": np.random.default_rng(seed).random((batch, 3, 4, 4), dtype=np.float32)}


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("version", ["8.5.3.1", "10.4.0"])
def test_outputs_and_times_come_from_the_engine(monkeypatch, tmp_path, graph, version, cuda_graph) -> None:
    gpu = Device(pass_ms=4.4)
    install(monkeypatch, gpu, version=version)
    engine = tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    with TensorRTRuntime.load(engine, cuda_graph=cuda_graph) as runtime:
        for batch in (1, 3, 2, 1):
            feed = images(batch, seed=batch)
            found = runtime.run(feed)
            np.testing.assert_array_equal(found["logits"], feed["images"] * 2)
            np.testing.assert_array_equal(found["boxes"], feed["images"] + 1)
            assert runtime.device_ms() == pytest.approx(4.4)
        assert runtime.info.details["cuda_graph"] is cuda_graph
        record = time_artifact(runtime, "buffered", watch=False, pause_ms=0, samples=10)
        assert record.median_ms == pytest.approx(4.4) and record.clock == "device events"
        assert set(record.copies_ms) == {"in", "out"}
        assert record.sha256 == engine.sha256 != graph.sha256
    assert not gpu.memory and not gpu.queues
    assert bool(gpu.launched) is cuda_graph


def test_an_engine_predicts_by_its_file_alone(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    model = rfdetr.load_exported(tmp_path / "g.engine")
    assert model.runtime.info.runtime == "tensorrt" and str(model.arch) == "r64-p8-w2-d2-q10"
    pictures = torch.rand(3, 3, 4, 4)
    assert torch.equal(model(pictures).encoder.logits, pictures * 2)


def test_old_outputs_are_not_changed_by_the_next_pass(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    engine = tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    with TensorRTRuntime.load(engine) as runtime:
        first = runtime.run(images(1, 1))
        runtime.run(images(1, 2))
        np.testing.assert_array_equal(first["logits"], images(1, 1)["images"] * 2)


def test_where_recording_fails_passes_are_launched_and_the_record_says_so(
    monkeypatch, tmp_path, graph
) -> None:
    install(monkeypatch, Device(capture=False))
    engine = tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    with TensorRTRuntime.load(engine) as runtime:
        feed = images(2)
        np.testing.assert_array_equal(runtime.run(feed)["boxes"], feed["images"] + 1)
        assert runtime.info.details["cuda_graph"] is False
        assert "cudaErrorStreamCaptureUnsupported" in runtime.info.details["cuda_graph_note"]


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", set()),
        ("tf32", {Flags.TF32}),
        ("fp16", {Flags.FP16}),
        ("int8", {Flags.FP16, Flags.INT8}),
    ],
)
def test_builder_flags(monkeypatch, tmp_path, graph, precision, flags) -> None:
    trt = install(monkeypatch, Device())
    tensorrt_build.build_engine(graph, tmp_path / "g.engine", precision, library_tactics=False)
    config = trt.state.configs[-1]
    assert config.flags == flags
    assert config.tactics == 1 << TacticSource.EDGE_MASK_CONVOLUTIONS | 1 << TacticSource.JIT_CONVOLUTIONS
    (profile,) = config.profiles
    assert profile.shapes == {"images": ((1, 3, 4, 4), (1, 3, 4, 4), (8, 3, 4, 4))}


def test_precision_is_what_was_built_not_what_was_asked_for(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    assert tensorrt_build.build_engine(graph, tmp_path / "a.engine", "fp16").precision == "fp16"
    assert tensorrt_build.build_engine(graph, tmp_path / "b.engine", "fp32").precision == "fp32"
    assert tensorrt_build.build_engine(graph, tmp_path / "c.engine", "tf32").precision == "tf32"
    kept = tensorrt_build.build_engine(graph, tmp_path / "d.engine", "fp16", keep_fp32=["a/Mul", "c/Add"])
    assert kept.precision == "mixed"
    assert json.loads(kept.metadata["layers_by_precision"]) == {"fp32": 2, "fp16": 1}
    install(monkeypatch, Device(), refuses_fp16=True)
    refused = tensorrt_build.build_engine(graph, tmp_path / "e.engine", "fp16")
    assert (refused.precision, refused.metadata["requested"]) == ("fp32", "fp16")


def test_fp16_files_are_built_as_typed_where_tensorrt_can(monkeypatch, tmp_path, graph) -> None:
    model = onnx.load(graph.file)
    next(p for p in model.metadata_props if p.key == "precision").value = "fp16"
    onnx.save(model, tmp_path / "h.onnx")
    typed = load_artifact(tmp_path / "h.onnx")
    trt = install(monkeypatch, Device())
    tensorrt_build.build_engine(typed, tmp_path / "h.engine")
    assert trt.state.networks[-1].flags == 0b11 and trt.state.configs[-1].flags == set()
    trt = install(monkeypatch, Device(), version="8.5.3.1")
    tensorrt_build.build_engine(typed, tmp_path / "i.engine")
    assert trt.state.networks[-1].flags == 0b1 and trt.state.configs[-1].flags == {Flags.FP16}


def test_timing_cache_is_read_and_written(monkeypatch, tmp_path, graph) -> None:
    trt = install(monkeypatch, Device())
    cache = tmp_path / "timing.cache"
    for expected in (b"", b"timing"):
        tensorrt_build.build_engine(graph, tmp_path / "g.engine", timing_cache=cache)
        assert trt.state.configs[-1].cache.content == expected
    assert cache.read_bytes() == b"timingtiming"


def test_what_is_missing_is_named(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    engine = tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    with pytest.raises(UserError, match="no layer z"):
        tensorrt_build.build_engine(graph, tmp_path / "x.engine", keep_fp32=["z"])
    with pytest.raises(UserError, match="workspace"):
        tensorrt_build.build_engine(graph, tmp_path / "x.engine", workspace_mb=0)
    with pytest.raises(UserError, match="runs engines"):
        TensorRTRuntime.load(graph)
    with TensorRTRuntime.load(engine) as runtime, pytest.raises(UserError, match="input images"):
        runtime.bind({})
    with (
        TensorRTRuntime.load(engine) as runtime,
        pytest.raises(UserError, match=r"does not take images of shape \(1, 3, 5, 4\)"),
    ):
        runtime.bind({"images": np.zeros((1, 3, 5, 4), np.float32)})
    install(monkeypatch, Device(), version="10.9.0")
    with pytest.raises(UserError, match="build it again"):
        TensorRTRuntime.load(engine)
    install(monkeypatch, Device(devices=0))
    with pytest.raises(UserError, match="NVIDIA GPU"):
        TensorRTRuntime.load(engine)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError, match=r"\[tensorrt\]"):
        TensorRTRuntime.load(engine)


def test_an_engine_that_was_exchanged_is_refused(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    path = tmp_path / "g.engine"
    tensorrt_build.build_engine(graph, path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="describes another file"):
        load_artifact(path)


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("Row major Int32 format", None),
        ("Row major Bool format", None),
        ("a format of the future", "unknown"),
    ],
)
def test_inspector_texts(text, precision) -> None:
    found = tensorrt_build.layer_precisions(
        {"Layers": [{"Name": "n", "Outputs": [{"Format/Datatype": text}]}]}
    )
    assert found == ({} if precision is None else {"n": precision})


def test_an_engine_without_detail_is_refused() -> None:
    with pytest.raises(UserError, match="detailed"):
        tensorrt_build.layer_precisions({"Layers": ["conv1"]})


def test_t4_recipe_writes_both_tables(monkeypatch, tmp_path, graph) -> None:
    from rfdetr.benchmark import t4

    install(monkeypatch, Device(pass_ms=4.4))
    monkeypatch.setattr(t4, "export_onnx", lambda network, arch, path: graph)
    network = SimpleNamespace(config=SimpleNamespace(default_arch=None))
    monkeypatch.setattr(t4, "open_network", lambda name: network)

    def unwatched(loaded, protocol, **options):
        options["pause_ms"] /= 1000
        return time_artifact(loaded, protocol, watch=False, runs=1, **options)

    monkeypatch.setattr(t4, "time_artifact", unwatched)
    frame = t4.run_t4(
        tmp_path / "t4",
        models=("medium",),
        engines=2,
        samples=8,
        sustained_s=0,
        pauses_ms=(0.0, 200.0),
        log=lambda text: None,
    )
    assert list(frame["latency_ms"]) == pytest.approx([4.4] * 4)
    assert (tmp_path / "t4" / "t4.csv").is_file()


def test_printed_rows_are_found() -> None:
    from rfdetr.benchmark.t4 import printed

    assert printed("medium", "fp16", "buffered", 200.0) == {"printed_ms": 4.4, "printed_ap": 54.7}
    assert printed("medium", "fp32", "buffered", 200.0) == {"printed_ms": 20.5, "printed_ap": 54.8}
    assert printed("medium", "fp16", "buffered", 0.0)["printed_ms"] == 4.7
    assert printed("nano", "fp16", "buffered", 200.0)["printed_ms"] is None
    assert printed("medium", "fp16", "sustained", None)["printed_ms"] is None


def test_the_gpu_that_runs_is_the_one_that_is_watched(monkeypatch, tmp_path, graph) -> None:
    """CUDA's GPU 1 is under a power cap; NVML, which counts the other way round, must not look at GPU 0."""
    gpu = Device(devices=2)
    install(monkeypatch, gpu, throttled=frozenset({1}))
    engines = [tensorrt_build.build_engine(graph, tmp_path / f"{i}.engine", device=i) for i in range(2)]
    assert [e.metadata["gpu"] for e in engines] == ["Test GPU 0", "Test GPU 1"]
    with (
        TensorRTRuntime.load(engines[0], device=0) as first,
        TensorRTRuntime.load(engines[1], device=1) as second,
    ):
        for runtime, state in ((first, "clean"), (second, "throttled"), (first, "clean")):
            np.testing.assert_array_equal(runtime.run(images(1))["boxes"], images(1)["images"] + 1)
            record = time_artifact(runtime, "buffered", pause_ms=0, samples=8, runs=1)
            assert record.throttle == state
            assert record.device == runtime.info.device and record.driver == "550.1"
        assert (first.info.device, second.info.device) == ("Test GPU 0", "Test GPU 1")
    with pytest.raises(UserError, match="no GPU 2: CUDA counts 2"):
        TensorRTRuntime.load(engines[0], device=2)


def test_without_nvml_a_gpu_is_not_monitored(monkeypatch, tmp_path, graph) -> None:
    install(monkeypatch, Device())
    engine = tensorrt_build.build_engine(graph, tmp_path / "g.engine")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with TensorRTRuntime.load(engine) as runtime:
        record = time_artifact(runtime, "buffered", pause_ms=0, samples=8, runs=1)
    assert record.throttle == "not monitored" and "nvidia-ml-py" in record.readings["why"]
