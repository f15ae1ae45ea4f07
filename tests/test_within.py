"""A search of a real network within a budget: what it pays for, what it says, by one process and by many."""

import multiprocessing
import os
import random
import time

import numpy as np
import pytest
import torch
from conftest import TINY, scramble
from test_grid import with_truth

from rfdetr import RFDETR
from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.evaluation.coco import METRICS
from rfdetr.search import blocks, grid, looks, within
from rfdetr.search.storage import SqlResults

SPACE = SearchSpace((64, 72), (8, 12), (1, 2), (0, 2), (4, 10))
FEW = ("multifidelity", "hyperband")
KILLS = 20


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY | {"num_classes": 2}).double()).eval()
    return model, with_truth(scenes("parity", "val", size=12, canvas=64), model, SPACE)


@pytest.fixture(scope="module")
def exact(tiny):
    return grid.evaluate_grid(*tiny, SPACE).drop_duplicates(list(Arch.KNOBS))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(within, "levels", lambda images: blocks.levels(images, (3, 6)))


def latency(points):
    side = points["resolution"] / points["patch_size"]
    return 1 + side**2 + 5 * points["decoder_layers"] + points["queries"]


@pytest.mark.parametrize("sampler", ["guided", "tpe"])
def test_whole_settings_are_those_of_the_exact_search(tiny, exact, sampler, tmp_path):
    spent = []
    given = {
        "sampler": sampler,
        "folder": tmp_path,
        "progress": lambda part, units: spent.append((part, units)),
    }
    part = within.budgeted_search(*tiny, SPACE, latency, budget=0.5, **given)
    assert 0 < part.attrs["spent"] <= 0.5 and spent[-1] == (part.attrs["spent"], part.attrs["units"])
    joined = part.merge(exact, on=list(Arch.KNOBS), suffixes=("", "_exact"))
    assert len(joined) == len(part) < len(exact)
    assert (joined["AP"] == joined["AP_exact"]).all() and (joined["AP50"] == joined["AP50_exact"]).all()
    assert part["step"].nunique() == part.attrs["units"] == len(list(tmp_path.rglob("*.json")))
    assert within.budgeted_search(*tiny, SPACE, latency, budget=0.5, **given).equals(part)
    # The units are those of the exact search, which goes on from them.
    grid.evaluate_grid(*tiny, SPACE, folder=tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == len(SPACE.triples())


@pytest.mark.parametrize("sampler", FEW)
def test_few_images_tell_of_all_networks(tiny, exact, sampler, tmp_path):
    given = {"sampler": sampler, "folder": tmp_path, "budget": 0.4}
    part = within.budgeted_search(*tiny, SPACE, latency, **given)
    assert 0 < part.attrs["spent"] <= 0.4 and set(part["images"]) <= {0, 3, 6, 12}
    assert (
        part[["resolution", "patch_size", "windows"]][part["images"] > 0].drop_duplicates().shape[0]
        == (part.attrs["units"])
    )
    if sampler == "multifidelity":
        assert len(part) == len(exact) and part["AP"].notna().all() and part["AP_sd"].ge(0).all()
        assert part["AP_sd"][part["images"] < 12].gt(0).all()
    again = within.budgeted_search(*tiny, SPACE, latency, **given)
    assert again.equals(part)


def test_all_blocks_give_the_exact_table_bit_for_bit(tiny, exact):
    whole = within.budgeted_search(*tiny, SPACE, latency, budget=1.0)
    assert whole.attrs["spent"] == pytest.approx(1) and set(whole["images"]) == {12}
    joined = whole.merge(exact, on=list(Arch.KNOBS), suffixes=("", "_exact"))
    assert len(joined) == len(exact)
    for name in METRICS:
        np.testing.assert_array_equal(joined[name], joined[f"{name}_exact"])
    assert (whole["AP_sd"] == 0).all()


def test_images_without_objects_are_no_level(tiny):
    model, data = tiny
    first = sorted(image["id"] for image in data.coco["images"])[:4]
    sparse = data.subset(len(data))
    kept = [a for a in data.coco["annotations"] if a["image_id"] not in first]
    sparse.__dict__["coco"] = {**data.coco, "annotations": kept}
    found = within.budgeted_search(model, sparse, SPACE, latency, budget=0.5)
    assert set(found["images"]) <= {0, 6, 12} and found["AP"].notna().all()
    sparse.__dict__["coco"] = {**data.coco, "annotations": []}
    with pytest.raises(UserError, match="no objects"):
        within.budgeted_search(model, sparse, SPACE, latency, budget=0.5)


def test_what_cannot_be_searched_is_one_line(tiny):
    for budget, message in ((1e-6, "pays for nothing"), (0, "above 0"), (2, "at most 1")):
        with pytest.raises(UserError, match=message):
            within.budgeted_search(*tiny, SPACE, latency, budget=budget)
    with pytest.raises(UserError, match="goes by AP, not by 'AP50'"):
        within.budgeted_search(*tiny, SPACE, latency, budget=0.5, metric="AP50")
    with pytest.raises(UserError, match="needs latencies"):
        within.budgeted_search(*tiny, SPACE, None, budget=0.5)


def note(log, *words):
    """One line, written at once, so that lines of several processes do not mix."""
    with log.open("ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\n").encode())


