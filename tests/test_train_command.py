"""The command `train`: what it starts from, what it says before the first step, what it keeps."""

import json
import math

import pytest
import torch
from published import published_state
from train_fixtures import coco_scenes

from rfdetr import Arch
from rfdetr.cli import main
from rfdetr.model.config import preset_config
from rfdetr.networks import open_network
from rfdetr.training.checkpoint import load_checkpoint

SMOKE = ["--profile", "smoke", "--batch-size", "2", "--resolutions", "64", "--patch-sizes", "8,16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten classes, six training pictures, three for validation and test each."""
    return coco_scenes(tmp_path_factory.mktemp("data") / "scenes", {"train": 6, "val": 3, "test": 3})


@pytest.fixture(scope="module")
def supernet(tmp_path_factory, folder):
    """A finished training from scratch: patches 8 and 16, windows 1 and 2."""
    out = tmp_path_factory.mktemp("run") / "supernet"
    assert main(["train", "--data", str(folder), "--out", str(out), "--steps", "3", *SMOKE]) == 0
    return out


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return coco_scenes(tmp_path_factory.mktemp("data") / "parity", {"train": 4, "val": 2}, "parity")


def plan_of(out):
    return json.loads((out / "plan.json").read_text())


def archs_of(out):
    return [json.loads(line)["arch"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_what_was_chosen_is_printed_and_kept(tmp_path, folder, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--out", str(out), "--steps", "7", *SMOKE]) == 0
    said = capsys.readouterr().out
    words = [
        "profile smoke",
        "6 images",
        "64 px, patch 8, 16, windows 1, 2",
        "from scratch: lr 0.001",
        "2.33 epochs",
    ]
    before = said[: said.index("step ")] if "step 1/" in said else said
    for word in [*words, "7 of 2 pictures", "validation"]:
        assert word in before, said
    assert "more steps" in said and "s a step in the first 5" in said
    plan = plan_of(out)
    assert plan["source"] == str(folder.resolve()) and plan["steps"] == 7 and plan["seconds_per_step"] > 0
    assert plan["space"]["patch_sizes"] == [8, 16] and plan["config"]["lr"] == 1e-3
    readme = (out / "README.md").read_text()
    for name in ("checkpoint.pt", "log.csv", "evaluations.csv", f"train --out {out}", f"--weights {out}"):
        assert name in readme
    assert (out / "evaluations.csv").read_text().startswith("step,arch,AP,")


def test_training_an_own_network_further_takes_its_space_and_the_papers_recipe(
    supernet, others, tmp_path, capsys
):
    out = tmp_path / "more"
    command = ["train", "--weights", str(supernet), "--data", str(others), "--out", str(out), "--steps", "4"]
    assert main([*command, "--batch-size", "1", "--accumulate", "2"]) == 0
    said = capsys.readouterr().out
    assert "new class layer" in said and "fine-tuning (Appendix A)" in said
    config, plan = load_checkpoint(out / "checkpoint.pt").config, plan_of(out)
    assert (config.lr, config.layer_decay, config.ema_decay, config.clip_norm) == (1e-4, 0.8, 0.993, 0.1)
    assert config.schedule == "none" and config.augment and config.anchor is None
    assert plan["space"] == {**plan_of(supernet)["space"]}
    rates = plan["learning_rates"]
    assert rates["backbone, first block"] < rates["backbone, last block"] < rates["rest"]
    # What is kept and opened is the average.
    saved = load_checkpoint(out / "checkpoint.pt")
    assert torch.equal(open_network(out).class_head.weight, saved.ema["weights"]["class_head.weight"])
    assert not torch.equal(saved.weights["class_head.weight"], saved.ema["weights"]["class_head.weight"])


def test_the_same_command_and_a_bare_one_go_on(supernet, others, tmp_path, capsys):
    out = str(tmp_path / "more")
    command = ["train", "--weights", str(supernet), "--data", str(others), "--out", out, "--batch-size", "1"]
    assert main([*command, "--steps", "2"]) == 0
    capsys.readouterr()
    assert main([*command, "--steps", "3"]) == 0
    assert "going on at step 2 of 3" in capsys.readouterr().out
    assert main(["train", "--out", out, "--steps", "4"]) == 0
    said = capsys.readouterr().out
    assert "going on at step 3 of 4" in said and "fine-tuning" in said
    assert main(["train", "--out", out]) == 0
    assert "finished at step 4 of 4" in capsys.readouterr().out
    assert [
        json.loads(line)["step"] for line in (tmp_path / "more" / "log.jsonl").read_text().splitlines()
    ] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def published_nano(tmp_path_factory):
    """Made-up weights in the published layout, nano's sizes with few queries and one group."""
    config = preset_config("nano", queries=8, groups=1, default_arch=Arch(384, 16, 2, 2, 8))
    path = tmp_path_factory.mktemp("weights") / "nano.pth"
    torch.save({"model": published_state(config, torch.float32)}, path)
    return path


def test_a_published_network_is_fine_tuned_around_its_own_architecture(
    published_nano, folder, tmp_path, capsys
):
    out = tmp_path / "tuned"
    command = ["train", "--weights", f"nano:{published_nano}", "--data", str(folder), "--out", str(out)]
    assert main([*command, "--steps", "2", "--batch-size", "1", "--accumulate", "1"]) == 0
    own = "r384-p16-w2-d2-q8"
    said = capsys.readouterr().out
    assert f"default {own} (every second step)" in said
    plan = plan_of(out)
    assert plan["space"]["resolutions"] == [192, 288, 384, 480, 576] and plan["space"]["windows"] == [1, 2]
    assert archs_of(out)[0] == own
    assert {row["arch"] for row in map(json.loads, (out / "evaluations.jsonl").read_text().splitlines())} >= {
        own
    }
    assert plan["learning_rates"]["backbone, first block"] < plan["learning_rates"]["backbone, last block"]
    saved = load_checkpoint(out / "checkpoint.pt")
    assert saved.ema is not None and saved.model.num_classes == 10
    assert main(["predict", str(out), str(folder / "test"), "--threshold", "0.9"]) == 0
    assert f"architecture {own}" in capsys.readouterr().out


def test_later_commands_know_architecture_and_data(supernet, folder, capsys, tmp_path):
    assert main(["evaluate", str(supernet), "--split", "test"]) == 0
    said = capsys.readouterr().out
    assert "architecture r64-p8-w1-d2-q12; --arch takes others, trained were e.g. r64-" in said
    assert f"data {folder.resolve()}" in said
    assert main(["evaluate", str(supernet), "--arch", "r48-p12-w1-d2-q6"]) == 0
    assert "r48-p12-w1-d2-q6 was never trained" in capsys.readouterr().out
    assert main(["export", str(supernet), "--out", str(tmp_path / "m.onnx")]) == 0
    assert "architecture r64-p8-w1-d2-q12" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "m.onnx")]) == 2
    assert "--data" in capsys.readouterr().err


def test_one_trained_architecture_is_the_default(supernet, folder, tmp_path, capsys):
    out = tmp_path / "one"
    command = [
        "train",
        "--weights",
        str(supernet),
        "--arch",
        "r64-p16-w2-d1-q6",
        "--steps",
        "1",
        "--out",
        str(out),
    ]
    assert main([*command, "--data", str(folder), "--batch-size", "1"]) == 0
    assert "one architecture, r64-p16-w2-d1-q6" in capsys.readouterr().out
    assert main(["evaluate", str(out)]) == 0
    assert "architecture r64-p16-w2-d1-q6\n" in capsys.readouterr().out


CONTRADICTIONS = [
    (["--weights", "W", "--queries", "40"], ["--queries 40", "12 queries"]),
    (["--weights", "W", "--queries", "6"], ["--queries 6", "--arch trains fewer"]),
    (["--weights", "W", "--decoder-layers", "4"], ["--decoder-layers 4", "2 decoder layers"]),
    (["--weights", "W", "--preset", "nano"], ["--weights and --preset"]),
    (["--weights", "W", "--profile", "cpu"], ["--weights and --profile"]),
    (["--preset", "nano", "--profile", "cpu"], ["--preset and --profile"]),
    (["--weights", "W", "--backbone", "dinov2"], ["--backbone"]),
    (["--weights", "W", "--arch", "r64-p8-w1-d2-q12", "--windows", "1"], ["--arch", "--windows"]),
    (
        ["--profile", "smoke", "--arch", "r64-p8-w1-d2-q12", "--resolutions", "64"],
        ["--arch", "--resolutions"],
    ),
    (["--preset", "pico"], ["pico", "nano"]),
    (["--profile", "smoke", "--lr", "nan"], ["lr must be a number above 0, not nan"]),
    (["--profile", "smoke", "--seed", "-1"], ["seed must be"]),
    (["--profile", "smoke", "--evaluate-every", "-1"], ["evaluate_every must be"]),
    (["--profile", "smoke", "--devices", "0"], ["devices must be at least 1"]),
    (["--profile", "smoke", "--steps", "0"], ["steps must be"]),
]


@pytest.mark.parametrize(("arguments", "words"), CONTRADICTIONS, ids=lambda v: " ".join(v[:4]))
def test_options_that_do_not_go_together_are_refused(arguments, words, supernet, folder, tmp_path, capsys):
    arguments = [str(supernet) if value == "W" else value for value in arguments]
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run"), *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    for word in words:
        assert word in message
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_equal_sizes_are_no_contradiction(supernet, folder, tmp_path):
    command = ["train", "--weights", str(supernet), "--data", str(folder), "--out", str(tmp_path / "run")]
    sizes = ["--queries", "12", "--decoder-layers", "2", "--no-segmentation"]
    assert main([*command, *sizes, "--steps", "1", "--batch-size", "1"]) == 0


def test_another_start_in_a_used_folder_is_refused(supernet, folder, tmp_path, capsys):
    command = ["train", "--data", str(folder), "--out", str(supernet)]
    assert main([*command, "--weights", str(tmp_path)]) == 2
    assert "began from profile smoke, random weights" in capsys.readouterr().err
    assert main([*command, "--queries", "5"]) == 2
    assert "--queries 5 contradicts the network in" in capsys.readouterr().err
    assert main([*command, "--steps", "9"]) == 2
    assert f"--weights {supernet} --out {supernet}-2" in capsys.readouterr().err


def test_a_mask_head_is_added_and_taken_away_when_asked_for(supernet, folder, tmp_path, capsys):
    few = ["--data", str(folder), "--steps", "1", "--batch-size", "1", "--accumulate", "1"]
    with_masks = tmp_path / "masks"
    assert main(["train", "--weights", str(supernet), "--segmentation", "--out", str(with_masks), *few]) == 0
    said = capsys.readouterr().out
    assert "part of the new mask head" in said and "mask AP" in said
    assert open_network(with_masks).mask_head is not None
    rows = [json.loads(line) for line in (with_masks / "evaluations.jsonl").read_text().splitlines()]
    assert all("mask_AP" in row and 0 <= row["filled_masks"] <= 1 for row in rows)
    # Masks without a pixel are told at the end of a training, and when they are evaluated.
    empty = tmp_path / "empty.pt"
    saved = torch.load(with_masks / "checkpoint.pt", weights_only=False)
    for weights in (saved["weights"], saved["ema"]["weights"]):
        weights["mask_head.bias"].fill_(-1e4)
    torch.save(saved, empty)
    assert main(["train", "--weights", str(empty), "--out", str(tmp_path / "still"), *few]) == 0
    said = capsys.readouterr().out.splitlines()[-3:]
    assert any("mask AP 0.000" in line for line in said) and "no mask has a pixel" in " ".join(said)
    assert main(["evaluate", str(empty), "--data", str(folder)]) == 0
    assert "no mask has a pixel" in capsys.readouterr().out
    again = tmp_path / "boxes"
    assert main(["train", "--weights", str(with_masks), "--no-segmentation", "--out", str(again), *few]) == 0
    assert open_network(again).mask_head is None
    assert main(["train", "--out", str(again), "--segmentation"]) == 2
    assert "no mask head" in capsys.readouterr().err


def test_masks_that_are_not_there_are_said_in_command_line_words(tmp_path, capsys):
    data = coco_scenes(tmp_path / "boxes", {"train": 2, "val": 1}, masks=False)
    arguments = ["--profile", "smoke", "--segmentation", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(data), *arguments]) == 2
    assert "--no-segmentation" in capsys.readouterr().err


