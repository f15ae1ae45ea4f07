"""The convolutional baseline: its training loop, its files, and the whole study with a stand-in for the
network, which has the interface of the package's.
"""

import os
import signal

import numpy as np
import pytest
import torch
from study_parts import perform_all
from torch import nn

from rfdetr.data.scenes import scenes
from rfdetr.data.transforms import preprocess_batch
from rfdetr.errors import UserError
from rfdetr.experiments import ch09_convolution as study
from rfdetr.experiments import ch09_convolution_network as convolution
from rfdetr.experiments import ch09_convolution_parts as parts
from rfdetr.experiments import ch09_convolution_reading as reading
from rfdetr.experiments.base import kept, per_image
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.export.onnx import cpu_session
from rfdetr.peers import yolo
from rfdetr.training.signals import Interrupted

SIDE = 64
RECIPE = {"optimizer": "sgd", "lr": 0.01, "batch_size": 4, "seed": 0}


class Standin(nn.Module):
    """A network with the interface of the package's: a loss in training, decoded cells for the export."""

    def __init__(self, classes):
        super().__init__()
        self.head = nn.Module()
        self.head.export = False
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.SiLU(), nn.Conv2d(8, 5 + classes, 1))
        self.seen = []

    def forward(self, images, targets=None):
        raw = self.layers(images / 255)
        cells = raw.flatten(2).transpose(1, 2)
        if self.training:
            self.seen.append((float(images.min()), float(images.max()), targets))
            wanted = targets[..., 1:].sum(1, keepdim=True) / 100
            return {"total_loss": ((cells[..., :4] - wanted) ** 2).mean() + (cells[..., 4:] ** 2).mean()}
        side = raw.shape[-1]
        line = (torch.arange(side) + 0.5) * 16
        centres = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(1, -1, 2)
        boxes = torch.cat([centres + cells[..., :2].tanh() * 4, 12 + cells[..., 2:4].tanh() * 4], -1)
        return torch.cat([boxes, cells[..., 4:].sigmoid()], -1)


def made(classes, seed, size="n"):
    torch.manual_seed(seed)
    return Standin(classes)


def ticking():
    """A clock that goes on by a second whenever it is looked at."""
    time = iter(range(10_000))
    return lambda: float(next(time))


@pytest.fixture
def train():
    return scenes("digits", "train", size=6, canvas=SIDE)


def test_the_loss_gets_pictures_and_objects_as_the_package_wants_them(train):
    pixels = [train[i][0] for i in range(3)]
    images = preprocess_batch(pixels, SIDE)
    wanted = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(convolution.values(images), wanted, atol=1e-2, rtol=0)
    targets = [train[i][1] for i in range(3)]
    rows = convolution.labels(targets, SIDE)
    assert rows.shape == (3, max(map(len, targets)), 5)
    for row, target in zip(rows, targets, strict=True):
        assert row[: len(target), 0].tolist() == target.labels.tolist()
        torch.testing.assert_close(row[: len(target), 1:], target.boxes * SIDE)
        assert not row[len(target) :].any()
    none = [target.__class__(t.labels[:0], t.boxes[:0], None, 1, (64, 64)) for t in targets for target in [t]]
    assert convolution.labels(none, SIDE).shape == (3, 1, 5)


