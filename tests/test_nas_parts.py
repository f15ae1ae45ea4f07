"""The parts of a search on one's own data: stages, proposals, plans, choices, outcomes."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import Arch, SearchSpace, UserError
from rfdetr.data.dataset import Target
from rfdetr.data.scenes import scenes
from rfdetr.evaluation.outcomes import best_threshold, confusion, outcome, precision_recall
from rfdetr.nas import choose, html, plan, words
from rfdetr.nas.baseline import fixed_arch
from rfdetr.nas.look import Shape, propose
from rfdetr.nas.options import NasOptions
from rfdetr.nas.stages import Stages

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


# -- look


def test_the_shape_of_scenes_is_counted_right():
    dataset = scenes("crowd", "val", size=20)
    shape = Shape.of(dataset)
    counts = [len(dataset[i][1]) for i in range(20)]
    assert shape.images == 20 and shape.objects == sum(counts)
    assert shape.per_image[0] == np.median(counts) and shape.per_image[3] == max(counts)


@given(
    per_image=st.floats(0, 800),
    small=st.floats(0.001, 1),
    queries=st.none() | st.integers(1, 500),
    patch=st.sampled_from([(), (8,), (12, 16), (16, 24)]),
    windows=st.sampled_from([(), (1,), (1, 2, 4)]),
)
def test_every_proposal_can_be_trained(per_image, small, queries, patch, windows):
    shape = Shape(10, 100, (per_image / 2, per_image, per_image, per_image), (small, small, small))
    found = propose(shape, {**FREE, "queries": queries, "patch_sizes": patch, "windows": windows})
    assert found.space.distinct() and len(found.reasons) >= 4
    assert queries is None or found.queries == queries


def test_more_and_smaller_objects_ask_for_more_queries_and_tokens():
    few = propose(Shape(9, 9, (1, 2, 3, 3), (0.3, 0.4, 0.5)), FREE)
    many = propose(Shape(9, 9, (50, 80, 90, 90), (0.03, 0.04, 0.05)), FREE)
    assert many.queries > few.queries and many.space.resolutions[-1] > few.space.resolutions[-1]


# -- plan

STEP = {"seconds": 0.5, "batch_size": 8, "accumulate": 2, "peak_mb": 900}


def planned(**options):
    given = NasOptions(data="digits", **options)
    return plan.make_plan(given, 200, None, STEP, search_s=60.0, timing_s=2.0)


@pytest.mark.parametrize("hours", [0.2, 0.5, 2.0, 12.0])
@pytest.mark.parametrize("baseline", [False, True])
def test_a_plan_fits_its_hours(hours, baseline):
    found = planned(hours=hours, baseline=baseline)
    assert found.total_s <= 3600 * hours
    assert found.total_s > 0.6 * 3600 * hours
    assert found.steps > found.tune_steps > 0


def test_too_little_time_is_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="--hours"):
        planned(hours=0.03)


def test_steps_that_were_asked_for_are_kept():
    assert planned(hours=1.0, steps=123).steps == 123 and planned(steps=77).steps == 77
    assert planned(fine_tune=False).tune_steps == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ""},
        {"targets_ms": (0.0,)},
        {"targets_ms": (float("nan"),)},
        {"targets_ms": (5.0,), "like": ("d-fine-s",)},
        {"hours": -1.0},
        {"steps": 0},
        {"threads": 0},
        {"seed": -1},
    ],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(UserError, match="--"):
        NasOptions(**{"data": "digits", **wrong})


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


def test_what_is_chosen_by_a_prediction_is_timed_and_gives_way_when_it_is_too_slow(tmp_path, monkeypatch):
    real = {1.0: 1.1, 2.0: 2.1, 4.0: 6.0, 8.0: 8.5}  # ms: predicted -> measured
    asked = []

    class Timed:
        """Stands for the runtime: knows what each network takes."""

        def __init__(self, *_):
            self.known = set()

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
    run = SimpleNamespace(options=options, metric="AP", table=lambda: predicted, folder=lambda _: tmp_path)
    found = choose.timed_picks(run, None, tmp_path)
    assert [(e["latency_ms"], e["timed"], len(e["targets"])) for e in found] == [(2.1, True, 2)]
    assert len(asked) == 2  # the first choices; the one that gave way had been timed, too


def test_fine_tuning_is_better_worse_or_not_resolved():
    rows = [
        {"better": low > 0, "low": low, "high": high} for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))
    ]
    assert [words.fine_tuning(row).split(":")[0] for row in rows] == ["better", "worse", "not resolved"]


def test_nothing_that_fits_is_an_error_with_the_nearest():
    options = NasOptions(data="digits", targets_ms=(0.5,))
    with pytest.raises(UserError, match="nearest"):
        choose.pick(table(), choose.targets(options, table(), "AP"), "AP")


def test_the_fixed_architecture_is_in_the_grid():
    space = SearchSpace((64, 96, 128), (8, 16), (1, 2), (2,), (12,))
    assert fixed_arch(space, None) in space.distinct()


# -- outcomes


def target(boxes, labels, size=(100, 200)):
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    scale = np.array([size[1], size[0]])
    centre, extent = (corners[:, :2] + corners[:, 2:]) / 2 / scale, (corners[:, 2:] - corners[:, :2]) / scale
    values = torch.from_numpy(np.concatenate([centre, extent], axis=1)).float()
    return Target(torch.tensor(labels, dtype=torch.int64), values, None, 1, size)


def found(boxes, labels, scores):
    return {
        "image_id": 1,
        "boxes": np.array(boxes, dtype=float).reshape(-1, 4),
        "labels": np.array(labels, dtype=int),
        "scores": np.array(scores, dtype=float),
    }


def test_hits_misses_confusions_and_false_alarms_are_told_apart():
    truth = target([[0, 0, 50, 50], [100, 0, 150, 50], [100, 50, 150, 100]], [0, 1, 1])
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [0, 60, 20, 90], [0, 0, 50, 49], [0, 0, 50, 50]]
    one = outcome(truth, found(boxes, [0, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.2]), 0.5)
    assert one.hits.tolist() == [True, False, False, False]  # the fourth is a duplicate
    assert one.missed.tolist() == [False, True, True]
    matrix = confusion([one], 2)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert matrix[:2].sum() == len(one.truth)


def test_an_empty_picture_and_no_detections_are_no_trouble():
    empty, nothing = target([], []), found([], [], [])
    assert confusion([outcome(empty, nothing, 0.5)], 3).sum() == 0
    assert best_threshold([nothing], [empty])[1] == 0.0


def test_perfect_detections_have_full_precision_everywhere():
    dataset = scenes("digits", "val", size=6)
    targets, detections = [dataset[i][1] for i in range(6)], []
    for t in targets:
        centre, size = t.boxes[:, :2].numpy(), t.boxes[:, 2:].numpy()
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * t.size[0]
        detections.append({**found(boxes, t.labels.numpy(), np.full(len(t), 0.9)), "image_id": t.image_id})
    recall, precision = precision_recall(dataset, detections)
    assert len(recall) == 101 and np.nanmin(precision) == pytest.approx(1.0)
    assert best_threshold(detections, targets) == (0.5, 1.0)


# -- report


def test_a_page_needs_no_network_and_runs_no_html_from_markdown():
    chart = {"data": [], "layout": {"meta": {"alt": "a </script> b"}}}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "<script>alert(1)</script>"]},
            {"cell_type": "code", "source": "1", "outputs": [{"data": {html.PLOTLY: chart}, "metadata": {}}]},
        ]
    }
    text = html.page(notebook, "a < b")
    body = text[: text.index("</main>")]
    assert "<script>alert(1)" not in body and "a &lt; b" in text and "viewport" in text
    assert body.count("</script>") == 1 and json.dumps("a <\\/script> b")[1:-1].replace("\\\\", "\\") in body
    # What the chart library holds as text loads nothing.
    page = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in page
