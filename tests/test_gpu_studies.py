"""The script that does all studies on a lent machine: its order of work, and what it packs."""

import importlib.util
import tarfile
from pathlib import Path

import numpy as np
import pytest

from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.kept_studies import STUDIES

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu_studies.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_studies", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schedule_has_every_part_but_those_that_need_a_quiet_machine(script, tmp_path):
    store = Store(tmp_path)
    found = script.tasks(store, list(STUDIES), "", 0)
    planned = {(task.name, part) for task in found for part in task.plan.parts}
    every = {(name, part) for name, study in STUDIES.items() for part in study.task(0, store).plan.parts}
    elsewhere = {(name, part) for name, part in every if name in script.NEVER and "" in script.NEVER[name]}
    processor, packages = {"int8", "int8-domains"}, {"domain-baseline", "peer-exports", "peer-fp16"}
    assert {name for name, _ in elsewhere} == {
        "peers-bench",
        "backbones-bench",
        "text-cost",
    } | processor | packages
    quiet = {(name, part) for name, part in every if part == "latency" or part.startswith("clocked-")}
    assert every - planned == quiet | elsewhere
    assert {name for name, _ in quiet} == {"full-search", "search-bill"}
    assert [task.name for task in found[:2]] == ["full-search", "fourteen-domains"]
    assert list(found[0].plan.parts) == ["train"]
    # The same part has the same file wherever it is planned.
    whole = {name: study.task(0, store).plan for name, study in STUDIES.items()}
    assert all(task.plan.path(p) == whole[task.name].path(p) for task in found for p in task.plan.parts)


def test_an_archive_holds_small_files_first_and_stays_small(script, tmp_path, monkeypatch):
    folder = tmp_path / "parts" / "ranking"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "crew-0.log").write_text("not this")
    (folder / "data.zip").write_text("nor this")
    (folder / "half.work").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("small", 1000), ("large", 5000), ("largest", 9000)):
        (folder / f"{name}.safetensors").write_bytes(rng.bytes(size))
    monkeypatch.setattr(script, "_LIMIT", 7000)
    assert script.pack(folder, tmp_path / "x.tar.gz") == 1
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        names = tar.getnames()
        assert names == ["ranking/a.json", "ranking/small.safetensors", "ranking/large.safetensors"]
        tar.extractall(tmp_path / "there", filter="data")
    assert (tmp_path / "there" / "ranking" / "a.json").read_text() == "{}"
