"""A sub-network handed on to other packages: the published checkpoint and a Transformers folder."""

import json
import os
import subprocess
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from conftest import TINY, scramble

import rfdetr
from rfdetr import RFDETR, Arch
from rfdetr.benchmark.accuracy import ArtifactModel
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.cli import main
from rfdetr.data.categories import CategoryMap
from rfdetr.export.formats import ENDINGS, write
from rfdetr.export.onnx import export_onnx
from rfdetr.export.published import (
    export_published_io,
    fixed_network,
    write_published,
    write_transformers,
)
from rfdetr.model.config import preset_config
from rfdetr.model.published_names import MASK_TOKEN, UNUSED, from_published

ARCH = Arch(48, 12, 2, 1, 6)
CLASSES = CategoryMap.from_names(("cat", "dog", "fox", "owl"))


def network(**sizes):
    torch.manual_seed(0)
    return scramble(RFDETR(**{**TINY, "categories": CLASSES, **sizes})).eval()


@pytest.mark.parametrize("segmentation", [False, True])
def test_a_published_file_holds_the_sub_network(tmp_path, segmentation):
    model = network(segmentation=segmentation)
    arguments = write_published(model, tmp_path / "chosen.pth", ARCH)
    assert arguments["num_classes"] == 3 and arguments["resolution"] == 48 and arguments["num_queries"] == 6
    saved = torch.load(tmp_path / "chosen.pth", weights_only=False)
    assert saved["args"].class_names == list(CLASSES.names)
    config, _ = fixed_network(model, ARCH)
    again = RFDETR(**config.to_dict())
    again.load_state_dict(from_published(saved["model"], config))
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        here, there = model(images, ARCH), again.eval()(images, ARCH)
    assert torch.allclose(here.logits, there.logits, atol=1e-5)
    assert torch.allclose(here.boxes, there.boxes, atol=1e-5)
    if segmentation:
        assert torch.allclose(here.masks, there.masks, atol=1e-4)


def test_a_published_file_is_opened_by_its_configuration_name(tmp_path):
    config = preset_config("nano", 4, categories=CLASSES)
    write_published(RFDETR(**config.to_dict()), tmp_path / "mine.pth")
    again = rfdetr.load_official("nano", tmp_path / "mine.pth")
    assert again.config.categories.names == CLASSES.names


@pytest.mark.parametrize("name", ["nano", "seg-nano"])
def test_names_and_shapes_are_those_of_the_released_file(tmp_path, name):
    model = rfdetr.build(name, 91)
    write_published(model, tmp_path / "file.pth")
    state = torch.load(tmp_path / "file.pth", weights_only=False)["model"]
    path = Path(rfdetr.__file__).parent / "paper" / "parity" / f"{name}.keys.json"
    listed = json.loads(path.read_text(encoding="utf-8"))
    wanted = {key: tuple(shape) for key, shape in listed.items() if key not in UNUSED or key == MASK_TOKEN}
    assert {key: tuple(value.shape) for key, value in state.items()} == wanted


