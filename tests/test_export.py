import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from lab_fixtures import ARCH, CLASSES, SIZES, exported, network

from rfdetr import Arch, ArchError, build
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.runtimes.base import Runtime, RuntimeInfo
from rfdetr.data.categories import CategoryMap
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.export import onnx as export
from rfdetr.export.artifact import load_artifact


@pytest.mark.parametrize("segmentation", [False, True])
def test_file_equals_the_network(segmentation) -> None:
    artifact, model = exported(segmentation), network(segmentation)
    onnx.checker.check_model(str(artifact.file), full_check=True)
    assert export.compare_with_eager(artifact, model.subnet(ARCH), seed=5) < 1e-4
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(9))
    found = export.cpu_session(artifact.file).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images, ARCH)
    np.testing.assert_allclose(found[0], expected.logits, atol=1e-4)
    np.testing.assert_allclose(found[1], expected.boxes, atol=1e-4)
    if segmentation:
        np.testing.assert_allclose(found[2], expected.masks, atol=1e-4)
    names = ["logits", "boxes", "masks"] if segmentation else ["logits", "boxes"]
    assert [o.name for o in artifact.outputs] == names


def test_graph_holds_only_what_one_subnetwork_needs() -> None:
    artifact = exported()
    graph = onnx.load(artifact.file).graph
    assert [i.name for i in graph.input] == ["images"]
    # No position interpolation and no patch resizing: those would be Resize nodes.
    assert "Resize" not in {n.op_type for n in graph.node}
    weights = sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    subnet = sum(p.numel() for p in network().subnet(ARCH).parameters())
    assert 0.9 * subnet < weights < 1.05 * subnet
    # Readable names, from the modules; no file names of this machine.
    assert any(n.name == "backbone.blocks.0.norm1/LayerNormalization" for n in graph.node)
    assert len({n.name for n in graph.node}) == len(graph.node)
    content = artifact.file.read_bytes()
    assert b".py" not in content and b"/site-packages" not in content


def test_runtime_recognises_gelu(tmp_path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(exported().file), options, providers=["CPUExecutionProvider"])
    operators = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("Gelu") == SIZES["depth"] and "Erf" not in operators


def test_metadata_describes_the_file() -> None:
    artifact = load_artifact(exported().file)
    assert artifact.arch == ARCH and artifact.precision == "fp32"
    assert artifact.categories == CLASSES and artifact.num_classes == len(CLASSES)
    assert artifact.metadata["source_sha256"] == export.fingerprint(network())
    assert int(artifact.metadata["opset"]) == onnx.load(artifact.file).opset_import[0].version >= 17
    assert {"torch", "onnx", "onnxscript", "rfdetr"} <= set(json.loads(artifact.metadata["versions"]))
    assert artifact.inputs[0].shape == (1, 3, 48, 48)


def test_one_trace_serves_depths_two_serve_query_counts_and_bytes_are_those_of_a_single_export(
    tmp_path, monkeypatch
) -> None:
    single = exported()  # before traces are counted, whichever test runs first
    traces = []
    real = export.graph.trace
    monkeypatch.setattr(export.graph, "trace", lambda *a: (traces.append(a), real(*a))[1])
    archs = [Arch(48, 8, 1, depth, queries) for depth in (0, 1, 2) for queries in (4, 8, 12)]
    progress = []
    many = export.export_many(network(), archs, tmp_path, progress=lambda *p: progress.append(p))
    assert len(traces) == 2
    assert progress == [(i, 9) for i in range(1, 10)]
    assert list(many) == sorted(archs)
    assert len({a.sha256 for a in many.values()}) == 9
    assert many[ARCH].file.read_bytes() == single.file.read_bytes()
    assert many[ARCH].outputs[0].shape == (1, 8, len(CLASSES))
    # Files of the same weights are used again; of other weights they are not.
    assert export.export_many(network(), archs, tmp_path) == many and len(traces) == 2
    other = copy.deepcopy(network())
    with torch.no_grad():
        other.class_head.bias += 1
    assert export.export_many(other, [ARCH], tmp_path)[ARCH].sha256 != single.sha256


