"""Published networks on a COCO folder through every command: they agree on the average precision.

The weights are made up, in the published layout; the sizes are those of nano but for a narrow and flat
backbone. The objects are what the network finds, some of them moved or left out, so that the average
precision is neither 0 nor 1.
"""

import json
from pathlib import Path

import coco_folder
import pandas as pd
import pytest
import torch
from fake_cuda import Device
from fake_tensorrt import install
from published import published_state, small_presets

from rfdetr.cli import main
from rfdetr.data.categories import COCO_CATEGORIES
from rfdetr.model import config as sizes
from rfdetr.networks import open_network


def objects(model, entries, folder):
    """What the network finds in the pictures: half of it, every third box moved."""
    found = []
    for position, entry in enumerate(entries):
        detections = model.predict_one(folder / entry["file_name"], threshold=0.0)
        kept = [d for d in detections.to_coco(1) if d["bbox"][2] > 2 and d["bbox"][3] > 2][:24:2]
        for number, record in enumerate(kept):
            left, top, width, height = record["bbox"]
            moved = 0.3 * width if number % 3 == 0 else 0.0
            box = [max(0.0, min(left + moved, entry["width"] - width)), top, width, height]
            found.append((position, record["category_id"], box))
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A working folder with `weights.pth` and the COCO folder `coco`."""
    with pytest.MonkeyPatch.context() as patch:
        small_presets(patch)
        root = tmp_path_factory.mktemp("published")
        patch.chdir(root)
        torch.save({"model": published_state(sizes.preset_config("nano"), torch.float32)}, "weights.pth")
        entries = coco_folder.pictures(root / "coco" / "val2017", 4)
        found = objects(open_network("nano:weights.pth"), entries, root / "coco" / "val2017")
        assert len(found) > 20 and {category for _, category, _ in found} <= set(COCO_CATEGORIES)
        coco_folder.split(root / "coco", "val2017", entries, found)
        entries = coco_folder.pictures(root / "coco" / "train2017", 4, seed=1)
        coco_folder.split(root / "coco", "train2017", entries, coco_folder.random_boxes(entries))
        yield root


def ap_of(out):
    return json.loads(Path(out).read_text())["AP"]


def test_evaluate_search_and_the_exported_file_agree(here):
    assert main(["evaluate", "nano:weights.pth", "--data", "coco", "--split", "val", "--out", "a.json"]) == 0
    ap = ap_of("a.json")
    assert 0.1 < ap < 0.9
    assert main(["export", "nano:weights.pth", "--out", "net.onnx"]) == 0
    assert main(["evaluate", "net.onnx", "--data", "coco", "--split", "val", "--out", "b.json"]) == 0
    assert ap_of("b.json") == pytest.approx(ap, abs=1e-3)
    grid = ["--resolutions", "384", "--patch-sizes", "16", "--windows", "2", "--decoder-layers", "2"]
    search = ["search", "nano:weights.pth", "--data", "coco", *grid, "--queries", "300", "--measured", "1"]
    assert main([*search, "--dry-run"]) == 0
    assert main([*search, "--out", "found"]) == 0
    (row,) = pd.read_csv("found/table.csv").to_dict("records")
    assert row["AP"] == pytest.approx(ap, abs=1e-3) and row["latency_ms"] > 0
    select = ["select", "found", "--max-latency-ms", "1e9", "--weights", "nano:weights.pth"]
    assert main([*select, "--out", "chosen.onnx"]) == 0
    assert Path("chosen.onnx").read_bytes() == Path("net.onnx").read_bytes()
    benchmark = ["benchmark", "net.onnx", "--coco", "coco", "--samples", "4", "--pause", "0"]
    assert main([*benchmark, "--out", "records.jsonl"]) == 0
    record = json.loads(Path("records.jsonl").read_text().splitlines()[0])
    assert record["accuracy"]["metrics"]["AP"] == pytest.approx(ap, abs=1e-3)


def test_workers_and_budgets_evaluate_published_networks(here):
    grid = ["--resolutions", "96,128", "--patch-sizes", "16", "--windows", "1", "--decoder-layers", "1,2"]
    search = ["search", "nano:weights.pth", "--data", "coco", *grid, "--queries", "9,16,25,36"]
    assert main([*search, "--worker", "--out", "worker"]) == 0
    assert len(pd.read_csv("worker/accuracy.csv")) == 16
    budget = ["--budget", "0.9", "--sampler", "random", "--measured", "12", "--out", "within"]
    assert main([*search, *budget]) == 0
    assert pd.read_csv("within/table.csv")["AP"].notna().all()


def test_a_published_network_is_tuned_to_coco_and_to_other_classes(here):
    few = [
        "--resolutions",
        "64",
        "--patch-sizes",
        "16",
        "--windows",
        "1",
        "--steps",
        "1",
        "--batch-size",
        "2",
    ]
    train = ["train", "--weights", "nano:weights.pth", *few]
    assert main([*train, "--data", "coco", "--out", "tuned"]) == 0
    assert len(open_network("tuned").config.categories) == 80
    assert main([*train, "--data", "digits", "--out", "digits"]) == 0
    assert open_network("digits").config.categories.names[:3] == ("zero", "one", "two")


def test_other_classes_are_refused_before_the_work(here, capsys):
    for command in (
        ["evaluate", "nano:weights.pth", "--data", "digits"],
        ["search", "nano:weights.pth", "--data", "digits", "--dry-run"],
        ["benchmark", "nano:weights.pth", "--coco", "digits"],
    ):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert "does not know the data's classes" in error and "toothbrush" not in error
        assert "person, bicycle, car, motorcycle, airplane, ... (80)" in error and error.count("\n") == 1


def test_a_file_that_does_not_say_its_classes_is_told(here, capsys):
    config = sizes.preset_config("nano", 4)
    torch.save({"model": published_state(config, torch.float32)}, "own.pth")
    command = ["evaluate", "nano:own.pth", "--data", "coco", "--split", "val"]
    assert main(command) == 2
    assert "has 4 classes and does not say which" in capsys.readouterr().err
    Path("classes.json").write_text('["a", "b", "c", "d"]')
    for given, words in (
        ("classes.json", "does not know the data's classes"),
        ("coco", "--categories coco names 91 or 80 classes, the network has 4"),
        ("none.json", "takes coco, or a JSON file with a list `categories` of ids and names, not none.json"),
    ):
        assert main([*command, "--categories", given]) == 2
        assert words in capsys.readouterr().err
    content = json.loads(Path("coco/annotations/instances_val2017.json").read_text())
    used = sorted({a["category_id"] for a in content["annotations"]})[:4]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in used]
    Path("few/annotations").mkdir(parents=True)
    Path("few/val2017").symlink_to(here / "coco" / "val2017")
    Path("few/annotations/instances_val2017.json").write_text(json.dumps(content))
    few = [{"id": number, "name": COCO_CATEGORIES[i]} for number, i in enumerate(used)]
    Path("classes.json").write_text(json.dumps({"categories": few}))
    command = [*command[:3], "few", *command[4:], "--categories", "classes.json"]
    assert main(command) == 0
    Path("classes.json").write_text(json.dumps({"categories": few[:3]}))
    assert main(command) == 2


def test_a_class_that_no_object_has_need_not_be_known(here, capsys):
    content = json.loads(Path("coco/annotations/instances_val2017.json").read_text())
    content["categories"].append({"id": 0, "name": "everything"})
    Path("more/annotations").mkdir(parents=True)
    Path("more/val2017").symlink_to(here / "coco" / "val2017")
    file = Path("more/annotations/instances_val2017.json")
    file.write_text(json.dumps(content))
    command = ["evaluate", "nano:weights.pth", "--data", "more", "--split", "val", "--out", "more.json"]
    assert main(command) == 0
    assert ap_of("more.json") == pytest.approx(ap_of("a.json"))
    content["annotations"][0]["category_id"] = 0
    file.write_text(json.dumps(content))
    assert main(command) == 2
    assert "does not know the data's class everything" in capsys.readouterr().err


def test_the_t4_recipe_joins_accuracy_and_latency_of_one_engine(here, monkeypatch, capsys):
    from rfdetr.benchmark import latency, t4
    from rfdetr.benchmark.runtimes import load_runtime

    gpu = Device()
    install(monkeypatch, gpu)

    def load(name, artifact, **options):
        gpu.pass_ms = 5.0 + int(artifact.file.stem.rpartition("-")[2])  # each build has a latency of its own
        return load_runtime(name, artifact, **options)

    def quick(loaded, protocol, **options):
        options["pause_ms"] /= 1000
        return latency.time_artifact(loaded, protocol, watch=False, runs=1, **options)

    monkeypatch.setattr(t4, "load_runtime", load)
    monkeypatch.setattr(t4, "time_artifact", quick)
    command = ["t4", "--data", "coco", "--engines", "3", "--samples", "8", "--sustained", "0"]
    assert main([*command, "--model", "nano:weights.pth", "--out", "t4"]) == 0
    assert main(["evaluate", "nano:weights.pth", "--data", "coco", "--split", "val", "--out", "a.json"]) == 0
    table = pd.read_csv("t4/t4.csv")
    assert len(table) == 2 * 4 and table["ap"].to_numpy() == pytest.approx(100 * ap_of("a.json"), abs=0.1)
    assert set(table["latency_ms"]) == {5.0} and set(table["latency_high_ms"]) == {7.0}
    records = [json.loads(line) for line in Path("t4/records.jsonl").read_text().splitlines()]
    for record in (r for r in records if r.get("accuracy")):
        assert record["accuracy"]["sha256"] == record["latency"]["sha256"] in set(table["sha256"])


def test_the_t4_recipe_looks_at_classes_before_the_first_build(here, monkeypatch, capsys):
    install(monkeypatch, Device())
    command = ["t4", "--model", "nano:weights.pth", "--data", "digits", "--engines", "1"]
    assert main([*command, "--out", "other"]) == 2
    assert "does not know the data's classes" in capsys.readouterr().err
    assert not Path("other").exists()
