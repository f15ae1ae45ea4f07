"""Parts for the tests of crews, importable by their processes; and how to do a whole study in this one."""

import os
import time

from rfdetr.experiments.base.parts import perform


def add(place, values):
    return sum(values)


def total(place, parts):
    return sum(place.value(name) for name in parts)


def written(place, ending):
    place.folder.mkdir(parents=True, exist_ok=True)
    place.file(ending).write_bytes(b"abc")


def sizes(place, endings):
    return sum(len(place.needed(name, ending).read_bytes()) for name, ending in endings.items())


def patient(place):
    """Fails at the first try and finds what it left at the second."""
    place.work.mkdir(parents=True, exist_ok=True)
    with (place.work / "tries").open("a") as file:
        file.write("x")
    tries = (place.work / "tries").read_text()
    if tries == "x":
        raise RuntimeError("try again")
    return tries


def slow(place, seconds):
    time.sleep(seconds)


def broken(place):
    raise ValueError("no such luck")


def killed(place):
    os._exit(7)


def perform_all(task, device="cpu"):
    """Do every part of a task here, one after the other."""
    while (name := task.plan.ready(device)) is not None:
        perform(task.plan, name, device, task.profile, task.seed)