def test_missing_pictures_that_were_skipped_stay_skipped(tmp_path, capsys):
    data = coco_scenes(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    next((data / "train").glob("*.png")).unlink()
    out = tmp_path / "run"
    command = ["train", "--data", str(data), "--out", str(out), "--steps", "1", *SMOKE]
    assert main(command) == 2
    assert main([*command, "--skip-missing"]) == 0
    assert main(["train", "--out", str(out)]) == 0
    assert "finished at step 1 of 1" in capsys.readouterr().out


def test_without_a_validation_split_it_trains_and_says_so(tmp_path, capsys):
    data = coco_scenes(tmp_path / "train-only", {"train": 1})  # of more pictures, one is taken for val
    out = tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(out), "--steps", "1", *SMOKE]) == 0
    said = capsys.readouterr().out
    assert "no validation split" in said and "AP " in said
    assert not (out / "evaluations.jsonl").exists()
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "p"), *SMOKE, "--patience", "2"]) == 2
    assert "patience needs a validation set" in capsys.readouterr().err


def test_validation_without_objects_is_said_before_the_first_step(tmp_path, capsys):
    data = coco_scenes(tmp_path / "data", {"train": 3, "val": 2})
    path = data / "valid" / "_annotations.coco.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1", *SMOKE]) == 0
    said = capsys.readouterr().out
    assert "AP on val is undefined: " in said[: said.index("network  ")]


