"""How long a search takes and what is left of it: plans, fine-tuning, baselines, processes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import Arch, SearchSpace, UserError
from rfdetr.data.scenes import scenes
from rfdetr.nas import choose, finetune, pages, plan, words
from rfdetr.nas.baseline import fixed_arch
from rfdetr.nas.measure import StepCost, fitting_batch, sharing
from rfdetr.nas.options import NasOptions
from rfdetr.nas.processes import Trainer, check_devices, sharing_processor
from rfdetr.training.config import TrainConfig

# -- plan

COSTS = plan.Costs(
    StepCost(0.5, 8, 2, 900), tune_s=(0.2, 0.5, 1.1), search_s=60.0, timing_s=2.0, fastest_ms=1.0
)


def planned(costs=COSTS, **options):
    return plan.make_plan(NasOptions(data="digits", **options), 200, 50, None, costs)


@pytest.mark.parametrize("hours", [0.2, 0.5, 2.0, 12.0])
@pytest.mark.parametrize("baseline", [False, True])
def test_a_plan_fits_its_hours(hours, baseline):
    found = planned(hours=hours, baseline=baseline)
    assert found.total_s <= 3600 * hours
    assert found.total_s > 0.6 * 3600 * hours
    assert found.steps > found.tune_steps > 0
    assert (found.alone is None) == (not baseline)


def test_a_plan_says_what_a_baseline_takes():
    alone, halved = planned(hours=2.0), planned(hours=2.0, baseline=True)
    assert halved.alone == alone.steps and 0.4 < halved.steps / alone.steps < 0.6
    (line,) = [line for line in halved.lines(200, 90) if line.startswith("baseline")]
    assert f"{alone.steps:,} steps" in line and "half" in line
    assert "doubles" in " ".join(planned(baseline=True).lines(200, 90))
    assert "baseline" not in " ".join(alone.lines(200, 90))


@pytest.mark.parametrize("options", [{"steps": 4}, {"steps": 1000}, {"hours": 1.0}])
def test_slow_exports_are_fewer_and_the_plan_says_so(options):
    slow = replace(COSTS, timing_s=30.0)
    few, many = planned(slow, **options), planned(**options)
    assert 8 <= few.measured < many.measured <= 40
    assert f"{few.measured} of 90 sub-networks timed, 30.0 s each" in " ".join(few.lines(200, 90))
    assert "predicted" in " ".join(few.lines(200, 90))
    # Whoever names a number gets it.
    assert planned(slow, measured=33, **options).measured == 33


def test_a_long_run_times_the_whole_front():
    found = planned(steps=100_000)
    assert found.measured == 40 and found.complete and "whole front" in " ".join(found.lines(200, 90))
    assert not planned(replace(COSTS, timing_s=30.0), steps=4).complete
    # Of few pictures the front can have any number of networks: who asks for 12 gets 12.
    assert not planned(steps=100_000, measured=12).complete and planned(steps=1, measured=50).complete
    assert "predicted" not in " ".join(found.lines(200, 30))


def test_fine_tuning_is_planned_for_networks_over_the_whole_search_space():
    wide = replace(COSTS, tune_s=(0.2, 0.5, 9.0))
    usual, slow = planned(hours=1.0), planned(wide, hours=1.0)
    assert slow.tune_steps < usual.tune_steps
    assert slow.seconds["fine-tune"] == pytest.approx(slow.tune_steps * 9.7)


@given(steps=st.integers(1, 5000), images=st.integers(1, 64), val=st.integers(1, 10_000))
def test_evaluations_are_a_small_part_of_a_training(steps, images, val):
    count = plan._evaluations(steps, images, val)
    assert 1 <= count <= plan.EVALUATIONS
    assert count == 1 or count * val <= plan._EVALUATING * steps * images


def test_steps_for_what_is_left_of_the_hours():
    assert finetune.affordable(100, (1.0, 2.0, 3.0), 601.0) == 100
    assert finetune.affordable(100, (1.0, 2.0, 3.0), 300.0) == 50
    assert finetune.affordable(100, (1.0, 2.0, 3.0), 30.0) == 0  # five steps teach nothing
    assert finetune.affordable(100, (1.0,), -5.0) == 0
    assert finetune.affordable(4, (1.0,), 100.0) == 4


@given(
    batch=st.sampled_from([1, 2, 3, 6, 16]),
    arch=st.sampled_from(["r64-p16-w1-d1-q4", "r128-p8-w1-d3-q30", "r96-p12-w2-d3-q30"]),
)
def test_a_network_with_more_tokens_than_were_trained_gets_smaller_passes(batch, arch):
    space, arch = SearchSpace((64, 96), (12, 16), (1,), (3,), (30,)), Arch.parse(arch)
    recipe = TrainConfig(batch_size=batch, accumulate=2)
    own = finetune.fitting_passes(recipe, arch, space)
    assert own.batch_size * own.accumulate == 2 * batch
    most = max(one.tokens for one in space.distinct())
    assert own.batch_size == 1 or own.batch_size * arch.tokens <= batch * most
    assert arch.tokens > most or own == recipe


def test_the_memory_there_is_decides_on_the_passes_and_no_picture_more_is_trained():
    for wanted in (1, 6, 16, 17):
        for grown in (1.0, 1e4, 1e9):
            size, _ = fitting_batch(grown, wanted)
            assert wanted % size == 0
    assert fitting_batch(1e9, 16)[0] == 1 and fitting_batch(1.0, 16)[0] == 16
    assert fitting_batch(1.0, 4, devices=10**9)[0] == 1


def test_the_group_that_is_timed_for_the_plan_shares_its_graphs():
    space = SearchSpace((64, 96, 128), (16,), (1, 2), (0, 1, 2), (4, 8, 12))
    group = sharing(space)
    assert len(group) == 4 and len({arch.encoder for arch in group}) == 1
    assert set(group) <= set(space.distinct())
    assert len(sharing(SearchSpace((64,), (16,), (1,), (2,), (4,)))) == 1


def test_too_little_time_is_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="--hours"):
        planned(hours=0.03)


@pytest.mark.parametrize("steps", [None, 8])
def test_a_limit_that_holds_nothing_is_refused_whatever_the_steps(steps):
    with pytest.raises(UserError, match=r"--hours 0\.01 .* more than"):
        planned(hours=0.01, steps=steps)


def test_steps_that_do_not_fit_the_hours_are_kept_and_said():
    found = planned(hours=0.1, steps=5000)
    assert found.steps == 5000 and found.tune_steps >= 0
    assert "more than the 6 min of --hours" in found.lines(200, 90)[-1]
    assert "more than" not in " ".join(planned(hours=2.0).lines(200, 90))


def test_latencies_that_nothing_can_reach_are_refused_and_doubtful_ones_said():
    with pytest.raises(UserError, match=r"--target-ms 0\.1, 1: .* 5 ms"):
        plan.unreachable(NasOptions(data="digits", targets_ms=(0.1, 1.0)), 5.0)
    assert "may be no network" in plan.unreachable(NasOptions(data="digits", targets_ms=(1.0, 9.0)), 5.0)
    assert plan.unreachable(NasOptions(data="digits", targets_ms=(6.0,)), 5.0) == ""
    assert plan.unreachable(NasOptions(data="digits"), 5.0) == ""


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
        {"devices": 0},
        {"devices": 2, "batch_size": 5},
        {"resolutions": (0, 64)},
        {"patch_sizes": (-8,)},
        {"like": ("d-fine-s", "yolo-of-mine")},
    ],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(UserError, match=r"--|'yolo-of-mine'; known: .*d-fine-s"):
        NasOptions(**{"data": "digits", **wrong})


# -- baseline


def row(arch, ms, low, high):
    values = {"difference": (low + high) / 2, "low": low, "high": high, "resolved": low > 0 or high < 0}
    return {"arch": arch, "latency_ms": ms, **values}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [row("a", 5, 0.01, 0.05), row("b", 30, 0.1, 0.2)],
            "worth it: more accurate and no slower (a,",
        ),
        ([row("a", 5, -0.3, -0.1), row("b", 30, 0.1, 0.2)], "worth it only where there is time"),
        ([row("a", 5, -0.02, 0.01), row("b", 9, -0.01, 0.03)], "worth it for the latency alone: faster"),
        ([row("a", 10, -0.02, 0.01), row("b", 5, -0.3, -0.1)], "not shown to be worth it: neither"),
        ([row("a", 5, -0.3, -0.1), row("b", 10, -0.2, -0.1)], "not worth it: every chosen"),
    ],
)
def test_was_the_search_worth_it(rows, said):
    fixed = {"latency_ms": 10.0, "against": rows}
    text = words.worth({**fixed, "test": {"AP": 0.3}})
    assert text.startswith(said) and "instead of 10 ms" in text


def test_networks_that_find_nothing_show_nothing():
    against = [row("a", 5, -0.001, 0.003)]
    for ap in (0.0, None, 0.002):
        said = words.worth({"latency_ms": 10.0, "test": {"AP": ap}, "against": against})
        assert said.startswith("not shown to be worth it: neither the fixed network")
    # One that finds what the other does not is better.
    found = words.worth({"latency_ms": 10.0, "test": {"AP": 0.0}, "against": [row("a", 5, 0.1, 0.3)]})
    assert found.startswith("worth it")


def test_a_baseline_that_the_hours_cut_short_is_not_called_the_same_cost():
    assert words.share({"share": 1.0}) == "" and "87%" in words.share({"share": 0.87})
    assert pages._cost({"share": 1.0}) == "at the same cost" and "87%" in pages._cost({"share": 0.87})


@pytest.mark.parametrize(("pictures", "resolved"), [(1, False), (5, False), (6, True)])
def test_a_handful_of_pictures_resolves_nothing(pictures, resolved):
    dataset = scenes("giants", "val", size=pictures, canvas=64)
    perfect, empty = [], []
    for index in range(pictures):
        target = dataset[index][1]
        centre, size = target.boxes[:, :2].numpy() * 64, target.boxes[:, 2:].numpy() * 64
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        found = {"boxes": boxes, "labels": target.labels.numpy()}
        perfect.append({"image_id": target.image_id, **found, "scores": np.full(len(target), 0.9)})
        empty.append({**perfect[-1], **{name: perfect[-1][name][:0] for name in (*found, "scores")}})
    results = [SimpleNamespace(detections=found) for found in (perfect, empty)]
    held = choose.compared(dataset, *results, "AP", 0)
    assert held["difference"] == pytest.approx(1.0) and held["resolved"] is resolved


# -- processes


@pytest.mark.parametrize(
    ("cuda", "devices", "said"), [(2, 3, "here are 2 GPUs"), (0, 10**6, "no GPU"), (1, 1, None), (0, 1, None)]
)
def test_processes_that_cannot_be_are_refused(monkeypatch, cuda, devices, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    if said is None:
        return check_devices(devices)
    with pytest.raises(UserError, match=f"--devices {devices}: .*{said}"):
        check_devices(devices)


@pytest.mark.parametrize(
    ("options", "shared", "devices"),
    [
        ({"hours": 0.5}, 0.3, 2),  # two processes are faster
        ({"hours": 0.5}, 0.48, 1),  # not by enough
        ({"hours": 0.5, "devices": 1}, 0.3, 1),  # asked for one
        ({"steps": 20, "fine_tune": False}, 0.3, 1),  # too short a training to try
    ],
)
def test_processes_share_a_processor_where_that_is_faster(tmp_path, monkeypatch, options, shared, devices):
    grid = SearchSpace((64,), (16,), (1,), (1,), (4,))
    begin = SimpleNamespace(
        model=SimpleNamespace(config=None),
        space=grid,
        config=TrainConfig(batch_size=16),
        pretrained=True,
        origin="random",
        details=(),
    )
    asked = []

    def step_cost(trainer, *_):
        asked.append(trainer.devices)
        seconds = 0.5 if trainer.devices == 1 else shared
        return StepCost(seconds, 16 // trainer.devices, 1, 900, fixed_s=seconds)

    searching = {"search_s": 60.0, "timing_s": 2.0, "fastest_ms": 1.0}
    for name, value in {
        "start": lambda *_: begin,
        "search_space": lambda _: grid,
        "step_cost": step_cost,
        "search_cost": lambda *_: searching,
        "spread_costs": lambda config, space, step: (step.seconds,) * 3,
        "sharing_processor": lambda pictures: 2 if pictures == 16 else 1,
    }.items():
        monkeypatch.setattr(plan, name, value)
    trainer = Trainer(
        "digits", opened={"train": scenes("digits", "train", 40), "val": scenes("digits", "val", 10)}
    )
    found = plan.settle(NasOptions(data="digits", **options), trainer, None, tmp_path)
    assert found["devices"] == devices and found["batch_size"] == 16 // devices
    assert asked == ([1] if "devices" in options or "steps" in options else [1, 2])
    assert found["costs"]["step"]["seconds"] == (shared if devices == 2 else 0.5)


def test_pictures_of_a_step_are_shared_evenly(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert [sharing_processor(pictures) for pictures in (16, 6, 5, 9, 1)] == [4, 3, 1, 3, 1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sharing_processor(16) == 1


def test_a_run_is_not_started_by_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="--devices N"):
        check_devices(1)


def test_a_folder_with_another_run_is_told():
    now = NasOptions(data="digits", steps=5, targets_ms=(3.0,)).to_dict()
    assert words.other_options(None, now) == words.other_options(json.loads(json.dumps(now)), now) == ""
    said = words.other_options({**json.loads(json.dumps(now)), "steps": 6, "targets_ms": []}, now)
    assert "(targets-ms, steps)" in said and "stay" in said


def test_fine_tuning_is_better_worse_or_not_resolved():
    rows = [row("a", 1.0, *ends) for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))]
    said = [words.fine_tuning({**r, "better": r["difference"] > 0 and r["resolved"]}) for r in rows]
    assert [text.split(":")[0] for text in said] == ["better", "worse", "not resolved"]
    assert ["replaces" in text for text in said] == [True, False, False]


def test_the_fixed_architecture_is_in_the_grid():
    space = SearchSpace((64, 96, 128), (8, 16), (1, 2), (2,), (12,))
    assert fixed_arch(space, None) in space.distinct()
