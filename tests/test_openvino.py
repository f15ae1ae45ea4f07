"""OpenVINO and its INT8 files, where the extra `openvino` is installed."""

import json
import types

import numpy as np
import pytest
from lab_fixtures import ARCH, exported, network

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("nncf", reason="the extra openvino is not installed")

from PIL import Image

import rfdetr
from rfdetr.benchmark.inputs import image_inputs, random_inputs
from rfdetr.benchmark.lab import benchmark_command
from rfdetr.benchmark.latency import time_artifact
from rfdetr.benchmark.records import JointRecord
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.benchmark.runtimes.openvino import _REST, as_built, types_of
from rfdetr.cli import main
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.export.artifact import load_artifact
from rfdetr.export.formats import write
from rfdetr.export.int8 import to_int8


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    images = image_inputs(scenes("digits", "train", size=8), 48, count=8)
    return to_int8(exported(True), tmp_path_factory.mktemp("int8") / "tiny.xml", images)


def test_float32_gives_what_onnx_runtime_gives() -> None:
    file = exported(True)
    with load_runtime("onnxruntime", file) as ort, load_runtime("openvino", file, threads=2) as runtime:
        for seed in (0, 1):
            feed = random_inputs(file, seed=seed)
            expected, found = ort.run(feed), runtime.run(feed)
            assert expected.keys() == found.keys() == {"logits", "boxes", "masks"}
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
        assert runtime.info.precision == "fp32" and runtime.info.details["threads"] == 2
        assert runtime.info.gpu is None and not runtime.has_copies
        first = runtime.fetch()["boxes"]
        runtime.run(random_inputs(file, seed=2))
        assert np.array_equal(first, found["boxes"])  # outputs are copies


def test_precision_is_read_back_from_the_executed_graph(quantised) -> None:
    file = exported(True)
    asked = {}
    for precision in ("fp32", "bf16", "fp16"):
        with load_runtime("openvino", file, precision) as runtime:
            asked[precision] = runtime.info.precision
            assert runtime.info.details["asked"] == precision
            assert sum(json.loads(runtime.info.details["products"]).values()) > 20
    assert asked["fp32"] == "fp32"
    # What a processor does with a request for a shorter type is its own choice, and is told.
    assert asked["bf16"] in ("bf16", "fp32") and asked["fp16"] in ("fp16", "bf16", "fp32")
    with load_runtime("openvino", quantised) as runtime:
        assert runtime.info.precision == "int8"
    # Both have the products of one file in INT8; accuracy of the one and latency of the other do not mix.
    with load_runtime("openvino", quantised, "int8+bf16") as runtime:
        assert runtime.info.precision == ("int8+bf16" if asked["bf16"] == "bf16" else "int8")


def layer(kind: str, precision: str):
    value = lambda text: types.SimpleNamespace(astype=lambda _: text)  # noqa: E731
    return types.SimpleNamespace(
        get_rt_info=lambda: {"layerType": value(kind), "runtimePrecision": value(precision)}
    )


@pytest.mark.parametrize(
    ("layers", "word"),
    [
        ({"FullyConnected f32": 9, "MVN f32": 3}, "fp32"),
        ({"Convolution u8": 5, "FullyConnected i8": 30, "MVN f32": 3}, "int8"),
        ({"FullyConnected u8": 30, "MatMul bf16": 9, "MVN bf16": 3}, "int8+bf16"),
        ({"FullyConnected u8": 30, "MVN bf16": 3, "Eltwise f32": 2, "Softmax i8": 9}, "int8+bf16"),
        ({"FullyConnected u8": 30, "MatMul f32": 9, "MVN f32": 1}, "mixed"),
        ({"FullyConnected u8": 30, "MatMul f32": 9, "MVN bf16": 1}, "mixed"),
        ({"FullyConnected bf16": 30, "MatMul f32": 2}, "bf16"),
        ({"Reorder u8": 30}, "unknown"),
    ],
)
def test_words_for_precisions(layers, word) -> None:
    made = [layer(*name.split()) for name, count in layers.items() for _ in range(count)]
    executed = types.SimpleNamespace(get_ops=lambda: made)
    assert as_built(types_of(executed), types_of(executed, _REST)) == word


@pytest.mark.parametrize("kind", ["exported", "quantised"])
def test_the_two_files_of_a_model_are_enough_for_every_command(kind, quantised, tmp_path, capsys) -> None:
    if kind == "exported":
        file = tmp_path / "made" / "tiny.xml"
        file.parent.mkdir()
        write(network(True), ARCH, file, "openvino")
    else:
        file = quantised.file
    for suffix in (".xml", ".bin"):
        (tmp_path / "alone").with_suffix(suffix).write_bytes(file.with_suffix(suffix).read_bytes())
    alone = tmp_path / "alone.xml"
    read, source = load_artifact(alone), load_artifact(file)
    assert read.metadata == source.metadata and read.categories is not None and read.sha256 == source.sha256
    assert (read.inputs, read.outputs) == (source.inputs, source.outputs)
    Image.new("RGB", (60, 50), "teal").save(tmp_path / "photo.png")
    assert main(["predict", str(alone), str(tmp_path / "photo.png"), "--threshold", "0"]) == 0
    found = rfdetr.load_exported(alone).predict_one(tmp_path / "photo.png", 0.0)
    said = capsys.readouterr().out
    assert f"photo.png: {len(found.scores)} objects" in said and f"  {found.names[0]} " in said
    assert main(["evaluate", str(alone), "--data", "digits", "--split", "val"]) == 0
    assert main(["benchmark", str(alone), "--samples", "2", "--pause", "0"]) == 0
    assert "openvino" in capsys.readouterr().out
    alone.with_suffix(".bin").unlink()
    assert main(["predict", str(alone), str(tmp_path / "photo.png")]) == 2
    assert "alone.bin, which is not beside it" in capsys.readouterr().err