@pytest.mark.parametrize(
    "preset, words", [("nano", "r320-p16-w2-d1-q100"), ("seg-nano", "r240-p12-w1-d2-q50")]
)
def test_the_published_package_opens_a_file_with_the_same_outputs(tmp_path, preset, words):
    python = os.environ.get("RFDETR_PUBLISHED_PYTHON")
    if not python:
        pytest.skip("RFDETR_PUBLISHED_PYTHON names no Python with the published package, also called rfdetr")
    arch = Arch.parse(words)
    torch.manual_seed(0)
    model = rfdetr.build(preset, categories=CLASSES).eval()
    for weight in model.parameters():
        # As drawn, the last layers of boxes are zero and would hide a mistake.
        if weight.dim() > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    write_published(model, tmp_path / "chosen.pth", arch)
    script = Path(__file__).parents[1] / "benchmarks" / "published_export.py"
    command = [python, str(script), str(tmp_path / "chosen.pth"), str(tmp_path / "there")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    theirs = onnxruntime.InferenceSession(done.stdout.splitlines()[-1])
    images = torch.randn(1, 3, arch.resolution, arch.resolution)
    found = dict(
        zip((o.name for o in theirs.get_outputs()), theirs.run(None, {"input": images.numpy()}), strict=True)
    )
    with torch.no_grad():
        here = model(images, arch)
    assert torch.allclose(here.logits, torch.from_numpy(found["labels"]), atol=1e-4)
    assert torch.allclose(here.boxes, torch.from_numpy(found["dets"]), atol=1e-4)
    if here.masks is not None:
        assert torch.allclose(here.masks, torch.from_numpy(found["masks"]), atol=1e-3)


@pytest.mark.parametrize("segmentation", [False, True])
def test_a_transformers_folder_opens_there_with_the_same_outputs(tmp_path, segmentation):
    transformers = pytest.importorskip("transformers", minversion="5.23", reason="the Transformers package")
    model = network(segmentation=segmentation)
    write_transformers(model, tmp_path / "folder", ARCH)
    kind = "RfDetrForInstanceSegmentation" if segmentation else "RfDetrForObjectDetection"
    theirs, report = getattr(transformers, kind).from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    theirs = theirs.eval()
    for path, module in theirs.named_modules():
        # Their projector norms have eps 1e-5, the published ones 1e-6.
        if ".projector." in path and hasattr(module, "eps"):
            module.eps = 1e-6
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        here, there = model(images, ARCH), theirs(images)
    assert torch.allclose(here.logits, there.logits, atol=1e-4)
    assert torch.allclose(here.boxes, there.pred_boxes, atol=1e-4)
    assert theirs.config.id2label == dict(enumerate(CLASSES.names))


def test_the_folder_holds_a_whole_configuration_without_that_package(tmp_path):
    folder = write_transformers(network(), tmp_path / "folder", ARCH)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["backbone_config"]["patch_size"] == 12 and config["backbone_config"]["num_windows"] == 2
    assert config["num_queries"] == 6 and config["decoder_layers"] == 1 and len(config["id2label"]) == 4


@pytest.mark.parametrize("segmentation", [False, True])
def test_a_graph_with_published_names_predicts_the_same(tmp_path, segmentation):
    model = network(segmentation=segmentation)
    own = export_onnx(model, ARCH, tmp_path / "own.onnx")
    theirs = export_published_io(model, ARCH, tmp_path / "published.onnx")
    assert [spec.name for spec in theirs.inputs] == ["input"]
    assert [spec.name for spec in theirs.outputs] == ["dets", "labels", *(["masks"] if segmentation else [])]
    assert {o.version for o in onnx.load(theirs.file).opset_import if not o.domain} == {17}
    images = torch.randn(1, 3, 48, 48)
    first, second = (ArtifactModel(load_runtime("onnxruntime", a))(images) for a in (own, theirs))
    assert torch.allclose(first.logits, second.logits, atol=1e-5)
    assert torch.allclose(first.boxes, second.boxes, atol=1e-5)
    assert (first.masks is None) != segmentation


@pytest.mark.parametrize("form", ["onnx", "published", "transformers"])
def test_every_format_is_written_from_the_command_line(tmp_path, capsys, form):
    out = tmp_path / f"chosen{ENDINGS[form]}"
    words = ["export", "random:nano", "--arch", "r64-p16-w1-d1-q10", "--format", form, "--out", str(out)]
    assert main(words) == 0
    assert out.exists() and str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--format", "tflite"], "--format is one of"),
        (["--io", "theirs"], "--io is own or published"),
        (["--io", "published", "--format", "published"], "--io published names"),
        (["--arch", "r64-p16-w1-d0-q10", "--format", "published"], "r64-p16-w1-d0-q10 has no decoder layer"),
        (
            ["--arch", "r64-p16-w1-d0-q10", "--format", "transformers"],
            "Transformers package opens no such",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(capsys, words, said):
    assert main(["export", "random:nano", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_openvino_model_is_written_where_it_is_installed(tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO")
    model = network()
    write(model, ARCH, tmp_path / "chosen.xml", "openvino")
    images = torch.randn(1, 3, 48, 48)
    # Left alone, OpenVINO takes bfloat16 on processors that have it.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.compile_model(str(tmp_path / "chosen.xml"), "CPU", precision)(images.numpy())
    with torch.no_grad():
        expected = model(images, ARCH)
    assert torch.allclose(torch.from_numpy(found["logits"]), expected.logits, atol=1e-3)
