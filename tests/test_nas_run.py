"""A whole search on a small folder, from the command line: undisturbed, killed, changed, and with bad
input.
"""

import importlib.util
import json
import os
import shutil
import signal
import time
from html import unescape
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image
from published import published_state, small_presets

from rfdetr import Arch, UserError
from rfdetr.cli import main
from rfdetr.export.artifact import load_artifact
from rfdetr.model import config
from rfdetr.nas import plan as plan_module
from rfdetr.nas.findings import Findings
from rfdetr.training.checkpoint import model_from_checkpoint

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_search.py"
spec = importlib.util.spec_from_file_location("kill_search", SCRIPT)
kill_search = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kill_search)

WORDS = (
    *("--steps", "8", "--batch-size", "4", "--resolutions", "32,48", "--patch-sizes", "16", "--windows", "1"),
    *("--queries", "4", "--measured", "12"),
)


STAGES = ["look", "plan", "train", "search", "choose", "fine-tune", "baseline", "export", "report"]


COUNTS = (("train", 12), ("valid", 6), ("test", 6))


def folder_of_scenes(root):
    return kill_search.folder_of_scenes(root, COUNTS)


def start(data, out, *more):
    return kill_search.start(data, out, *WORDS, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder_of_scenes(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture(scope="module")
def maskless(data, tmp_path_factory):
    """The same pictures with boxes alone."""
    root = tmp_path_factory.mktemp("boxes") / "mine"
    shutil.copytree(data, root)
    for path in root.glob("*/_annotations.coco.json"):
        truth = json.loads(path.read_text())
        for annotation in truth["annotations"]:
            annotation.pop("segmentation", None)
        path.write_text(json.dumps(truth))
    return root


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "mine"
    assert main(["nas", "--data", str(data), "--out", str(out), *WORDS, "--baseline"]) == 0
    return out


def test_every_stage_leaves_what_it_found(undisturbed):
    found = Findings.of(undisturbed)
    assert found.stages == STAGES
    assert {"README.md", "options.json", "report.html"} <= {path.name for path in undisturbed.iterdir()}
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    assert page.count("<img alt=") >= 6 and "Was the search worth it?" in page and "Traceback" not in page
    assert all(0 < found.stage(name)["peak_mb"] < 100_000 for name in STAGES)


def test_the_networks_and_the_code_of_the_report_work(undisturbed, data, tmp_path, monkeypatch, capsys):
    found = Findings.of(undisturbed)
    folder = undisturbed / "networks"
    files = {entry["file"] for entry in found.networks}
    assert {path.name for path in folder.iterdir()} == files | {f"{Path(f).stem}.md" for f in files}
    page = (undisturbed / "report.html").read_text(encoding="utf-8")
    code = page.split('<code class="language-python">')[1].split("</code>")[0]
    Image.open(next((data / "test").glob("*.png"))).convert("RGB").save(tmp_path / "photo.jpg")
    (tmp_path / "networks").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    exec(unescape(code), {})
    assert (tmp_path / "photo-found.png").is_file() and capsys.readouterr().out


def test_another_precision_decides_and_is_handed_over(data, tmp_path, capsys):
    out = tmp_path / "half"
    # With a limit in hours only what was planned is timed.
    words = ["--runtime", "onnxruntime", "--precision", "fp16", "--measured", "2", "--no-fine-tune"]
    words += ["--hours", "1", "--steps", "50"]
    assert main(["nas", "--data", str(data), "--out", str(out), *WORDS, *words]) == 0
    found = Findings.of(out)
    table = pd.read_csv(found.path("search") / "table.csv")
    chosen = table[table["arch"].isin([entry["arch"] for entry in found.networks])]
    assert (chosen["accuracy_of"] == "timed file").all()
    for entry in found.networks:
        deployed = entry["deployed"]
        file = load_artifact(out / "networks" / deployed["file"])
        assert file.precision == "fp16" and file.sha256 == deployed["sha256"] != entry["sha256"]
        # ONNX Runtime computes most of an FP16 file in FP32, and the card says so.
        assert deployed["precision"] == "mixed"
        card = (found.path("export") / entry["file"]).with_suffix(".md").read_text(encoding="utf-8")
        assert f"rfdetr predict {deployed['file']} photo.jpg" in card and "executed in mixed" in card
    assert "executed in mixed" in capsys.readouterr().out
    assert "test, run in fp16" in (out / "report.html").read_text(encoding="utf-8")


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
    """`benchmarks/kill_search.py` does so at any number of moments, and compares the choice as well."""
    out = tmp_path / "killed"
    moments = kill_search.random_moments(4, 2.0, seed=0)
    killed, complaints = kill_search.kill_until_done(lambda: start(data, out, "--baseline"), out, moments)
    assert killed and not complaints
    assert not kill_search.differences(undisturbed, out, latencies=False)
    assert len(pd.read_json(Findings.of(out).path("train") / "log.jsonl", lines=True)) == 8


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--like", "my-yolo"], "'my-yolo'"),
        (["--target-ms", "5 ms"], "--target-ms"),
        (["--target-ms", "0.00001"], "--target-ms 1e-05: the smallest sub-network takes"),
        (["--hours", "0.001"], "--hours 0.001"),
        (["--runtime", "abacus"], "'abacus'"),
        (["--precision", "int4"], "int4"),
        (["--resolutions", "8,64"], "--resolutions 8"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--segmentation"], "--segmentation"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_training(maskless, tmp_path, capsys, words, said):
    out = tmp_path / "run"
    assert main(["nas", "--data", str(maskless), "--out", str(out), *WORDS, *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and said in error
    assert not list(out.glob("stages/*train*"))


def test_files_of_the_user_are_left_alone(data, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["nas", "--data", str(data), "--out", str(tmp_path), *WORDS]) == 2
    assert "holds something else (README.md)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_from_published_weights_to_the_report(data, tmp_path, monkeypatch, capsys):
    """The recipe for published weights trains the network's own size in every second step; the probes of the
    plan, the fine-tuning and the baseline train others.
    """
    small_presets(monkeypatch)
    file = tmp_path / "nano.pth"
    torch.save({"model": published_state(config.preset_config("nano"), torch.float32)}, file)
    out = tmp_path / "run"
    words = ["--weights", f"nano:{file}", "--steps", "4", "--batch-size", "2", "--measured", "2"]
    assert main(["nas", "--data", str(data), "--out", str(out), *words, "--baseline"]) == 0
    found = Findings.of(out)
    assert found.stages == STAGES
    plan = found.stage("plan")["result"]
    assert plan["config"]["anchor"] == [384, 16, 2] and max(plan["space"]["resolutions"]) > 384
    # Other weights under the same name: all that depends on them is made again.
    state = torch.load(file)
    state["model"] = {name: value + 0.01 for name, value in state["model"].items()}
    torch.save(state, file)
    monkeypatch.setattr(plan_module, "settle", mock.Mock(side_effect=UserError("planned again")))
    assert main(["nas", "--data", str(data), "--out", str(out), *words, "--baseline"]) == 2
    assert "planned again" in capsys.readouterr().err


def test_a_dry_run_stops_after_the_plan(data, tmp_path, capsys):
    assert main(["nas", "--data", str(data), "--out", str(tmp_path / "run"), *WORDS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "8 steps of 4 images" in said and "dry run" in said
    assert not list((tmp_path / "run").glob("stages/*train*"))
