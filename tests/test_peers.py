"""The paper's other detectors: record, command line, and what is made of their networks, with stand-ins."""

import pickle
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rfdetr import load_exported
from rfdetr.benchmark.lab import benchmark_command
from rfdetr.cli import main
from rfdetr.errors import UserError
from rfdetr.export.onnx import ExportError
from rfdetr.peers import building, catalogue, checking, detectors, exporting, liveliness, yolo
from rfdetr.peers.deploying import SelectedOnly, merge_branches


def test_every_peer_has_a_name_and_every_large_difference_a_cause():
    paper, today = catalogue.entries(), catalogue.entries(today=True)[len(catalogue.entries()) :]
    assert len(paper) >= 38 and len(today) >= 10
    assert len(set(catalogue.keys())) == len(paper) + len(today)
    for entry in paper + today:
        assert catalogue.named(catalogue.key(entry)) is entry
        assert entry["params_m"] > 1 and entry["gflops_with_attention"] >= entry["gflops_no_attention"] > 1
        limits = {"params": catalogue.PARAMETERS_LIMIT, "gflops": catalogue.GFLOPS_LIMIT}
        beyond = [kind for kind, off in catalogue.differences(entry).items() if abs(off) > limits[kind]]
        assert bool(catalogue.cause(entry)) == bool(beyond), catalogue.key(entry)
    assert "R50-m" in catalogue.cause(catalogue.named("rt-detr-r18"))
    assert "counted 4 times" in catalogue.cause(catalogue.named("yolov8-seg-n"))
    assert catalogue.cause(catalogue.named("yolov8-n")) == "parameters: rounding of the printed number"
    assert not any(catalogue.cause(entry) for entry in today)


def test_command_line_without_the_packages(monkeypatch, capsys, tmp_path):
    assert main(["peers", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in set(catalogue.keys()))
    assert "AGPL-3.0" in listed and "84.0" not in listed and "36.0 / 100.0" in listed
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    for command in (
        ["count", "d-fine-s"],
        ["count"],
        ["export", "yolo11-n", "--out", str(tmp_path / "a.onnx")],
    ):
        assert main(["peers", *command]) == 2
        assert "[peers]'" in capsys.readouterr().err
    assert main(["peers", "export", "d-fine-q"]) == 2
    assert "d-fine-s" in capsys.readouterr().err
    with pytest.raises(UserError, match="AGPL"):
        building.build("yolov8-n")


def cells(seed, classes=4, count=40, masks=True, side=8):
    """Outputs of a YOLO's network: clustered boxes, distinct scores with some over either threshold."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0.2, 0.8, (5, 2))[random.integers(0, 5, count)]
    boxes = np.concatenate(
        [centres + random.normal(0, 0.03, (count, 2)), random.uniform(0.05, 0.3, (count, 2))], axis=1
    )
    scores = random.permutation(np.linspace(1e-5, 0.9, classes * count)).reshape(classes, count) ** 2
    values = [boxes[None], scores[None]]
    if masks:
        values += [random.normal(size=(1, 6, count)), random.normal(size=(1, 6, side, side))]
    return [value.astype(np.float32) for value in values]


def run_end(values, mode):
    graph = yolo.end_graph([value.shape for value in values], yolo.MODES[mode], exporting.OPSET)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = dict(zip(yolo.output_names(len(values) == 4), values, strict=True))
    return dict(zip(names, session.run(names, feed), strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(yolo.MODES)), st.booleans())
def test_the_end_in_the_file_is_the_end_in_numpy(seed, mode, masks):
    values = cells(seed, masks=masks)
    found, expected = run_end(values, mode), yolo.finished(values, yolo.MODES[mode])
    assert found.keys() == expected.keys() == {"logits", "boxes", *(["masks"] if masks else [])}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def test_the_two_ways_of_choosing_boxes_differ_as_they_should():
    values = cells(3)
    scores = {
        mode: 1 / (1 + np.exp(-yolo.finished(values, how)["logits"][0].astype(float).clip(-50)))
        for mode, how in yolo.MODES.items()
    }
    few, many = ((scores[mode] > 1e-6).sum() for mode in ("deployed", "evaluation"))
    assert 0 < few < many
    assert scores["deployed"].max() == pytest.approx(scores["evaluation"].max())
    chosen = scores["deployed"][scores["deployed"] > 1e-6]
    assert chosen.min() > 0.25
    # Masks are inside their boxes.
    found = yolo.finished(values, yolo.MODES["deployed"])
    box, mask = found["boxes"][0, 0], found["masks"][0, 0]
    rows, columns = np.nonzero(mask)
    side = mask.shape[-1]
    assert (columns / side >= box[0] - box[2] / 2 - 1e-6).all()
    assert (rows / side < box[1] + box[3] / 2 + 1e-6).all()
    with pytest.raises(UserError, match="evaluation"):
        yolo.mode_of("soft")


class ConvNorm(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x):
        return self.norm(self.conv(x))


class StandInRepVggBlock(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(width, 3), ConvNorm(width, kernel)
        self.together = kernel == 1

    def forward(self, x):
        return self.conv1(x) + self.conv2(x) if self.together else self.conv2(self.conv1(x))


def test_merged_branches_compute_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(StandInRepVggBlock(6, 1), nn.ReLU(), StandInRepVggBlock(6, 1)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    images = torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        before = model(images)
        weights = sum(p.numel() for p in model.parameters())
        assert merge_branches(model) == 2 and merge_branches(model) == 0
        assert sum(p.numel() for p in model.parameters()) < weights
        torch.testing.assert_close(model(images), before, atol=1e-5, rtol=1e-5)
    # One after the other is not two branches.
    assert merge_branches(StandInRepVggBlock(6, 3)) == 0


def test_boxes_of_the_selected_tokens_alone_are_the_same_boxes():
    torch.manual_seed(0)
    scores, boxes, tokens = nn.Linear(8, 5), nn.Linear(8, 4), torch.randn(2, 50, 8)
    head = SelectedOnly(scores, boxes, 7)
    with torch.no_grad():
        logits, found = head.scores(tokens), head(tokens)
        index = logits.max(-1).values.topk(7, dim=1).indices[..., None].expand(-1, -1, 4)
        torch.testing.assert_close(found.gather(1, index), boxes(tokens).gather(1, index))
        torch.testing.assert_close(logits, scores(tokens))
    assert int((found.abs().sum(-1) > 0).sum()) == 14


def test_lively_networks_have_activations_and_scores_of_a_spread():
    torch.manual_seed(0)
    model = nn.Sequential(*(ConvNorm(3, 3) for _ in range(6))).eval()
    picture = liveliness.picture((32, 32))
    with torch.no_grad():
        assert model(picture).std() < 0.3
        liveliness.enliven(model, model, (32, 32))
        assert 0.8 < model(picture).std() < 1.2
    layers = [nn.Conv2d(3, 40, 1), nn.Conv2d(3, 40, 1)]
    liveliness.spread_scores(layers, lambda: [layer(picture) for layer in layers])
    with torch.no_grad():
        scores = torch.cat([layer(picture).flatten() for layer in layers]).sigmoid()
    for threshold, share in liveliness.SHARES.items():
        assert float((scores > threshold).float().mean()) == pytest.approx(share, rel=0.2)


def test_weights_are_read_without_executing_anything(tmp_path):
    model = nn.Linear(3, 2)
    torch.save({name: value + 1 for name, value in model.state_dict().items()}, tmp_path / "good.pt")
    before = model.weight.detach().clone()
    building.load_weights(model, tmp_path / "good.pt", "x")
    torch.testing.assert_close(model.weight.detach(), before + 1)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(SimpleNamespace(a=1)))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    for name, words in (
        ("evil.pt", "not executed|cannot read"),
        ("other.pt", "no weights of x"),
        ("no.pt", "no.pt"),
    ):
        with pytest.raises(UserError, match=words):
            building.load_weights(model, tmp_path / name, "x")


class StandInYolo(nn.Module):
    """As much of a YOLO as is exported: 6 cells a side, 80 classes, masks of 4 prototypes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4 + 80 + 4, 8, stride=8)
        self.prototypes = nn.Conv2d(3, 4, 4, stride=4)
        self.model = [SimpleNamespace(nc=80, proto=True, end2end=False)]

    def forward(self, images):
        raw = self.conv(images).flatten(2)
        boxes = raw[:, :4].sigmoid() * 48
        scores = (3 * raw[:, 4:84]).sigmoid()
        return torch.cat([boxes, scores, raw[:, 84:]], 1), self.prototypes(images)


