"""Studies in parts: order, resumption, crews of processes, failures; scenes painted once."""

import json

import numpy as np
import pytest
from study_parts import perform_all

from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.experiments.base import carried, crew
from rfdetr.experiments.base.crew import Task, work
from rfdetr.experiments.base.painted import Painted
from rfdetr.experiments.base.parts import Part, Plan, makers, perform
from rfdetr.files import write_json

CODE = ("rfdetr.files",)


def part(name, function, needs=(), **options):
    return Part(name, f"study_parts:{function}", options, needs)


def task(folder, *parts, name="study"):
    return Task(name, Plan(folder, parts, CODE), "smoke", 0)


def test_a_crew_does_every_part_once_and_in_the_order_of_needs(tmp_path):
    parts = [part(f"p{i}", "add", values=[i, 1]) for i in range(5)]
    parts.append(part("all", "total", tuple(p.name for p in parts), parts=[p.name for p in parts]))
    first, other = task(tmp_path / "a", *parts), task(tmp_path / "b", part("p", "add", values=[7]), name="b")
    lines = []
    outcome = work([first, other], ("cpu", "cpu"), threads=1, report=lines.append)
    assert outcome == crew.Outcome(7, 0, {}) and len(lines) == 7
    records = first.plan.done()
    assert list(records) == [p.name for p in parts] and records["all"]["value"] == 15
    assert records["all"]["made"]["device"] == "cpu" and records["all"]["made"]["profile"] == "smoke"
    assert [(row["parts"], row["device"]) for row in makers(records.values())] == [(6, "cpu")]
    stamps = {p.name: first.plan.path(p.name).stat().st_mtime_ns for p in parts}
    assert work([first], threads=1, report=lines.append).done == 0
    assert stamps == {p.name: first.plan.path(p.name).stat().st_mtime_ns for p in parts}


def test_a_changed_option_redoes_the_part_and_what_needs_it(tmp_path):
    def plan(value):
        return task(
            tmp_path,
            part("a", "add", values=[value]),
            part("b", "add", values=[5]),
            part("c", "total", ("a",), parts=["a"]),
        ).plan

    old, new = plan(1), plan(2)
    assert old.path("b") == new.path("b")
    assert old.path("a") != new.path("a") and old.path("c") != new.path("c")
    perform_all(Task("s", old, "smoke", 0))
    assert plan(1).missing() == [] and plan(2).missing() == ["a", "c"]
    with pytest.raises(ValueError, match="c needs a, which does not come before it"):
        Plan(tmp_path, [part("c", "total", ("a",), parts=["a"])], CODE)


def test_a_study_may_come_twice_with_the_urgent_parts_first(tmp_path):
    parts = [part(f"p{i}", "add", values=[i]) for i in range(4)]
    urgent, all_of_it = task(tmp_path, parts[3]), task(tmp_path, *parts)
    lines = []
    outcome = work([urgent, all_of_it], threads=1, report=lines.append)
    assert outcome == crew.Outcome(4, 0, {}) and "p3 done" in lines[0] and "4/4" in lines[-1]
    assert work([urgent, all_of_it], reserved=["cpu"], threads=1) == crew.Outcome(0, 0, {})


def test_reserved_processes_leave_other_parts_alone(tmp_path):
    mine = Part("mine", "study_parts:add", {"values": [1]}, device="cpu")
    study = task(tmp_path, part("any", "add", values=[1]), mine)
    outcome = work([study], reserved=["cpu"], threads=1, report=lambda line: None)
    assert outcome.missing == 1 and list(study.plan.done()) == ["mine"]


def test_a_study_goes_on_from_what_its_kept_result_carries(tmp_path):
    def study(folder):
        parts = [part("wide", "written", ending=".bin"), part("small", "written", ending=".npz")]
        parts.append(part("sum", "sizes", ("wide", "small"), endings={"wide": ".bin", "small": ".npz"}))
        return task(folder, *parts)

    first, kept = study(tmp_path / "a"), tmp_path / "kept"
    for name in ("wide", "small"):
        perform(first.plan, name, "cpu", "smoke", 0)
    carried.pack(first.plan, kept)
    before = (kept / carried.ARCHIVE).read_bytes()
    carried.pack(first.plan, kept)
    assert (kept / carried.ARCHIVE).read_bytes() == before

    other = study(tmp_path / "b")
    assert carried.unpack(other.plan, kept) == 2 and carried.unpack(other.plan, kept) == 0
    assert other.plan.done() == first.plan.done() and other.plan.missing() == ["sum"]
    # What is missing reads a file that is not carried: the part that wrote it is done again, the other not.
    assert other.plan.todo() == ["wide", "sum"]
    assert work([other], threads=1, report=lambda line: None).done == 2
    assert other.plan.done()["sum"]["value"] == 6 and other.plan.todo() == []

    # Once all is done, networks that are gone are nobody's need.
    carried.pack(other.plan, kept)
    last = study(tmp_path / "c")
    assert carried.unpack(last.plan, kept) == 3 and last.plan.todo() == [] == last.plan.missing()


