"""Several processes that do the parts of studies (`rfdetr.experiments.base.parts`) until all are done or time
is up.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rfdetr.errors import UserError
from rfdetr.experiments.base.parts import Plan, perform
from rfdetr.files import write_atomic

_GRACE = 10.0  # seconds that a stopped process has to write its checkpoint


@dataclass(frozen=True)
class Task:
    """A plan with what its results are signed with."""

    name: str
    plan: Plan
    profile: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """done: parts finished by this run. missing: parts still to do. failed: (study, part) -> last line of
    its error.
    """

    done: int
    missing: int
    failed: dict[tuple[str, str], str]


@dataclass
class _Member:
    """A process, its pipe, its device, and what it is doing since when."""

    process: Any
    pipe: Connection
    device: str
    job: tuple[Task, str] | None = None
    since: float = 0.0


@dataclass
class _State:
    members: list[_Member] = field(default_factory=list)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    done: int = 0


def work(
    tasks: Sequence[Task],
    devices: Sequence[str] = ("cpu",),
    seconds: float | None = None,
    threads: int | None = None,
    report: Callable[[str], Any] = print,
) -> Outcome:
    """Do the parts of several studies, the first ready part of the first study first.

    devices  one process for each: "cpu" or "cuda"
    seconds  stop after so long; what is not done by then is given up and goes on from its checkpoint later
    threads  of torch in each process; default: the processors divided by the processes
    report   gets a line for each part

    A part that fails is left out, with all that need it; the others go on. The processes write to
    `crew-N.log` in the first study's folder. UserError when another run works in one of the folders.
    """
    threads = threads or max(1, _processors() // len(devices))
    locks = [FileLock(task.plan.folder / "crew.lock") for task in tasks]
    try:
        for task, lock in zip(tasks, locks, strict=True):
            task.plan.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        return _run(tasks, devices, None if seconds is None else time.monotonic() + seconds, threads, report)
    except Timeout as error:
        raise UserError(f"another run works on {Path(error.lock_file).parent}: wait until it ends") from None
    finally:
        for lock in locks:
            lock.release()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(
    tasks: Sequence[Task], devices: Sequence[str], end: float | None, threads: int, report: Callable
) -> Outcome:
    logs, state, started = tasks[0].plan.folder, _State(), time.monotonic()
    missing = sum(len(task.plan.missing()) for task in tasks)
    try:
        state.members = [_start(device, n, threads, logs) for n, device in enumerate(devices[:missing])]
        while True:
            for member in state.members:
                _give(member, tasks, state)
            busy = [member for member in state.members if member.job]
            left = None if end is None else end - time.monotonic()
            if not busy or (left is not None and left <= 0):
                break
            for pipe in wait([member.pipe for member in busy], left):
                member = next(member for member in busy if member.pipe is pipe)
                line = _finished(member, state, threads, logs)
                report(f"{time.monotonic() - started:6.0f} s  {state.done}/{missing}  {line}")
    finally:
        _stop(state.members)
    return Outcome(state.done, sum(len(task.plan.missing()) for task in tasks), state.failed)


def _give(member: _Member, tasks: Sequence[Task], state: _State) -> None:
    """The next part for an idle process, if there is one that it can do now."""
    if member.job:
        return
    busy = [other.job for other in state.members if other.job]
    for task in tasks:
        taken = [part for other, part in busy if other is task]
        taken += [part for study, part in state.failed if study == task.name]
        part = task.plan.ready(member.device, taken)
        if part is not None:
            member.job, member.since = (task, part), time.monotonic()
            member.pipe.send((task, part))
            return


def _finished(member: _Member, state: _State, threads: int, logs: Path) -> str:
    """Take a process's answer; a process that died is replaced. Returns a line about it."""
    assert member.job is not None
    task, part = member.job
    try:
        error = member.pipe.recv()
    except (EOFError, OSError):
        member.process.join()
        error = f"its process ended with code {member.process.exitcode}"
        fresh = _start(member.device, state.members.index(member), threads, logs)
        member.process, member.pipe = fresh.process, fresh.pipe
    member.job = None
    spent = f"{time.monotonic() - member.since:.0f} s on {member.device}"
    if error is None:
        state.done += 1
        return f"{task.name}: {part} done, {spent}"
    state.failed[task.name, part] = error.strip().splitlines()[-1]
    write_atomic(task.plan.folder / f"{part}.error.txt", error)
    return f"{task.name}: {part} FAILED, {spent}: {state.failed[task.name, part]}"


def _start(device: str, number: int, threads: int, logs: Path) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    log = logs / f"crew-{number}.log"
    process = context.Process(target=_serve, args=(theirs, device, threads, log), daemon=True)
    process.start()
    theirs.close()
    return _Member(process, ours, device)


def _stop(members: Sequence[_Member]) -> None:
    """End the processes: idle ones by closing their pipe, busy ones by SIGTERM, on which a training writes
    its checkpoint, and at last by SIGKILL.
    """
    for member in members:
        member.pipe.close()
        if member.job and member.process.is_alive():
            member.process.terminate()
    end = time.monotonic() + _GRACE
    for member in members:
        member.process.join(max(0.0, end - time.monotonic()))
        if member.process.is_alive():
            member.process.kill()
            member.process.join()


def _serve(pipe: Connection, device: str, threads: int, log: Path) -> None:
    """Body of a process: do the parts that come through the pipe until it is closed."""
    with log.open("a", encoding="utf-8", buffering=1) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            task, part = pipe.recv()
        except EOFError:
            return
        error = None
        try:
            perform(task.plan, part, device, task.profile, task.seed)
        except Exception:
            error = traceback.format_exc()
        pipe.send(error)