def test_model_is_untouched_and_nothing_is_printed(tmp_path, capfd) -> None:
    model = copy.deepcopy(network()).train()
    model.backbone.norm.weight.requires_grad_(False)
    before = {n: (p.detach().clone(), p.requires_grad, p.data_ptr()) for n, p in model.named_parameters()}
    artifact = export.export_onnx(model, ARCH, tmp_path / "a.onnx", dynamic_batch=True)
    assert model.training and all(m.training for m in model.modules())
    for name, parameter in model.named_parameters():
        value, wants, address = before[name]
        assert torch.equal(parameter, value) and (parameter.requires_grad, parameter.data_ptr()) == (
            wants,
            address,
        )
    assert model(torch.zeros(1, 3, 48, 48), ARCH).logits.shape[1] == 8 * SIZES["groups"]
    assert capfd.readouterr() == ("", "")

    # The open batch is one, and every image is treated alone.
    images = np.random.default_rng(0).standard_normal((5, 3, 48, 48)).astype(np.float32)
    session = export.cpu_session(artifact.file)
    together = session.run(["logits"], {"images": images})[0]
    alone = np.concatenate([session.run(["logits"], {"images": i[None]})[0] for i in images])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert artifact.inputs[0].shape == ("batch", 3, 48, 48)


def test_a_graph_that_computes_something_else_is_found(tmp_path) -> None:
    model = onnx.load(exported().file)
    bias = next(t for t in model.graph.initializer if t.name.startswith("class_head/Add"))
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.float32(0.01)).tobytes()
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(export.ExportError, match="differs from the network"):
        export.compare_with_eager(load_artifact(tmp_path / "wrong.onnx"), network().subnet(ARCH))


def test_accuracy_of_the_file_is_that_of_the_network() -> None:
    from rfdetr.evaluation.coco import evaluate

    data = scenes("digits", "val", size=6)
    model, artifact = network(True), exported(True)
    eager = evaluate(model, data, ARCH).row()
    deployed = evaluate_artifact(artifact, data).row()
    assert eager.keys() == deployed.keys()
    for metric, value in eager.items():
        assert deployed[metric] == pytest.approx(value, abs=1e-3, nan_ok=True), metric


@pytest.mark.parametrize(
    ("options", "words"), [({"opset": 16}, "opset 16 is too old"), ({"batch": 0}, "batch must be at least 1")]
)
def test_wrong_options_are_named(tmp_path, options, words) -> None:
    with pytest.raises(UserError, match=words):
        export.export_onnx(network(), ARCH, tmp_path / "a.onnx", **options)


def test_a_subnetwork_is_only_itself(tmp_path) -> None:
    with pytest.raises(ArchError, match="this sub-network is r48-p8-w1-d2-q8, not"):
        export.export_onnx(network().subnet(ARCH), Arch(48, 8, 1, 1, 8), tmp_path / "a.onnx")


def test_published_sizes_are_recognised() -> None:
    with torch.device("meta"):
        assert export.find_preset(build("nano").config) == "nano"
        assert export.find_preset(build("seg-small", num_classes=3).config) == "seg-small"
    assert export.find_preset(network().config) == ""


def test_files_of_other_makers_and_of_earlier_versions_say_their_classes() -> None:
    official = CategoryMap.official()
    names = json.dumps([official.name_of(index) for index in range(91)])
    artifact = replace(exported(), metadata={"class_names": names})
    assert artifact.categories == official
    assert replace(artifact, metadata={"class_names": '["a", "b"]'}).categories.ids == (1, 2)
    nameless = replace(artifact, metadata={})
    assert nameless.categories is None
    assert nameless.with_categories(CLASSES).categories == CLASSES
    with pytest.raises(UserError, match=f"has {len(CLASSES)} classes, .* those of 91"):
        nameless.with_categories(official)


def with_weights_outside(folder, change=0.0):
    """The exported file with its large tensors in `weights.bin`, one of them changed."""
    folder.mkdir()
    model = onnx.load(exported().file)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + np.float32(change)).tobytes()
    onnx.save(
        model, folder / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024
    )
    return folder / "net.onnx"


