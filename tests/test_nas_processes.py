"""Trainings of a search by several processes: one network, its errors in one line, its end with the run."""

import json
import subprocess
import sys

import pytest
import torch
from train_fixtures import coco_scenes
from training_case import CONFIG, MODEL, SPACE

from rfdetr import RFDETR, UserError
from rfdetr.nas import processes
from rfdetr.nas.processes import Trainer
from rfdetr.training.checkpoint import load_checkpoint, model_from_checkpoint
from rfdetr.training.log import read_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coco_scenes(tmp_path_factory.mktemp("data") / "mine", {"train": 8, "val": 3, "test": 3})


def network(folder):
    torch.manual_seed(0)
    categories = Trainer(str(folder)).split("train").category_ids
    return RFDETR(**{**MODEL, "num_classes": len(categories)}, categories=categories)


def test_two_processes_train_one_network_in_a_program_of_their_own(folder, tmp_path, capfd):
    model = network(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = CONFIG.replace(steps=3, batch_size=1, evaluate_every=2)
    two = Trainer(str(folder), devices=2)(model, SPACE, config, tmp_path / "two", notes={"start": "here"})
    assert "step 3/3" in capfd.readouterr().out
    saved = load_checkpoint(tmp_path / "two" / "checkpoint.pt")
    assert two.step == saved.step == 3 and saved.provenance["processes"] == 2
    assert {row["step"] for row in two.evaluations} == {2, 3} and two.grown_mb > 0
    assert [row["step"] for row in read_log(tmp_path / "two")] == [1, 2, 3]
    # Half as many pictures for each of two is the same training; only rounding differs.
    one = Trainer(str(folder))(network(folder), SPACE, config.replace(batch_size=2), tmp_path / "one")
    assert one.step == 3
    first, second = (model_from_checkpoint(tmp_path / name).state_dict() for name in ("one", "two"))
    gaps = torch.cat([(value - second[name]).abs().flatten() for name, value in first.items()])
    assert gaps.mean() < 0.1 * config.lr  # Adam makes a whole step of a rounding error in a tiny gradient
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list((tmp_path / "two").glob("job*.pt"))


def test_an_error_of_such_a_program_is_one_line(folder, tmp_path, monkeypatch):
    def fails(command):
        done = tmp_path / "run" / "job.json"
        done.write_text(json.dumps({"error": "no space left to write x: free some space"}))
        return 2

    monkeypatch.setattr(processes, "_wait", fails)
    with pytest.raises(UserError, match=r"2 processes .*no space left to write x"):
        Trainer(str(folder), devices=2)(network(folder), SPACE, CONFIG, tmp_path / "run")
    monkeypatch.setattr(processes, "_wait", lambda command: 130)
    with pytest.raises(SystemExit):
        Trainer(str(folder), devices=2)(network(folder), SPACE, CONFIG, tmp_path / "other")


def test_every_training_of_a_run_gets_its_processes(folder, tmp_path, monkeypatch):
    """What is passed on, without the cost of starting processes: here each training runs in this one."""
    from rfdetr.cli import main

    asked = []

    def here(self, model, space, config, place, *, evaluated=True, **options):
        asked.append((place.name, self.devices, config.batch_size))
        alone = Trainer(self.data, self.skip_missing, 1, self.opened)
        return alone._here(model, space, config, place, evaluated, **{"notes": {}, **options})

    monkeypatch.setattr(processes, "check_devices", lambda devices: None)
    monkeypatch.setattr("rfdetr.nas.pipeline.check_devices", lambda devices: None)
    monkeypatch.setattr(Trainer, "__call__", here)
    monkeypatch.setattr("rfdetr.nas.pipeline.write_report", lambda run: None)
    out = tmp_path / "run"
    words = ["--steps", "3", "--batch-size", "4", "--resolutions", "32", "--patch-sizes", "16"]
    words += ["--windows", "1", "--queries", "4", "--measured", "2", "--devices", "2", "--baseline"]
    assert main(["nas", "--data", str(folder), "--out", str(out), *words]) == 0
    assert {devices for _, devices, _ in asked} == {2}
    trained = [(name, size) for name, _, size in asked if name != "probe"]
    assert len(trained) >= 3 and {size for _, size in trained} == {2}
    plan = json.loads(next(out.glob("stages/2-plan-*/stage.json")).read_text())
    assert plan["values"]["devices"] == 2
    assert "3 steps of 4 images" in plan["result"]["lines"][0]
    assert "each of 2 processes" in plan["result"]["lines"][0]


def test_a_training_program_ends_when_its_run_does():
    code = "from rfdetr.nas import processes as p; import time; p._end_with_the_run(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(50) == 1
