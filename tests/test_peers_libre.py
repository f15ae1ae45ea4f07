"""Networks of the package libreyolo: found without the rest of it, used like the other peers, trained from
scratch. With a package of the same shape, and with the real one where it is installed.
"""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from rfdetr.errors import UserError
from rfdetr.experiments import ch07_exports
from rfdetr.peers import building, catalogue, checking, counting, detectors, exporting, libre, yolo
from rfdetr.peers.liveliness import picture

PACKAGE = {
    "__init__.py": "",
    "models/__init__.py": "raise ImportError('it imports everything')",
    "training/__init__.py": "raise ImportError('and so does this')",
    "training/distributed.py": "HERE = True",
    "data/__init__.py": "raise ImportError('torchvision')",
    "data/pose_metadata.py": "def default_oks_sigmas(n):\n    return [1.0] * n",
    "models/cells/__init__.py": "",
    "models/cells/loss.py": "from libreyolo.data import default_oks_sigmas",
    "models/cells/nn.py": """
import torch
from torch import nn
from torchvision.ops.boxes import box_area
from libreyolo.training.distributed import HERE


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.conv = nn.Conv2d(a, b, stride, stride, bias=False)
        self.bn, self.act = nn.BatchNorm2d(b), nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.num_classes, self.export = classes, False
        self.cls_preds = nn.ModuleList([nn.Conv2d(8, classes, 1)])
        self.reg_preds = nn.ModuleList([nn.Conv2d(8, 4, 1)])
        self.obj_preds = nn.ModuleList([nn.Conv2d(8, 1, 1)])


class Network(nn.Module):
    def __init__(self, config, nb_classes=80):
        super().__init__()
        assert config == "s"
        self.stem, self.head = Block(3, 8, 8), Head(nb_classes)

    def init_weights(self):
        nn.init.constant_(self.head.obj_preds[0].bias, -3.0)

    def forward(self, x, targets=None):
        h = self.head
        x = self.stem(x)
        cells = [m[0](x).flatten(2) for m in (h.reg_preds, h.obj_preds, h.cls_preds)]
        if targets is not None:
            there = targets[..., 0] >= 0
            near = (cells[0].mean(-1)[:, None] - targets[..., 1:])[there] if there.any() else cells[0] * 0
            return {"total_loss": near.square().mean() + 0 * cells[1].sum()}
        if not h.export:
            return cells
        boxes = 24 + 10 * cells[0].tanh()
        return torch.cat([boxes, cells[1].sigmoid(), cells[2].sigmoid()], 1).transpose(1, 2)
""",
}
ENTRY = {
    "name": libre.YOLOX,
    "size": "S",
    "key": "stand-in",
    "package": "libreyolo",
    "licence": "MIT",
    "class": "libreyolo.models.cells.nn.Network",
    "config": {"kwargs": {"config": "s"}},
    "input": [48, 48],
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose parts cannot be imported as a whole, and no torchvision."""
    for name, text in PACKAGE.items():
        path = tmp_path / "libreyolo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "libreyolo"}
    for name in before:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(libre, "_find", lambda name: None)
    # It ends in cells; what it imports when it is trained is imported at once, as of a YOLOv9.
    for module in (building, detectors, libre, counting, exporting):
        monkeypatch.setattr(module, "named", lambda name: ENTRY)
    monkeypatch.setattr(exporting, "version", lambda name: "1")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "libreyolo"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_a_network_is_found_without_the_rest_of_its_package(package):
    others = {name for name in sys.modules if name.startswith("torchvision")}
    model = libre.network({**ENTRY, "name": libre.YOLOX})
    assert type(model).__name__ == "Network" and model.head.num_classes == 80
    assert float(model.head.obj_preds[0].bias.detach()) == -3
    # Nothing that stands for the rest is left.
    assert {"libreyolo.models", "libreyolo.training", "libreyolo.data"}.isdisjoint(sys.modules)
    assert {name for name in sys.modules if name.startswith("torchvision")} == others
    with pytest.raises(ImportError, match="everything"):
        __import__("libreyolo.models")
    with libre.networks_alone():
        from libreyolo.data import default_oks_sigmas

        assert default_oks_sigmas(2) == [1.0, 1.0]


def test_it_is_counted_exported_and_run_like_the_others(package, tmp_path):
    plain = counting.recount("stand-in")
    assert plain["variants"]["gflops_deployed"] == pytest.approx(plain["gflops_with_attention"])
    assert plain["variants"]["params_m_deployed"] == pytest.approx(plain["params_m"] - 8e-6)
    artifact = exporting.export_peer("stand-in", tmp_path / "peer.onnx", nms="evaluation")
    assert artifact.metadata["licence"] == "MIT" and artifact.metadata["nms"] == "evaluation"
    network = detectors.detector("stand-in")
    other = picture((48, 48), 7)
    assert (
        checking.compare(artifact, network, "evaluation", pictures=lambda seed: other) <= checking.TOLERANCE
    )
    found = detectors.outputs(network, other, "evaluation")
    assert found["boxes"].shape == (1, 300, 4) and (found["logits"] > -7).sum() >= 5


def test_deploying_keeps_what_it_finds(package):
    torch.manual_seed(0)
    model = libre.network(ENTRY).eval()
    model.stem.bn.running_mean.normal_()
    model.stem.bn.running_var.uniform_(0.5, 2)
    images = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        before = libre.form(ENTRY, model)(images)
        assert isinstance(libre.deployed(model).stem.bn, nn.Identity)
        after = libre.form(ENTRY, model)(images)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    boxes, scores = before
    assert boxes.shape == (1, 36, 4) and scores.shape == (1, 80, 36) and boxes.max() < 1
    # A YOLOX takes blue first, and 255 times the values.
    with torch.no_grad():
        raw = model(255 * images.flip(1))
    torch.testing.assert_close(scores[0], (raw[0, :, 4:5] * raw[0, :, 5:]).T, atol=1e-5, rtol=1e-5)


def test_training_from_scratch_with_own_classes(package):
    model = libre.from_scratch("stand-in", 3)
    assert model.training and model.head.num_classes == 3
    again = libre.from_scratch("stand-in", 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    images = torch.rand(2, 3, 48, 48)
    boxes = [torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.2, 0.2, 0.1, 0.1]]), torch.zeros(0, 4)]
    labels = [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.long)]
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        loss = libre.training_loss("stand-in", model, images, boxes, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert float(libre.training_loss("stand-in", model, images, [boxes[1]] * 2, [labels[1]] * 2)) == 0
    found = libre.detections("stand-in", model, images)
    assert found["logits"].shape == (2, 300, 3) and found["boxes"].shape == (2, 300, 4) and model.training


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"YOLOX S needs .* libreyolo \(MIT.*--no-deps libreyolo"):
        building.build("yolox-s")
    with pytest.raises(UserError, match=r"--no-deps libreyolo"):
        libre.from_scratch("yolov9-mit-t", 3)
    with pytest.raises(UserError, match=r"deim-n is not trained from scratch"):
        libre.from_scratch("deim-n", 3)


def test_queries_take_pictures_as_their_makers_do():
    class Stand(nn.Module):
        def forward(self, x):
            return {"pred_logits": x.mean((2, 3))[:, None], "pred_boxes": torch.zeros(1, 1, 4)}

    images = torch.rand(1, 3, 4, 4)
    plain = libre.form({"name": "DEIM", "config": {}}, Stand())(images)[0]
    torch.testing.assert_close(plain[:, 0], images.mean((2, 3)))
    normalised = libre.form({"name": "DEIMv2", "config": {"normalised": True}}, Stand())(images)[0]
    mean, std = (torch.tensor(values) for values in (libre.MEAN, libre.STD))
    torch.testing.assert_close(normalised[:, 0], (images.mean((2, 3)) - mean) / std)


def test_accuracy_on_stand_in_data(package, tmp_path, monkeypatch):
    monkeypatch.setattr(ch07_exports.catalogue, "named", lambda name: ENTRY)
    monkeypatch.setattr(ch07_exports, "_version", lambda package: "1")
    from rfdetr.experiments.base.parts import Place

    row = ch07_exports.peer_part(Place(tmp_path, "peer", "cpu"), "stand-in")
    assert row["difference"] <= row["tolerance"] and row["objects"] > 10
    assert 0.02 < row["eager_ap"] < 1 and row["file_ap"] == pytest.approx(row["eager_ap"], abs=1e-3)


def test_detectors_of_today_and_what_was_exported():
    table = ch07_exports.today()
    assert {"YOLOX S", "YOLOv9 (MIT) T", "DEIM N", "DEIMv2 S", "RT-DETRv4 S", "RT-DETRv2 R18"} <= set(
        table.model
    )
    assert (table.gflops > 1).all() and table.licence.str.contains("AGPL").any()
    assert set(ch07_exports.EXPORTED) <= set(catalogue.keys()) and len(ch07_exports.EXPORTED) >= 12
    import pandas as pd

    rows = [
        {"name": f"peer-{i}", "difference": 1e-5 * i, "tolerance": 1e-3, "eager_ap": 0.5, "file_ap": 0.5 + e}
        for i, e in ((1, 0.0), (2, 0.0), (300, 0.01))
    ]
    text = ch07_exports.said(pd.DataFrame(rows))
    assert text.startswith("2 of 3 files") and "by more than 0.001: peer-300" in text
    assert "by more" not in ch07_exports.said(pd.DataFrame(rows[:2]))


real = pytest.mark.skipif(find_spec("libreyolo") is None, reason="libreyolo is not installed")


@real
@pytest.mark.parametrize("name", ["yolox-t", "yolov9-mit-t", "deim-n", "deimv2-n", "rt-detrv4-s"])
def test_the_real_networks_are_those_of_the_record_and_their_files_equal_them(name, tmp_path):
    from rfdetr.peers.comparing import is_same, rows_of

    entry = catalogue.named(name)
    for convention, counted, recorded in rows_of(entry, counting.recount(name)):
        assert recorded is None or is_same(counted, recorded), convention
    artifact = exporting.export_peer(name, tmp_path / "peer.onnx", nms="evaluation")
    network = detectors.detector(name)
    side = entry["input"][0]
    other = lambda seed: picture((side, side), seed + 10)  # noqa: E731
    assert checking.compare(artifact, network, "evaluation", pictures=other) <= checking.TOLERANCE


@real
@pytest.mark.parametrize("name", ["yolox-t", "yolov9-mit-t"])
def test_the_real_networks_learn(name):
    model = libre.from_scratch(name, 2)
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.random((2, 3, 64, 64), dtype=np.float32))
    boxes = [torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[0.3, 0.4, 0.3, 0.3], [0.7, 0.7, 0.4, 0.3]])]
    labels = [torch.tensor([0]), torch.tensor([1, 0])]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = libre.training_loss(name, model, images, boxes, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    found = libre.detections(name, model, images)
    assert found["logits"].shape == (2, yolo.MOST, 2)