def test_weights_in_a_second_file_belong_to_the_identity(tmp_path, capsys) -> None:
    from rfdetr.cli import main

    first, same, other = (with_weights_outside(tmp_path / n, c) for n, c in (("a", 0), ("b", 0), ("c", 1)))
    assert first.read_bytes() == same.read_bytes() == other.read_bytes()
    names = [load_artifact(path).sha256 for path in (first, same, other)]
    assert names[0] == names[1] != names[2]
    command = ["evaluate", str(first), "--data", "digits", "--split", "val"]
    assert main(command) == 0
    (tmp_path / "a" / "weights.bin").unlink()
    for arguments in (command, ["predict", str(first), "x.png"], ["benchmark", str(first)]):
        (tmp_path / "x.png").write_bytes(b"")
        capsys.readouterr()
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "has weights in the file weights.bin" in error and error.count("\n") == 1


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_are_read_from_the_folder_of_the_graph_only(tmp_path, location) -> None:
    path = with_weights_outside(tmp_path / "a")
    shutil.copy(tmp_path / "a" / "weights.bin", tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="which is not in"):
        load_artifact(path)


def test_a_file_says_what_goes_in_and_what_comes_out() -> None:
    metadata = exported(True).metadata
    outputs = json.loads(metadata["outputs"])
    assert set(outputs) == {o.name for o in exported(True).outputs}
    assert "sigmoid" in outputs["logits"] and "centre x" in outputs["boxes"]
    assert (
        "(0.485, 0.456, 0.406)" in metadata["preprocessing"] and "masks" not in exported().metadata["outputs"]
    )


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch) -> None:
    from rfdetr.cli import main

    def work(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("rfdetr.cli.measure.open_network", work)
    file = tmp_path / "file"
    file.touch()
    for out, words in (
        (
            tmp_path,
            f"--out {tmp_path} is a folder: give the name of a file, for example {tmp_path}/model.onnx",
        ),
        (tmp_path / "net.pt", f"must end in .onnx: for example {tmp_path}/net.onnx"),
        (file / "net.onnx", f"{file} is a file, not a folder"),
    ):
        assert main(["export", "nano", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(UserError, match="is a folder"):
        export.export_onnx(network(), ARCH, tmp_path)


class Broken(Runtime):
    """A runtime whose every query has an output that is not finite: the logits of one, the boxes of the
    next.
    """

    info = RuntimeInfo("broken", "1", "none", "fp16")

    def __init__(self) -> None:
        self.artifact = exported()

    @classmethod
    def load(cls, artifact, **options):
        return cls()

    def bind(self, inputs) -> None: ...

    def infer(self) -> None: ...

    def fetch(self):
        logits, boxes = np.full((1, 8, len(CLASSES)), 5.0), np.full((1, 8, 4), 0.5)
        logits[:, ::2], boxes[:, 1::2] = np.nan, np.inf
        return {"logits": logits, "boxes": boxes}


def test_outputs_that_are_not_finite_find_nothing() -> None:
    data = scenes("digits", "val", size=2)
    result = evaluate_artifact(Broken(), data)
    assert result.ap == 0 and all((found["scores"] == 0).all() for found in result.detections)


@pytest.mark.parametrize("segmentation", [False, True])
def test_twenty_random_subnetworks_equal_the_network(segmentation, tmp_path) -> None:
    random = np.random.default_rng(11)
    # Tracing is what takes long, so the encoders repeat: two of them, with any decoder.
    encoders = [(48, 8, 1), (64, 16, 2)]
    archs: set[Arch] = set()
    while len(archs) < 20:
        encoder = encoders[random.integers(len(encoders))]
        archs.add(
            Arch(*encoder, int(random.integers(SIZES["decoder_layers"] + 1)), int(random.integers(1, 13)))
        )
    model = network(segmentation)
    # `check` compares each file with the network and raises above the tolerance.
    found = export.export_many(model, archs, tmp_path, check=True)
    assert len({a.sha256 for a in found.values()}) == 20
    assert all(a.has_masks == segmentation and a.arch == arch for arch, a in found.items())