def test_nothing_to_learn_from_stops_before_the_first_step(tmp_path, capsys):
    data = coco_scenes(tmp_path / "data", {"train": 3, "val": 2})
    path = data / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{**a, "iscrowd": 1} for a in content["annotations"]]
    path.write_text(json.dumps(content))
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *SMOKE]) == 2
    assert not (tmp_path / "run").exists() and capsys.readouterr().err.count("\n") == 1


def test_roundings_and_lost_queries_are_said(folder, tmp_path, capsys):
    grid = ["--resolutions", "100", "--patch-sizes", "16", "--windows", "4", "--queries", "30"]
    command = ["train", "--data", str(folder), "--profile", "smoke", "--steps", "1", "--batch-size", "1"]
    assert main([*command, "--out", str(tmp_path / "run"), *grid]) == 0
    said = capsys.readouterr().out
    assert "100 px with patch 16, 4 windows: 64 px" in said
    assert "fewer tokens than the 30 queries" in said and "16 queries at 64 px" in said


def test_scenes_are_not_mirrored(tmp_path):
    assert main(["train", "--data", "digits", "--out", str(tmp_path), "--steps", "1", *SMOKE]) == 0
    assert plan_of(tmp_path)["config"]["augment"] is False and plan_of(tmp_path)["source"] == "digits"
    assert math.isfinite(plan_of(tmp_path)["epochs"])
