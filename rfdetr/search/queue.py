"""Units of work shared by many processes and machines, on an Optuna storage; results are kept exactly once.

A unit is an Optuna trial: waiting, running, complete or failed. Workers join and leave at any time. A running
trial has a heartbeat, a number that its worker raises; whoever sees it stand still for `grace` seconds of its
OWN clock declares the worker dead and puts the unit back (no clocks are compared, and it works on every
storage; Optuna's own heartbeat exists for databases only). A worker that was only slow may finish a unit a
second time; the results have one row per unit, so the second one is dropped.
"""

import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from rfdetr.errors import UserError
from rfdetr.interrupts import exposed, shielded
from rfdetr.search.storage import again, open_storage

_BATCH = 16  # units put into the queue at once


@dataclass(frozen=True)
class Progress:
    """State of a search over all its workers. seconds_per_unit and eta_seconds are NaN before the first unit
    is done.
    """

    total: int
    done: int
    running: int
    waiting: int
    failed: int
    workers: int
    seconds_per_unit: float
    eta_seconds: float

    def __str__(self) -> str:
        eta = f", about {self.eta_seconds:.0f} s left" if self.eta_seconds == self.eta_seconds else ""
        return (
            f"{self.done}/{self.total} units, {self.running} running on {self.workers} workers, {self.failed}"
            f" failed{eta}"
        )


