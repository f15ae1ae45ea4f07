"""A whole search on a small folder, from the command line: undisturbed, killed, changed, and with bad
input.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from published import published_state, small_presets

from rfdetr import Arch
from rfdetr.cli import main
from rfdetr.data.scenes import scenes
from rfdetr.model import config
from rfdetr.nas.findings import Findings
from rfdetr.training.checkpoint import model_from_checkpoint

WORDS = (
    *("--steps", "8", "--batch-size", "4", "--resolutions", "32,48", "--patch-sizes", "16", "--windows", "1"),
    *("--queries", "4", "--measured", "12"),
)


def folder_of_scenes(root, counts=(("train", 12), ("valid", 6), ("test", 6))):
    """A COCO folder as people have them, of small scenes."""
    for name, count in counts:
        data = scenes("giants", {"valid": "val"}.get(name, name), size=count, canvas=64)
        place = root / name
        place.mkdir(parents=True)
        truth = data.coco
        for index, image in enumerate(truth["images"]):
            Image.fromarray(data[index][0]).save(place / image["file_name"])
        (place / "_annotations.coco.json").write_text(json.dumps(truth))
    return root


def start(data, out, *more):
    """The command in a process of its own, in a session that can be killed whole."""
    words = ["nas", "--data", str(data), "--out", str(out), *WORDS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "rfdetr", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder_of_scenes(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "mine"
    assert main(["nas", "--data", str(data), "--out", str(out), *WORDS, "--baseline"]) == 0
    return out


def test_every_stage_leaves_what_it_found(undisturbed):
    found = Findings.of(undisturbed)
    assert found.stages == ["look", "plan", "train", "search", "choose", "fine-tune", "baseline", "export"]
    assert {"README.md", "options.json", "report.html"} <= {path.name for path in undisturbed.iterdir()}
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert page.count("<img alt=") >= 6 and "Was the search worth it?" in page and "Traceback" not in page


def test_the_file_is_the_network_of_the_table(undisturbed):
    found = Findings.of(undisturbed)
    for entry in found.networks:
        row = found.table[found.table["arch"] == entry["arch"]].iloc[0]
        tuned = {r["arch"]: r["tuned"] for r in found.stage("fine-tune")["result"]["networks"]}
        now = tuned[entry["arch"]] if entry["tuned"] else row["AP"]
        assert entry["val"]["AP"] == pytest.approx(now, abs=1e-3)
        assert entry["timed"]
        assert entry["file_AP"] == pytest.approx(entry["test"]["AP"], abs=1e-3)
        low, high = entry["test"]["low"], entry["test"]["high"]
        assert low <= entry["test"]["AP"] <= high


def test_the_ten_lines_of_the_card_run_without_this_package(undisturbed, data, tmp_path, monkeypatch):
    found = Findings.of(undisturbed)
    entry = found.networks[0]
    card = (found.path("export") / entry["file"]).with_suffix(".md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    assert "rfdetr" not in code and len(code.splitlines()) <= 12
    (tmp_path / entry["file"]).write_bytes((found.path("export") / entry["file"]).read_bytes())
    picture = next((data / "test").glob("*.png"))
    Image.open(picture).convert("RGB").save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(code, space)  # prints what passes the threshold
    arch = Arch.parse(entry["arch"])
    model = model_from_checkpoint(found.path("train"))
    if entry["tuned"]:
        model = model_from_checkpoint(found.path("fine-tune") / entry["arch"])
    with torch.no_grad():
        ours = model(torch.from_numpy(space["x"]), arch).logits[0].numpy()
    np.testing.assert_allclose(space["logits"][0], ours, atol=1e-3)
    session = onnxruntime.InferenceSession(entry["file"])
    assert {o.name for o in session.get_outputs()} >= {"logits", "boxes"}


def test_the_same_command_again_makes_nothing_again(undisturbed, data, capsys):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("stages/*/stage.json")}
    assert main(["nas", "--data", str(data), "--out", str(undisturbed), *WORDS, "--baseline"]) == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("stages/*/stage.json")} == before
    assert capsys.readouterr().out.count("kept") >= len(before)


def test_killed_at_any_moment_the_same_command_finishes_it(undisturbed, data, tmp_path):
    out = tmp_path / "killed"
    random = np.random.default_rng(0)
    kills = 0
    while True:
        process = start(data, out, "--baseline")
        try:
            said, _ = process.communicate(timeout=float(random.uniform(3, 14)) if kills < 4 else 300)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
    assert process.returncode == 0, said
    assert kills >= 1
    first, second = Findings.of(undisturbed), Findings.of(out)
    # Everything but measured times is equal: weights, accuracies, and each step done once.
    one, two = (torch.load(f.path("train") / "checkpoint.pt", weights_only=False) for f in (first, second))
    assert all(torch.equal(one["weights"][name], two["weights"][name]) for name in one["weights"])
    knobs = [*Arch.KNOBS, "AP", "AP50"]
    pd.testing.assert_frame_equal(first.table[knobs], second.table[knobs])
    log = pd.read_json(second.path("train") / "log.jsonl", lines=True)
    assert log["step"].tolist() == list(range(1, 9))


def test_an_interrupt_says_what_is_kept_and_how_to_go_on(data, tmp_path):
    process = start(data, tmp_path / "run", "--steps", "4000")
    for line in process.stdout:
        if line.startswith("[3]"):
            break
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(60) == 130
    assert "same command" in said and "Traceback" not in said


@pytest.mark.parametrize("missing", ["valid", "objects"])
def test_bad_data_are_refused_before_any_training(tmp_path, capsys, missing):
    root = folder_of_scenes(tmp_path / "bad")
    path = root / "valid" / "_annotations.coco.json"
    if missing == "objects":
        truth = json.loads(path.read_text())
        path.write_text(json.dumps({**truth, "annotations": []}))
    else:
        path.write_text("{")
    assert main(["nas", "--data", str(root), "--out", str(tmp_path / "run"), *WORDS]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(Path(tmp_path / "run").glob("stages/*train*"))


def test_from_published_weights_to_the_report(data, tmp_path, monkeypatch):
    """The recipe for published weights trains the network's own size in every second step; the probes of the
    plan, the fine-tuning and the baseline train others.
    """
    small_presets(monkeypatch)
    file = tmp_path / "nano.pth"
    torch.save({"model": published_state(config.preset_config("nano"), torch.float32)}, file)
    out = tmp_path / "run"
    words = [
        "--weights",
        f"nano:{file}",
        "--steps",
        "4",
        "--batch-size",
        "2",
        "--measured",
        "2",
        "--baseline",
    ]
    assert main(["nas", "--data", str(data), "--out", str(out), *words, "--baseline"]) == 0
    found = Findings.of(out)
    assert found.stages == ["look", "plan", "train", "search", "choose", "fine-tune", "baseline", "export"]
    plan = found.stage("plan")["result"]
    assert plan["config"]["anchor"] == [384, 16, 2] and max(plan["space"]["resolutions"]) > 384


def test_a_dry_run_stops_after_the_plan(data, tmp_path, capsys):
    assert main(["nas", "--data", str(data), "--out", str(tmp_path / "run"), *WORDS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 steps of 4 images" in said and "dry run" in said
    assert not list((tmp_path / "run").glob("stages/*train*"))