def test_a_training_takes_the_time_that_it_has_and_goes_on_where_it_was_stopped(train, tmp_path):
    whole = made(10, 0)
    done = convolution.fit(whole, train, RECIPE, 8, SIDE, tmp_path / "whole", ticking())
    assert done.steps == 8 and done.seconds == 8 and done.skipped == 0 and not whole.training
    low, high, _ = whole.seen[0]
    assert low >= -0.5 and 100 < high < 256

    class Stopped(Standin):
        def forward(self, images, targets=None):
            found = super().forward(images, targets)
            if len(self.seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

    torch.manual_seed(0)
    stopped = Stopped(10)
    with pytest.raises(Interrupted):
        convolution.fit(stopped, train, RECIPE, 8, SIDE, tmp_path / "work", ticking())
    again = made(10, 5)  # what it had learned is in the folder
    rest = convolution.fit(again, train, RECIPE, 8, SIDE, tmp_path / "work", ticking())
    assert rest.steps == 8 and len(again.seen) == 5
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_loss_that_is_not_finite_changes_nothing(train, tmp_path):
    class Broken(Standin):
        def forward(self, images, targets=None):
            return {"total_loss": super().forward(images, targets)["total_loss"] * float("nan")}

    torch.manual_seed(0)
    model = Broken(10)
    before = [p.clone() for p in model.parameters()]
    done = convolution.fit(model, train, {**RECIPE, "optimizer": "adamw"}, 3, SIDE, tmp_path, ticking())
    assert done.skipped == 3 and np.isnan(done.loss)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("nms", yolo.MODES)
def test_the_file_finds_what_the_network_finds(train, tmp_path, nms):
    model = made(10, 1).eval()
    artifact = convolution.export(model, SIDE, train, nms, tmp_path / "a.onnx")
    assert not model.head.export and artifact.categories == train.category_ids
    assert artifact.metadata["nms"] == nms
    images = preprocess_batch([train[0][0]], SIDE)
    network = convolution.Cells(model, SIDE)
    with torch.no_grad(), convolution._decoding(model):
        cells = yolo.as_arrays(network(images))
    assert cells[0].shape == (1, 16, 4) and cells[1].shape == (1, 10, 16)
    wanted = yolo.finished(cells, yolo.mode_of(nms))
    names = [o.name for o in artifact.outputs]
    found = dict(zip(names, cpu_session(artifact.file).run(None, {"images": images.numpy()}), strict=True))
    for name in ("logits", "boxes"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-3)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(parts, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install"):
        parts.network(3, 0)


def test_the_plan_begins_with_one_seed_of_all_domains():
    planned = study.parts(PROFILES["cpu"], 0)
    names = [part.name for part in planned]
    assert len(set(names)) == len(names)
    for number, part in enumerate(planned):
        assert set(part.needs) <= set(names[:number]), part.name
        assert part.device == ("" if part.name.startswith("data-") else "cpu")
    trained = [name for name in names if "-seed" in name]
    real = study.SIZES["cpu"].real
    assert trained[: len(real)] == [f"{domain}-seed0" for domain in real]
    assert {name.split("-seed")[0] for name in trained[len(real) :]} == set(study.SEVERAL)
    # A domain's files are timed beside what the kept benchmark chose there.
    chosen = study.benchmark_choices()
    archs = {
        part.options["domain"]: part.options["archs"] for part in planned if part.name.startswith("time-")
    }
    assert set(archs) == set(real) and all(archs[d] == chosen.get(d, {}) for d in real)
    assert all(set(found) == {"searched, N", "searched, S", "searched, M"} for found in chosen.values())


def test_the_study_from_its_parts_to_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "network", made)
    small = study.Study(study.NAME, "smoke", study.parts, study.keep, study.STUDY.modules,
                        study.STUDY.settings)  # fmt: skip
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="no domain is done"):
        small.keep(tmp_path / "early", 0, store)
    perform_all(small.task(0, store))
    small.keep(tmp_path / study.NAME, 0, store)
    found = kept.load(study.NAME, tmp_path)
    tests, recipes = found.tables["tests"], found.tables["recipes"]
    assert tests["domain"].tolist() == ["crowd"] * 2 and set(tests["kind"]) == set(study.KIND.values())
    assert set(recipes["domain"]) == {study.BASELINE["smoke"].chosen_on} and not found.record["missing"]
    best = recipes.loc[recipes["val_AP"].idxmax(), "part"]
    assert (tests["recipe"] == best).all() and (tests["steps"] >= 1).all()
    # Time is given by the supernet's steps on the same domain.
    steps = study.SIZES["smoke"].steps
    assert tests["allowed_s"].to_numpy() == pytest.approx(steps * found.record["paces"]["crowd"], abs=0.06)
    assert (tests["seconds"] >= tests["allowed_s"] - 0.1).all()
    # The intervals can be computed anew from what was found per picture.
    arrays = {
        k.removeprefix(study.PER_IMAGE): v for k, v in found.arrays.items() if k.startswith(study.PER_IMAGE)
    }
    images = arrays["objects-0"].shape[1]
    for number, ap in enumerate(tests["AP"]):
        again = per_image.one_of(arrays, number).ap(np.ones((1, images)))
        assert float(again[0]) == pytest.approx(ap, abs=1e-5)
    latency = found.tables["latency"]
    assert set(latency["network"]) == {"convolution, evaluation", "convolution, deployed"}
    assert (latency["median_ms"] > 0).all()
    both = set(latency["sha256"])
    assert both == set(tests["sha256"]) and len(both) == 2
    assert len(reading.latencies(found)) == 4
    assert PROFILES["smoke"].name == found.record["provenance"]["profile"]