@pytest.mark.parametrize("masks", ["whole", "prototypes"])
def test_an_exported_peer_is_used_like_our_own_files(monkeypatch, tmp_path, masks):
    entry = {**catalogue.named("yolo11-seg-n"), "input": [48, 48]}
    torch.manual_seed(0)
    monkeypatch.setattr(exporting, "version", lambda package: "1")
    monkeypatch.setattr(detectors, "named", lambda name: entry)
    monkeypatch.setattr(exporting, "named", lambda name: entry)
    monkeypatch.setattr(detectors, "build", lambda name, weights: StandInYolo())
    monkeypatch.setattr(detectors, "lively", lambda name: StandInYolo())
    monkeypatch.setattr(detectors, "deploy", lambda entry, model: model)
    path = tmp_path / "peer.onnx"
    artifact = exporting.export_peer("x", path, nms="evaluation", masks=masks)
    assert [o.name for o in artifact.outputs][:2] == ["logits", "boxes"]
    assert artifact.has_masks == (masks == "whole")
    assert artifact.metadata["nms"] == "evaluation" and artifact.categories.num_classes == 80
    model = load_exported(path)
    found = model.predict_one(np.full((60, 80, 3), 90, np.uint8), threshold=0.3)
    assert len(found) > 0 and set(found.names) <= set(artifact.categories.names)
    (record,) = benchmark_command(
        str(path), "onnxruntime", ["sustained"], seconds=0.05, runs=1, progress=False, log=lambda text: None
    )
    assert record.median_ms > 0 and ("masks" in record.includes) == (masks == "whole")
    # A file that computes something else is not kept.
    monkeypatch.setattr(checking, "outputs", lambda *a, **k: {"boxes": np.ones((1, 300, 4), np.float32) * 9})
    with pytest.raises(ExportError, match="differs"):
        exporting.export_peer("x", tmp_path / "bad.onnx")
    assert not (tmp_path / "bad.onnx").exists()


def test_what_cannot_be_exported_is_said():
    for name in ("hiera-s", "groundingdino-t"):
        with pytest.raises(UserError, match="counted, not exported"):
            detectors.detector(name)
    with pytest.raises(UserError, match="yolov10-n is counted only"):
        detectors.detector("yolov10-n")
    with pytest.raises(UserError, match="whole or prototypes"):
        exporting.export_peer("yolo11-n", "/tmp/unused.onnx", masks="half")
