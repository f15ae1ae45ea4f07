"""Latency of many sub-networks in every runtime, on stand-ins for the devices that are not here."""

import importlib.util

import fake_onnxruntime_gpu
import fake_tensorrt
import pytest
import torch
from fake_cuda import Device
from lab_fixtures import network

from rfdetr import Arch
from rfdetr.benchmark.runtimes import FILE_RUNTIMES, PRECISIONS, TORCH_RUNTIMES, check_runtime
from rfdetr.benchmark.subnetworks import measure_latency
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError

ARCHS = [Arch(48, 8, 1, 2, 8), Arch(48, 8, 1, 0, 8), Arch(48, 8, 1, 2, 8)]
QUICK = {"rounds": 3, "passes": 2}
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Exported files, kept for all tests here."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def devices(monkeypatch):
    gpu = Device(devices=2)
    trt = fake_tensorrt.install(monkeypatch, gpu)
    opened = fake_onnxruntime_gpu.install(monkeypatch)
    return trt, opened


def test_a_row_per_subnetwork_loaded_together_or_one_at_a_time(folder) -> None:
    seen = []
    measure_latency(network(), ARCHS, **QUICK, cache_dir=folder)
    frame = measure_latency(
        network(), ARCHS, at_once=1, progress=lambda *p: seen.append(p), **QUICK, cache_dir=folder
    )
    assert list(frame["arch"]) == ["r48-p8-w1-d2-q8", "r48-p8-w1-d0-q8"]
    assert frame["latency_ms"].between(frame["latency_low_ms"], frame["latency_high_ms"]).all()
    assert (frame["latency_low_ms"] > 0).all() and (frame["rounds"] == 3).all()
    assert frame["sha256"].nunique() == 2 and (frame["precision"] == "fp32").all()
    assert frame["decoder_layers"].tolist() == [2, 0]
    assert seen[-1] == (4, 4) and len(list(folder.glob("*.onnx"))) == 2


RUNS = [(name, precision) for name in FILE_RUNTIMES for precision in PRECISIONS[name]]
# Its quantiser runs ONNX Runtime itself, which has a stand-in here: see test_int8_onnx.
RUNS.remove(("onnxruntime", "int8"))


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [pytest.param(*run, marks=needs_openvino) if run[0] == "openvino" else run for run in RUNS],
)
def test_every_runtime_that_runs_files_times_subnetworks(devices, folder, runtime, precision) -> None:
    _, opened = devices
    given = {"runtime": runtime, "precision": precision, "device": 1, "cache_dir": folder, **QUICK}
    given["images"] = scenes("digits", "train", size=4)
    if (runtime, precision) == ("tensorrt", "int8"):
        with pytest.raises(UserError, match="no QuantizeLinear nodes: use --precision fp16"):
            measure_latency(network(), ARCHS, **given, log=lambda text: None)
        return
    frame = measure_latency(network(), ARCHS, **given, log=lambda text: None)
    assert len(frame) == 2 and (frame["latency_ms"] > 0).all() and frame["sha256"].nunique() == 2
    assert frame["runtime"].str.startswith(runtime).all() and frame["precision"].nunique() == 1
    executed = frame["precision"].iloc[0]
    if runtime == "tensorrt":
        assert executed == precision
    if runtime.startswith("onnxruntime"):
        # A processor keeps most of an FP16 file in FP32; TensorRT's provider chooses by itself.
        mixed = precision == "fp16" and runtime != "onnxruntime-cuda"
        assert executed == ("mixed" if mixed else precision)
    if runtime in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        assert opened and all(settings["device_id"] == 1 for settings in opened)
    if runtime in ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"):
        assert (frame["device"] == "Test GPU 1").all() and frame.attrs["device"] == "Test GPU 1"
    if runtime == "openvino" and precision == "int8":
        assert executed in ("int8", "mixed")


def test_engines_share_a_timing_cache_and_are_used_again(devices, tmp_path) -> None:
    trt, _ = devices
    said = []
    given = {"runtime": "tensorrt", "cache_dir": tmp_path, **QUICK, "log": said.append}
    first = measure_latency(network(), ARCHS, **given)
    # FP16, as in the paper, where nothing else is asked for; the second engine finds the first one's timings.
    assert (first["precision"] == "fp16").all() and (first["latency_ms"] == 4.0).all()
    assert [config.cache.content for config in trt.state.configs] == [b"", b"timing"] and len(said) == 2
    again = measure_latency(network(), ARCHS, **given)
    assert len(trt.state.configs) == 2 and list(again["sha256"]) == list(first["sha256"])
    other = measure_latency(network(), ARCHS, precision="fp32", **given)
    assert (other["precision"] == "fp32").all() and len(trt.state.configs) == 4
    # Another version of TensorRT cannot load them, and a damaged one is made again.
    next(tmp_path.glob("*fp16.engine")).write_bytes(b"half")
    measure_latency(network(), ARCHS, **given)
    assert len(trt.state.configs) == 5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_networks_in_pytorch_are_timed_without_a_file(tmp_path, precision) -> None:
    before = torch.get_num_threads()
    frame = measure_latency(
        network(), ARCHS, "torch", threads=2, precision=precision, cache_dir=tmp_path, **QUICK
    )
    assert (frame["precision"] == precision).all() and frame["sha256"].nunique() == 2
    assert (frame["threads"] == 2).all() and torch.get_num_threads() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("runtime", "precision", "words"),
    [
        ("coreml", "", "unknown runtime 'coreml'; choose one of onnxruntime, onnxruntime-cuda"),
        ("onnxruntime", "bf16", "onnxruntime runs fp32, fp16, int8, not bf16; bf16 runs in openvino, torch"),
        ("torch", "int4", "not int4$"),
        ("onnxruntime-cuda", "", "onnxruntime-gpu"),
        ("torch-cudagraph", "", "CUDA"),
        ("tensorrt", "", r"\[tensorrt\]"),
    ],
)
def test_what_cannot_run_here_is_said_before_any_work(runtime, precision, words) -> None:
    with pytest.raises(UserError, match=words):
        check_runtime(runtime, precision)
    with pytest.raises(UserError, match=words):
        measure_latency(None, [], runtime, precision=precision)


def test_all_names_have_precisions() -> None:
    assert set(PRECISIONS) == {*FILE_RUNTIMES, *TORCH_RUNTIMES}
