"""Several processes that do the parts of studies (`rfdetr.experiments.base.parts`) until all are done or time
is up.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rfdetr.errors import UserError
from rfdetr.experiments.base.parts import Plan, perform
from rfdetr.files import write_atomic
from rfdetr.provenance import usable_cpus

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


def work(
    tasks: Sequence[Task],
    devices: Sequence[str] = ("cpu",),
    seconds: float | None = None,
    threads: int | None = None,
    report: Callable[[str], Any] = print,
    reserved: Sequence[str] = (),
) -> Outcome:
    """Do the parts of several studies, the first ready part of the first study first. One study may come
    more than once, with other parts.

    devices  one process for each: "cpu" or "cuda"
    seconds  stop after so long (0: only look); what is not done by then is given up and goes on from its
             checkpoint later
    threads  of torch in each process; default: the processors divided by the processes
    report   gets a line for each part
    reserved devices whose processes do only parts that ask for them, and leave the rest to the others

    A part that fails is left out, with all that need it; the others go on. The processes write to
    `crew-N.log` in the first study's folder. UserError when another run works in one of the folders.
    """
    threads = threads or max(1, usable_cpus() // len(devices))
    folders = dict.fromkeys(task.plan.folder for task in tasks)
    locks = [FileLock(folder / "crew.lock") for folder in folders]
    end = None if seconds is None else time.monotonic() + seconds
    run = _Run(tasks, tuple(reserved), threads, report)
    try:
        for folder, lock in zip(folders, locks, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        return run(devices, end)
    except Timeout as error:
        raise UserError(f"another run works on {Path(error.lock_file).parent}: wait until it ends") from None
    finally:
        for lock in locks:
            lock.release()


class _Run:
    """State of one call of `work`."""

    def __init__(
        self, tasks: Sequence[Task], reserved: tuple[str, ...], threads: int, report: Callable[[str], Any]
    ) -> None:
        self.tasks, self.reserved, self.threads, self.report = tasks, reserved, threads, report
        self.logs = tasks[0].plan.folder
        self.members: list[_Member] = []
        self.failed: dict[tuple[str, str], str] = {}
        self.done, self.started = 0, time.monotonic()

    def __call__(self, devices: Sequence[str], end: float | None) -> Outcome:
        """Hand out parts until none can be done any more or the time `end` has come."""
        missing = self.missing()
        if end is not None and end <= time.monotonic():
            return Outcome(0, missing, {})
        try:
            few = devices[: max(missing, 0)]
            self.members = [_start(device, n, self.threads, self.logs) for n, device in enumerate(few)]
            while True:
                for member in self.members:
                    self._give(member)
                busy = [member for member in self.members if member.job]
                left = None if end is None else end - time.monotonic()
                if not busy or (left is not None and left <= 0):
                    break
                for pipe in wait([member.pipe for member in busy], left):
                    line = self._finished(next(member for member in busy if member.pipe is pipe))
                    seconds = time.monotonic() - self.started
                    self.report(f"{seconds:6.0f} s  {self.done}/{missing}  {line}")
        finally:
            _stop(self.members)
        return Outcome(self.done, self.missing(), self.failed)

    def missing(self) -> int:
        """Parts of all tasks that are still to do, each counted once."""
        return len({task.plan.path(name) for task in self.tasks for name in task.plan.todo()})

    def _give(self, member: _Member) -> None:
        """The next part for an idle process, if there is one that it can do now."""
        if member.job:
            return
        busy = {task.plan.path(part) for task, part in (m.job for m in self.members if m.job)}
        for task in self.tasks:
            taken = [name for name in task.plan.parts if task.plan.path(name) in busy]
            taken += [part for study, part in self.failed if study == task.name]
            part = task.plan.ready(member.device, taken, member.device in self.reserved)
            if part is not None:
                member.job, member.since = (task, part), time.monotonic()
                member.pipe.send((task, part))
                return

    def _finished(self, member: _Member) -> str:
        """Take a process's answer; a process that died is replaced. Returns a line about it."""
        assert member.job is not None
        task, part = member.job
        try:
            error = member.pipe.recv()
        except (EOFError, OSError):
            member.process.join()
            error = f"its process ended with code {member.process.exitcode}"
            fresh = _start(member.device, self.members.index(member), self.threads, self.logs)
            member.process, member.pipe = fresh.process, fresh.pipe
        member.job = None
        spent = f"{time.monotonic() - member.since:.0f} s on {member.device}"
        if error is None:
            self.done += 1
            return f"{task.name}: {part} done, {spent}"
        self.failed[task.name, part] = error.strip().splitlines()[-1]
        write_atomic(task.plan.folder / f"{part}.error.txt", error)
        return f"{task.name}: {part} FAILED, {spent}: {self.failed[task.name, part]}"


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
    import scipy.linalg  # noqa: F401  (its BLAS is limited only once it is loaded)
    import torch
    from threadpoolctl import threadpool_limits

    # BLAS libraries would each take all processors in every process, and wait for one another.
    torch.set_num_threads(threads)
    threadpool_limits(threads)
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