def test_the_kept_network_is_that_of_its_part(tmp_path):
    first = task(tmp_path / "a", part("base", "written", ending=".safetensors"))
    perform_all(first)
    carried.pack(first.plan, tmp_path / "kept")
    (tmp_path / "kept" / carried.NETWORK).write_bytes(b"network")
    other = task(tmp_path / "b", part("base", "written", ending=".safetensors"))
    carried.unpack(other.plan, tmp_path / "kept", "base")
    assert other.plan.place("base", "cpu").file(".safetensors").read_bytes() == b"network"


def test_parts_made_by_other_code_are_done_anew_unless_they_are_accepted(tmp_path):
    parts = [
        part("a", "add", values=[1]),
        part("b", "add", values=[2]),
        part("c", "total", ("a",), parts=["a"]),
    ]
    plan = Plan(tmp_path, parts, CODE)
    perform_all(Task("s", plan, "smoke", 0))
    record = plan.done()["a"]
    write_json(plan.path("a"), {**record, "code": "of another day"})
    assert Plan(tmp_path, parts, CODE).missing() == ["a", "c"]
    accepting = Plan(tmp_path, parts, CODE, any_code=True)
    assert accepting.missing() == [] and accepting.done()["c"]["value"] == 1
    rows = makers(accepting.done().values(), plan.code, "abc")
    assert sorted((row["code"], row.get("code_of"), row["parts"]) for row in rows) == sorted(
        [("of another day", None, 1), (plan.code, "abc", 2)]
    )
    assert Plan(tmp_path, parts, CODE, context={"steps": 3}).missing() == ["a", "b", "c"]


def test_a_stopped_run_keeps_what_is_done(tmp_path):
    study = task(tmp_path, part("quick", "add", values=[1]), part("long", "slow", seconds=600))
    assert work([study], seconds=0, threads=1) == crew.Outcome(0, 2, {})

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work([study], threads=1, report=interrupt)
    assert study.plan.missing() == ["long"] and study.plan.done()["quick"]["value"] == 1
    study.plan.path("quick").write_text("{ half")
    with pytest.raises(UserError, match="delete it, and the part is done again"):
        study.plan.done()


def test_unfinished_work_outlives_a_failure_and_goes_when_the_part_is_done(tmp_path):
    study = task(tmp_path, part("p", "patient"))
    place = study.plan.place("p", "cpu")
    with pytest.raises(RuntimeError):
        perform(study.plan, "p", "cpu", "smoke", 0)
    assert place.work.is_dir() and study.plan.missing() == ["p"]
    assert perform(study.plan, "p", "cpu", "smoke", 0)["value"] == "xx"
    assert not place.work.exists() and not study.plan.missing()


def test_failures_and_dead_processes_stop_only_what_needs_them(tmp_path):
    study = task(
        tmp_path,
        part("dead", "killed"),
        part("bad", "broken"),
        part("after", "total", ("bad",), parts=["bad"]),
        part("good", "add", values=[1, 2]),
    )
    outcome = work([study], threads=1, report=lambda line: None)
    assert outcome.failed == {
        ("study", "dead"): "its process ended with code 7",
        ("study", "bad"): "ValueError: no such luck",
    }
    assert outcome.missing == 3 and study.plan.done()["good"]["value"] == 3
    assert "study_parts.py" in (tmp_path / "bad.error.txt").read_text()


def test_two_runs_in_one_folder_are_refused(tmp_path):
    study = task(tmp_path, part("a", "add", values=[1]))
    with crew.FileLock(tmp_path / "crew.lock"), pytest.raises(UserError, match="another run works on"):
        work([study])


def test_a_part_waits_for_its_device(tmp_path):
    plan = Plan(
        tmp_path, [Part("gpu", "study_parts:add", {}, (), "cuda"), part("any", "add", values=[])], CODE
    )
    assert plan.ready("cpu") == "any" and plan.ready("cuda") == "gpu"
    assert plan.ready("cpu", asked=True) is None and plan.ready("cuda", asked=True) == "gpu"
    assert plan.ready("cuda", ["gpu"]) == "any" and plan.ready("cpu", ["any"]) is None


@pytest.mark.parametrize("domain", ["digits", "crowd", "specks"])
def test_painted_scenes_are_the_scenes(tmp_path, domain):
    base = scenes(domain, "train", size=9, canvas=64)
    first, second = Painted(base, tmp_path), Painted(base, tmp_path)
    assert first.fingerprint == base.fingerprint and not first.has_masks and first.coco is base.coco
    for dataset in (first, second, Painted(base, tmp_path)):
        for index in range(len(base)):
            (picture, target), (wanted, truth) = dataset[index], base[index]
            assert np.array_equal(picture, wanted) and (target.image_id, target.size) == (index + 1, (64, 64))
            assert target.labels.equal(truth.labels) and target.boxes.equal(truth.boxes)
    with pytest.raises(IndexError):
        first[9]
    size = sum(path.stat().st_size for path in tmp_path.glob("*.bin"))
    assert size == 9 * (3 * 64 * 64 + 1154)
    json.dumps(first.coco)