class WorkQueue:
    """The units of one search.

    storage    "sqlite:///search.db" (one machine), "postgresql://user@host/database" (many), or
               "journal:///path/file" for a file on a disk that all workers share
    name       of the search; workers with the same name and storage share it
    units      names of all units; the same for every worker
    heartbeat  seconds between two signs of life;   grace: seconds without one after which a worker counts as
               dead
    attempts   how often a unit that raises is tried before it counts as failed
    deaths     how often the worker of a unit may die (killed, out of memory, machine lost) before the unit
               counts as failed; a worker that is told to stop gives its unit back, which counts as neither

    Raises UserError when the storage cannot be opened.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        units: Iterable[str],
        *,
        heartbeat: float = 20.0,
        grace: float = 120.0,
        attempts: int = 5,
        deaths: int = 20,
    ) -> None:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        if grace < 3 * heartbeat:
            raise UserError(f"grace={grace} must be at least three heartbeats of {heartbeat} s")
        self.name, self.units = name, list(dict.fromkeys(units))
        self.heartbeat, self.grace, self.attempts, self.deaths = heartbeat, grace, attempts, deaths
        self.worker = f"{socket.gethostname()}-{os.getpid()}"
        self.storage, self.results = open_storage(storage, name)
        try:
            self.study = again(lambda: self.storage.create_new_study([StudyDirection.MAXIMIZE], name))
        except DuplicatedStudyError:
            self.study = self.storage.get_study_id_from_name(name)
        self._seen: dict[int, tuple[Any, float]] = {}
        self._seconds: dict[str, float] = {}
        self._fill()

    def work(
        self,
        compute: Callable[[str], Any],
        on_progress: Callable[[Progress], None] | None = None,
        limit: int | None = None,
    ) -> int:
        """Compute waiting units until none is left anywhere, or `limit` of them; returns how many.

        compute(unit) gives plain values (JSON). Waits for units that other workers run, in case these die.
        SIGINT and SIGTERM (`rfdetr.interrupts`) give the unit back at once. Raises UserError when units have
        failed for good, after all others are done.
        """
        count = 0
        while limit is None or count < limit:
            with shielded():  # from claiming a unit to keeping its result or giving it back
                taken = self._take()
                done = 0 if taken is None else self._run(*taken, compute)
            count += done
            if taken is not None:
                if on_progress is not None:
                    on_progress(self.progress())
                continue
            if not self._fill():
                if self._settled():
                    break
                time.sleep(self.heartbeat * random.uniform(0.5, 1.0))
        if limit is None:
            self._raise_failures()
        return count

    def _settled(self) -> bool:
        """Whether every unit is done or has failed for good."""
        return set(self.units) <= self.results.names() | self._hopeless(self._trials()).keys()

    def progress(self) -> Progress:
        """Counts over all workers."""
        done = self.results.names()
        trials = self._trials()
        running = [t for t in trials if t.state.name == "RUNNING"]
        failed = sum(unit not in done for unit in self._hopeless(trials))
        workers = {t.user_attrs.get("worker") for t in running}
        for unit in done - self._seconds.keys():  # entries may be large: each is read once
            self._seconds[unit] = self.results.get(unit)["seconds"]
        times = [self._seconds[unit] for unit in done]
        each = sum(times) / len(times) if times else float("nan")
        left = len(self.units) - len(done) - failed
        waiting = max(0, left - len(running))
        eta = each * left / max(1, len(workers))
        return Progress(len(self.units), len(done), len(running), waiting, failed, len(workers), each, eta)

    def values(self) -> dict[str, Any]:
        """Unit -> what `compute` returned, for all units done so far."""
        return {unit: entry["value"] for unit, entry in self.results.read().items()}

    def value(self, unit: str) -> Any:
        """What `compute` returned for a unit that is done."""
        return self.results.get(unit)["value"]

    def extend(self, units: Iterable[str]) -> None:
        """More units of the same search; the same for every worker."""
        self.units = list(dict.fromkeys([*self.units, *units]))

    def _trials(self) -> list[Any]:
        return again(lambda: self.storage.get_all_trials(self.study, deepcopy=False))

    def _fill(self) -> int:
        """Put units back that nobody has: never queued, failed, or their worker is dead. Returns how many."""
        from optuna.trial import TrialState, create_trial

        self._bury()
        done = self.results.names()
        trials = self._trials()
        live = {t.user_attrs["unit"] for t in trials if not t.state.is_finished()}
        hopeless = self._hopeless(trials)
        missing = [u for u in self.units if u not in done and u not in live and u not in hopeless]
        # A few at a time, and not the same ones as a worker that fills at this moment: every waiting trial is
        # read again at each step, and a unit that is queued twice costs a look (`_runs_elsewhere`).
        missing = random.sample(missing, min(_BATCH, len(missing)))
        for unit in missing:
            template = create_trial(state=TrialState.WAITING, user_attrs={"unit": unit})
            again(partial(self.storage.create_new_trial, self.study, template))
        return len(missing)

    def _bury(self) -> None:
        """Fail the trials whose heartbeat has stood still for `grace` seconds."""
        now = time.monotonic()
        for trial in self._trials():
            if trial.state.name != "RUNNING":
                continue
            beat = trial.user_attrs.get("heartbeat")
            last, since = self._seen.setdefault(trial._trial_id, (beat, now))
            if beat != last:
                self._seen[trial._trial_id] = beat, now
            elif now - since > self.grace:
                self._finish(trial._trial_id, "FAIL")

    def _hopeless(self, trials: Iterable[Any]) -> dict[str, str]:
        """Units that failed too often, with what happened."""
        failures: dict[str, list[str]] = {}
        deaths: dict[str, int] = {}
        for trial in trials:
            if trial.state.name != "FAIL" or trial.user_attrs.get("given_back"):
                continue
            unit, error = trial.user_attrs["unit"], trial.user_attrs.get("error")
            if error is None:
                deaths[unit] = deaths.get(unit, 0) + 1
            else:
                failures.setdefault(unit, []).append(error)
        found = {
            unit: f"failed {len(errors)} times, last with {errors[-1]}"
            for unit, errors in failures.items()
            if len(errors) >= self.attempts
        }
        dead = {unit: n for unit, n in deaths.items() if n >= self.deaths}
        return found | {
            unit: f"lost its worker {n} times without a word: too little memory, or a job's time shorter than"
            " the unit"
            for unit, n in dead.items()
        }

    def _raise_failures(self) -> None:
        done = self.results.names()
        failed = {u: e for u, e in self._hopeless(self._trials()).items() if u not in done}
        if failed:
            unit, what = next(iter(failed.items()))
            raise UserError(
                f"{len(failed)} of {len(self.units)} units could not be computed; {unit} {what}. The other"
                " results are kept; remove the cause and start again with another storage"
            )

    def _take(self) -> tuple[int, str] | None:
        """Claim a waiting unit: (trial id, unit); None if there is none."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        waiting = [t for t in self._trials() if t.state.name == "WAITING"]
        # Not all workers at the head of the queue: fewer collisions.
        for trial in waiting[:8] and random.sample(waiting[:8], len(waiting[:8])):
            try:
                claimed = again(
                    partial(self.storage.set_trial_state_values, trial._trial_id, TrialState.RUNNING)
                )
            except UpdateFinishedTrialError:
                continue
            if claimed:
                return trial._trial_id, trial.user_attrs["unit"]
        return None

    def _run(self, trial: int, unit: str, compute: Callable[[str], Any]) -> int:
        if self._runs_elsewhere(trial, unit) or unit in self.results.names():
            self._finish(trial, "PRUNED")
            return 0
        self._note(trial, "worker", self.worker)
        start = time.perf_counter()
        try:
            with self._beating(trial), exposed():
                value = compute(unit)
        except Exception as error:
            self._note(trial, "error", f"{type(error).__name__}: {error}")
            self._finish(trial, "FAIL")
            return 0
        except BaseException:
            self._note(trial, "given_back", True)
            self._finish(trial, "FAIL")
            raise
        entry = {"value": value, "seconds": time.perf_counter() - start, "worker": self.worker}
        kept = again(lambda: self.results.insert(unit, json.dumps(entry)))
        self._finish(trial, "COMPLETE" if kept else "PRUNED")
        return int(kept)

    def _runs_elsewhere(self, trial: int, unit: str) -> bool:
        """Whether another worker has the unit too: two that fill the queue at the same moment may put it
        there twice. Each claims before it looks, so at least one of two sees the other; when both do, the
        unit is put back.
        """
        from optuna.trial import TrialState

        running = again(
            lambda: self.storage.get_all_trials(self.study, deepcopy=False, states=(TrialState.RUNNING,))
        )
        return any(t._trial_id != trial and t.user_attrs["unit"] == unit for t in running)

    @contextmanager
    def _beating(self, trial: int) -> Any:
        stop = threading.Event()

        def beat() -> None:
            number = 0
            while not stop.wait(self.heartbeat):
                number += 1
                with suppress(UserError):  # a storage that fails is the working thread's to report
                    self._note(trial, "heartbeat", number)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _note(self, trial: int, key: str, value: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):  # declared dead in the meantime
            again(lambda: self.storage.set_trial_user_attr(trial, key, value))

    def _finish(self, trial: int, state: str) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        values = [1.0] if state == "COMPLETE" else None
        with suppress(UpdateFinishedTrialError):  # another worker has declared this trial dead
            again(lambda: self.storage.set_trial_state_values(trial, TrialState[state], values))