def test_a_quantised_file_is_an_artifact_of_its_own(quantised, tmp_path) -> None:
    source = exported(True)
    assert quantised.format == "openvino" and quantised.precision == "int8"
    assert quantised.sha256 != source.sha256 and quantised.metadata["fp32_sha256"] == source.sha256
    assert (quantised.inputs, quantised.outputs) == (source.inputs, source.outputs)
    assert quantised.arch == source.arch and quantised.categories == source.categories
    assert quantised.metadata["calibration_images"] == "8"
    assert load_artifact(quantised.file) == quantised
    # The weights are in the second file: a change there is another artifact.
    copy = tmp_path / "tiny.xml"
    for suffix in (".xml", ".bin", ".xml.json"):
        copy.with_suffix(suffix).write_bytes(quantised.file.with_suffix(suffix).read_bytes())
    weights = bytearray(copy.with_suffix(".bin").read_bytes())
    weights[0] ^= 1
    copy.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(UserError, match="describes another file"):
        load_artifact(copy)
    feed = image_inputs(scenes("digits", "test", size=1), 48)[0]
    with load_runtime("openvino", quantised) as low, load_runtime("openvino", source) as full:
        a, b = low.run(feed), full.run(feed)
    assert not np.array_equal(a["logits"], b["logits"]) and np.isfinite(a["logits"]).all()
    # Ranks of queries change, their scores as a whole do not by much.
    assert abs(a["logits"].mean() - b["logits"].mean()) < b["logits"].std()


def test_named_nodes_are_not_quantised(tmp_path) -> None:
    images = image_inputs(scenes("digits", "train", size=2), 48, count=2)
    file = exported(True)
    import onnx

    convolutions = [n.name for n in onnx.load(file.file).graph.node if n.op_type == "Conv"]
    kept = to_int8(file, tmp_path / "kept.xml", images, keep=convolutions)
    with load_runtime("openvino", kept) as runtime:
        products = json.loads(runtime.info.details["products"])
    assert products["fp32"] >= len(convolutions) and products["int8"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "cannot run as int8"),
        ({"precision": "int4"}, "unknown precision"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_wrong_requests_are_named(options, words) -> None:
    with pytest.raises(UserError, match=words):
        load_runtime("openvino", exported(True), **options)


def test_wrong_conversions_are_named(quantised, tmp_path) -> None:
    file = exported(True)
    images = image_inputs(scenes("digits", "train", size=1), 48)
    for arguments, words in (
        ((quantised, tmp_path / "a.xml", images), "only FP32 ONNX files"),
        ((file, tmp_path / "a.xml", []), "needs images"),
        ((file, tmp_path / "a.onnx", images), "end in .xml"),
        ((file, tmp_path / "a.xml", images, ["x/y"]), "no node x/y"),
    ):
        with pytest.raises(UserError, match=words):
            to_int8(*arguments)
    with pytest.raises(UserError, match="cannot run as fp32"):
        load_runtime("openvino", quantised, "fp32")
    with pytest.raises(UserError, match="openvino"):
        load_runtime("onnxruntime", quantised)


def test_benchmark_times_and_evaluates_the_quantised_file(tmp_path, monkeypatch) -> None:
    from rfdetr.benchmark import lab

    model = network()
    monkeypatch.setattr(lab, "open_network", lambda target, categories=None: model)
    data = {"train": scenes("digits", "train", size=4), "val": scenes("digits", "val", size=2)}
    for split in data.values():
        monkeypatch.setattr(type(split), "category_ids", model.config.categories, raising=False)
    monkeypatch.setattr(lab, "images_of", lambda name, split, size=None: data[split])
    said: list[str] = []
    given = {"arch": "r48-p8-w1-d2-q8", "pauses_ms": (0.0,), "samples": 8, "runs": 1, "folder": tmp_path}
    given |= {"runtime": "openvino", "precision": "int8", "progress": False, "log": said.append}
    (record,) = benchmark_command("tiny", coco="digits", split="val", **given)
    assert isinstance(record, JointRecord) and record.latency.precision in ("int8", "mixed")
    file = load_artifact(next(tmp_path.glob("*-int8.xml")))
    assert record.accuracy.sha256 == record.latency.sha256 == file.sha256
    assert file.metadata["data"] == data["train"].fingerprint and any("quantising" in s for s in said)
    # The file alone can be timed again: it says that it is quantised.
    with load_runtime("openvino", file) as runtime:
        assert time_artifact(runtime, "buffered", pause_ms=0, samples=8, runs=1).sha256 == file.sha256
    said.clear()
    with pytest.raises(UserError, match="--coco DATA"):
        benchmark_command("tiny", **given)
