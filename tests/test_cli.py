"""The command line from training to prediction, on the smoke profile's tiny network."""

import json
import signal
import weakref

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rfdetr.cli import main
from rfdetr.data.scenes import scenes

ARCH = "r64-p16-w1-d2-q12"


def test_training_writes_checkpoint_and_log(run):
    assert (run / "checkpoint.pt").is_file()
    assert [row["step"] for row in map(json.loads, (run / "log.jsonl").read_text().splitlines())] == [1, 2]


def test_evaluate_prints_the_numbers(run, capsys, tmp_path):
    out = tmp_path / "numbers.json"
    assert main(["evaluate", str(run), "--arch", ARCH, "--split", "val", "--out", str(out)]) == 0
    assert "AP50" in capsys.readouterr().out
    assert 0 <= json.loads(out.read_text())["AP"] <= 1


def test_search_writes_a_table_with_provenance(run, tmp_path, capsys):
    arguments = ["search", str(run), "--split", "val", "--out", str(tmp_path), "--profile", "smoke"]
    small = ["--resolutions", "64", "--patch-sizes", "16", "--windows", "1", "--measured", "3"]
    assert main([*arguments, *small]) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 6  # three depths, two query counts
    assert table["latency_ms"].notna().sum() == 3
    record = json.loads((tmp_path / "search.json").read_text())
    assert record["provenance"]["commit"]
    assert record["dataset"]["split"] == "val"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_the_exporter_swallows_still_stops_the_search(
    run, tmp_path, capsys, monkeypatch, number
):
    from rfdetr.export import graph

    real, traced = graph.trace, []

    def interrupted(*arguments):
        traced.append(1)
        thing = type("Thing", (), {})()
        watch = weakref.ref(thing, lambda _: signal.raise_signal(number))  # what it raises is printed
        del thing
        assert watch() is None
        return real(*arguments)

    monkeypatch.setattr(graph, "trace", interrupted)
    small = ["--patch-sizes", "16", "--windows", "1", "--decoder-layers", "2", "--queries", "12"]
    arguments = ["search", str(run), "--split", "val", "--out", str(tmp_path), "--profile", "smoke", *small]
    assert main(arguments) == 130
    assert len(traced) == 1 and not (tmp_path / "table.csv").exists()
    assert "what was finished is kept, the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("evaluated/*/*.json")}
    assert kept and main(arguments) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_export_and_evaluate_the_file(run, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    assert main(["export", str(run), "--arch", ARCH, "--out", str(path)]) == 0
    assert "sha256" in capsys.readouterr().out
    assert main(["evaluate", str(path), "--data", "digits", "--split", "val"]) == 0
    assert "AP50" in capsys.readouterr().out


def test_predict_draws_and_writes(run, tmp_path, capsys):
    picture = tmp_path / "scene.png"
    Image.fromarray(scenes("digits", "test", size=1)[0][0]).save(picture)
    out = tmp_path / "out"
    code = main(["predict", str(run), str(picture), "--arch", ARCH, "--threshold", "0.0", "--out", str(out)])
    assert code == 0
    assert np.asarray(Image.open(out / "scene.png")).shape[2] == 3
    assert json.loads((out / "predictions.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "/no/such/checkpoint.pt"], ["/no/such/checkpoint.pt"]),
        (["train", "--data", "no-such-data"], ["no-such-data"]),
        (["train", "--data", "digits", "--profile", "huge"], ["huge", "smoke"]),
        (["train", "--profile", "smoke", "--resolutions", "a,b"], ["--resolutions"]),
        (["train", "--profile", "smoke", "--arch", "r65-p16-w1-d2-q12"], ["65", "r64-p16-w1"]),
        (["train", "--steps", "many"], ["steps"]),
        (["train", "--no-such-option"], ["no-such-option"]),
        (["book", "-p", "colour"], ["name=value"]),
        (["t4"], ["[tensorrt]"]),
        (["t4", "--other", "yolo.onnx"], ["name=file.onnx"]),
    ],
)
def test_wrong_input_is_one_clear_message(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for word in words:
        assert word in message


def test_wrong_architectures_and_files_are_named(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--arch", "r64-p16-w1-d3-q12"]) == 2
    assert "decoder layers" in capsys.readouterr().err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG not really")
    assert main(["predict", str(run), str(broken), "--arch", ARCH]) == 1
    assert "broken.png" in capsys.readouterr().out
    half = tmp_path / "half.pt"
    half.write_bytes((run / "checkpoint.pt").read_bytes()[:2000])
    assert main(["evaluate", str(half), "--arch", ARCH]) == 2
    assert "half.pt" in capsys.readouterr().err


def test_resuming_with_another_recipe_is_refused(run, capsys):
    code = main(["train", "--profile", "smoke", "--out", str(run), "--steps", "2", "--batch-size", "3"])
    assert code == 2
    assert "batch_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "digits", "--out", "FILE"], "FILE is a file, not a folder"),
        (["train", "--data", "digits", "--out", "FILE/x"], "FILE is a file, not a folder"),
        (["search", "RUN", "--out", "FILE/x"], "FILE is a file, not a folder"),
        (["train", "--data", "digits", "--patch-sizes", "0,16"], "--patch-sizes takes numbers of at least 1"),
        (["train", "--data", "digits", "--windows", "0"], "--windows takes numbers of at least 1, not 0"),
        (["search", "RUN", "--tokens", "-4"], "--tokens takes numbers of at least 1, not -4"),
        (["search", "RUN", "--decoder-layers", "-1"], "--decoder-layers takes numbers of at least 0, not -1"),
        (["evaluate", "RUN", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["benchmark", "RUN", "--coco", "digits", "--images", "-2"], "--images must be at least 1, not -2"),
        (["benchmark", "RUN", "--threads", "0"], "--threads must be at least 1, not 0"),
    ],
)
def test_options_that_cannot_be_are_one_line_before_the_work(run, tmp_path, capsys, arguments, words):
    (tmp_path / "FILE").write_text("kept")
    places = {"RUN": str(run), "FILE": str(tmp_path / "FILE"), "FILE/x": str(tmp_path / "FILE/x")}
    given = [places.get(word, word) for word in arguments]
    assert main(given if "--out" in given else [*given, "--out", str(tmp_path / "new")]) == 2
    assert words in capsys.readouterr().err and (tmp_path / "FILE").read_text() == "kept"
    assert not (tmp_path / "new").exists()


def test_a_path_that_the_system_refuses_is_one_line(tmp_path, capsys):
    long = tmp_path / ("n" * 300)
    assert main(["data", "convert", "digits", str(long)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "name too long" in error and error.count("\n") == 1