def work(tiny, storage, log, measures):
    """A worker process; the log says which units it began and which results it kept."""
    torch.set_num_threads(1)
    begun, kept = looks.Looks._unit, SqlResults.insert

    def beginning(self, name):
        note(log, "begun", name, os.getpid())
        return begun(self, name)

    def keeping(self, unit, entry):
        done = kept(self, unit, entry)
        if done:
            note(log, "kept", unit, os.getpid())
        return done

    looks.Looks._unit, SqlResults.insert = beginning, keeping
    queue = {"heartbeat": 0.3, "grace": 3.0, "attempts": 50, "deaths": 100}
    within.budgeted_search(
        *tiny, SPACE, latency if measures else None, budget=0.8, storage=storage, queue=queue
    ).to_csv(f"{log}.{measures}.csv", index=False)


def test_killed_workers_give_the_undisturbed_table(tiny, tmp_path):
    """Twenty random kill -9 among (setting, block) units."""
    log, storage = tmp_path / "log", f"sqlite:///{tmp_path}/search.db"
    rng = random.Random(0)

    def start(measures):
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(tiny, storage, log, measures)
        )
        process.start()
        return process

    workers, killed = [start(True), start(False)], []
    while len(killed) < KILLS and any(process.is_alive() for process in workers):
        time.sleep(rng.uniform(0.05, 0.4))
        victim = rng.randrange(2)
        if workers[victim].is_alive():
            workers[victim].kill()
            killed.append(str(workers[victim].pid))
        workers[victim].join()
        workers[victim] = start(victim == 0)
    for process in workers:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert len(killed) == KILLS
    import pandas as pd

    alone = within.budgeted_search(*tiny, SPACE, latency, budget=0.8)
    for measures in (True, False):
        found = pd.read_csv(f"{log}.{measures}.csv")
        pd.testing.assert_frame_equal(found, alone, check_dtype=False, rtol=1e-12)
    counted = counted_units(log.read_text().splitlines(), set(killed))
    # All blocks up to the level that each setting was looked at, and nothing else.
    settings = alone.drop_duplicates(["resolution", "patch_size", "windows"])
    blocks_of = {0: 0, 3: 1, 6: 2, 12: 3}
    assert len(counted) == sum(blocks_of[images] for images in settings["images"])


def counted_units(lines, killed):
    """Unit -> how often it was begun. Fails when one was begun although it was kept, or although the one that
    had begun it before was not killed.
    """
    begun, kept = {}, set()
    for kind, unit, worker in (line.split() for line in lines):
        if kind == "kept":
            kept.add(unit)
            continue
        assert unit not in kept, f"{unit} was finished and begun again"
        assert set(begun.get(unit, [])) <= killed, f"{unit} was begun by two workers at once"
        begun.setdefault(unit, []).append(worker)
    return {unit: len(workers) for unit, workers in begun.items()}


def test_a_unit_that_runs_twice_is_seen():
    lines = ["begun u 1", "begun v 2", "kept v 2", "begun u 3", "kept u 3"]
    assert counted_units(lines, {"1"}) == {"u": 2, "v": 1}
    with pytest.raises(AssertionError, match="by two workers at once"):
        counted_units(lines, {"2"})
    with pytest.raises(AssertionError, match="v was finished and begun again"):
        counted_units([*lines, "begun v 3"], {"1", "2"})
