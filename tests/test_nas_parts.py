"""The parts of a search on one's own data: stages, proposals, plans, choices, outcomes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rfdetr import Arch, UserError
from rfdetr.data.registry import load_dataset
from rfdetr.data.scenes import scenes
from rfdetr.nas import choose
from rfdetr.nas.look import propose, shared_pictures, shared_words, small_side
from rfdetr.nas.options import NasOptions
from rfdetr.nas.stages import Stages, once

FREE = {"resolutions": (), "patch_sizes": (), "windows": (), "queries": None}


# -- stages


def run_two(root, made, first=1, second=1):
    stages = Stages(root, say=lambda text: None)
    stages.run("a", {"x": first}, (), lambda folder: made.append("a") or {"n": first}, "a")
    stages.run("b", {"y": second}, ("a",), lambda folder: made.append("b") or {}, "b")
    return stages


def test_what_is_done_is_not_done_again_and_a_change_remakes_only_what_depends_on_it(tmp_path):
    made = []
    run_two(tmp_path, made)
    run_two(tmp_path, made)
    assert made == ["a", "b"]
    run_two(tmp_path, made, second=2)
    assert made == ["a", "b", "b"]
    run_two(tmp_path, made, first=2)
    assert made == ["a", "b", "b", "a", "b"]
    # Changed back: both are still there.
    assert run_two(tmp_path, made).done["a"].result == {"n": 1}
    assert len(made) == 5


def test_a_stage_that_failed_goes_on_in_its_folder(tmp_path):
    def fails(folder):
        (folder / "half").write_text("done")
        raise RuntimeError("stopped")

    def goes_on(folder):
        return {"kept": (folder / "half").read_text()}

    stages = Stages(tmp_path, say=lambda text: None)
    with pytest.raises(RuntimeError):
        stages.run("a", {}, (), fails, "a")
    assert stages.run("a", {}, (), goes_on, "a").result == {"kept": "done"}


def test_a_result_that_was_cut_off_is_made_again(tmp_path):
    made = []
    folder = run_two(tmp_path, made).done["b"].folder
    text = (folder / "stage.json").read_text()
    (folder / "stage.json").write_text(text[: len(text) // 2])
    run_two(tmp_path, made)
    assert made == ["a", "b", "b"]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with Stages(tmp_path).alone(), pytest.raises(UserError, match="another run"), Stages(tmp_path).alone():
        pass


def test_a_part_of_a_stage_is_done_once(tmp_path):
    made = []
    for _ in range(2):
        assert once(tmp_path / "part.json", lambda: made.append(1) or {"n": len(made)}) == {"n": 1}
    (tmp_path / "part.json").write_text('{"n"')  # cut off, as no file of ours can be
    assert once(tmp_path / "part.json", lambda: {"n": 7}) == {"n": 7}


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*README\.md"), Stages(tmp_path).alone():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(UserError, match="is a file"), Stages(tmp_path / "README.md").alone():
        pass


def test_a_folder_whose_run_was_killed_at_its_first_moment_is_taken(tmp_path):
    (tmp_path / ".nas.lock").touch()
    with Stages(tmp_path).alone():
        pass


# -- look


def test_crowds_are_no_small_objects():
    dataset = scenes("crowd", "val", size=20)
    truth = dataset.coco
    sides = [(a["bbox"][2] * a["bbox"][3]) ** 0.5 / truth["images"][0]["width"] for a in truth["annotations"]]
    before = small_side(dataset)
    assert before == pytest.approx(np.percentile(np.square(sides), 10) ** 0.5)
    truth["annotations"] += [{**truth["annotations"][0], "bbox": [0, 0, 1, 1], "iscrowd": 1}] * 200
    assert small_side(dataset) == before


@given(
    high=st.floats(0, 800),
    small=st.floats(0.001, 1),
    queries=st.none() | st.integers(1, 500),
    patch=st.sampled_from([(), (8,), (12, 16), (16, 24)]),
    windows=st.sampled_from([(), (1,), (1, 2, 4), (30,)]),
)
def test_every_proposal_can_be_trained(high, small, queries, patch, windows):
    given = {**FREE, "queries": queries, "patch_sizes": patch, "windows": windows}
    found = propose(high, 2 * high, small, given)
    assert found.space.distinct() and len(found.reasons) >= 4
    assert queries is None or found.queries == queries
    # What is said is what is trained.
    assert f"resolutions {', '.join(map(str, found.space.resolutions))} px" in " ".join(found.reasons)


def test_more_and_smaller_objects_ask_for_more_queries_and_tokens():
    few, many = propose(2, 3, 0.3, FREE), propose(80, 90, 0.03, FREE)
    assert many.queries > few.queries and many.space.resolutions[-1] > few.space.resolutions[-1]


def test_a_size_that_was_asked_for_is_never_left_out():
    with pytest.raises(UserError, match=r"--resolutions 24 .* at least 32"):
        propose(2, 3, 0.3, {**FREE, "resolutions": (24, 64), "patch_sizes": (16,), "windows": (1, 2)})


def test_a_picture_of_two_splits_is_told(tmp_path):
    for seed, name in enumerate(("train", "valid", "test")):
        folder_of(tmp_path / name, scenes("giants", "train", size=3, canvas=96, seed=seed))
    splits = {name: load_dataset(str(tmp_path), name) for name in ("train", "val", "test")}
    assert "none resembles" in shared_words(shared_pictures(splits))
    first = next((tmp_path / "train").glob("*.png"))
    next((tmp_path / "test").glob("*.png")).write_bytes(first.read_bytes())
    found = shared_pictures(splits)
    assert found["same"] == 1 and first.name in shared_words(found)
    assert shared_words(shared_pictures({"train": scenes("giants", "train", size=3)})) == ""


def folder_of(place, data):
    place.mkdir(parents=True)
    for index, image in enumerate(data.coco["images"]):
        Image.fromarray(data[index][0]).save(place / image["file_name"])
    (place / "_annotations.coco.json").write_text(json.dumps(data.coco))


# -- choose


def table():
    rows = []
    for i, ms in enumerate((1.0, 2.0, 4.0, 8.0)):
        arch = Arch(64 + 32 * i, 16, 1, 1, 4)
        rows.append({**arch.to_dict(), "AP": (0.1, 0.3, 0.4, 0.42)[i], "predicted_ms": ms, "latency_ms": ms})
    return pd.DataFrame(rows)


def test_the_best_network_of_every_latency_is_picked():
    options = NasOptions(data="digits", targets_ms=(2.5, 3.0, 100.0, 0.1))
    found = choose.pick(table(), choose.targets(options, table(), "AP"), "AP")
    assert [e.get("latency_ms") for e in found] == [2.0, 8.0, None]
    assert found[0]["targets"] == ["at most 2.5 ms", "at most 3 ms"]
    assert "0.1 ms" in found[2]["refused"]


def test_without_targets_the_useful_part_of_the_front_is_spread():
    wanted = choose.targets(NasOptions(data="digits"), table(), "AP")
    assert [round(t["ms"], 6) for t in wanted] == [2.0, 4.0, 8.0]


@pytest.mark.parametrize("stopped", [False, True])
def test_what_is_chosen_by_a_prediction_is_timed_and_gives_way_when_it_is_too_slow(
    tmp_path, monkeypatch, stopped
):
    real = {1.0: 1.1, 2.0: 2.1, 4.0: 6.0, 8.0: 8.5}  # ms: predicted -> measured
    asked, before = [], set()

    class Timed:
        """Stands for the runtime: knows what each network takes."""

        def __init__(self, *_):
            self.known = before

        def measure(self, archs):
            new = {arch.id for arch in archs} - self.known
            self.known |= new
            asked.extend(new)
            return len(new)

        def onto(self, data, seed):
            ids = [Arch(*map(int, row)).id for row in data[list(Arch.KNOBS)].to_numpy()]
            slow = data["predicted_ms"].map(real).where([name in self.known for name in ids])
            return data.assign(latency_ms=slow, time_ms=slow.fillna(data["predicted_ms"]))

    predicted = table().assign(latency_ms=np.nan, time_ms=lambda d: d["predicted_ms"])
    (tmp_path / "latency.csv").write_text("")
    monkeypatch.setattr(choose, "Timings", Timed)
    monkeypatch.setattr(choose, "fingerprint", lambda model: "")
    options = NasOptions(data="digits", targets_ms=(2.5, 5.0))
    run = SimpleNamespace(options=options, metric="AP", protocol=None)
    run.table, run.folder = lambda: predicted, lambda _: tmp_path
    if stopped:  # once the first choices were timed
        choose.timed_picks(run, None, tmp_path)
    found = choose.timed_picks(run, None, tmp_path)
    assert [(e["latency_ms"], e["timed"], len(e["targets"])) for e in found] == [(2.1, True, 2)]
    assert len(asked) == 2  # the first choices; the one that gave way had been timed, too


def test_nothing_that_fits_is_an_error_with_the_nearest():
    options = NasOptions(data="digits", targets_ms=(0.5,))
    with pytest.raises(UserError, match="nearest"):
        choose.pick(table(), choose.targets(options, table(), "AP"), "AP")
