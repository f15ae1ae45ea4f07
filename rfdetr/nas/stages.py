"""Stages of a run: each is a folder named by what decides its content, finished when its result is written.

A run that was stopped or killed goes on in the folder of the stage that it had reached. A changed option
gives a stage, and those that depend on it, another key and so another folder; what was made before stays and
is found again when the option is changed back.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.files import read_json, write_json

VERSION = 1
"""Part of every key: raise it when a stage computes something else from the same inputs."""
_RESULT, _CLOCK, _LOCK = "stage.json", "clock.json", ".nas.lock"


@dataclass(frozen=True)
class Done:
    """A finished stage: its name, key, folder, and what it returned (JSON values)."""

    name: str
    key: str
    folder: Path
    result: Mapping[str, Any]
    seconds: float


@dataclass
class Stages:
    """The stages below one folder, in the order in which they are asked for."""

    root: Path
    say: Callable[[str], None] = print
    done: dict[str, Done] = field(default_factory=dict)

    def run(
        self,
        name: str,
        values: Mapping[str, Any],
        needs: tuple[str, ...],
        work: Callable[[Path], dict[str, Any]],
        title: str,
    ) -> Done:
        """The stage `name`, made by `work(folder)` unless a finished one with the same key is there.

        values  all that decides the content beside the stages in `needs`: JSON values only
        work    fills the folder and returns JSON values; it may be started again in a half-filled folder
        """
        inputs = {"stage": name, "version": VERSION, "values": dict(values)}
        inputs["needs"] = {need: self.done[need].key for need in needs}
        text = json.dumps(inputs, sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        number = len(self.done) + 1
        folder = self.root / "stages" / f"{number}-{name}-{key[:8]}"
        kept = read_json(folder / _RESULT)
        if kept is not None and kept.get("key") == key:
            self.say(f"[{number}] {title}: done before ({kept['seconds']:.0f} s), kept")
            found = Done(name, key, folder, kept["result"], kept["seconds"])
        else:
            resumed = folder.is_dir()
            self.say(f"[{number}] {title}{' (going on)' if resumed else ''}")
            folder.mkdir(parents=True, exist_ok=True)
            with _clock(folder / _CLOCK) as spent:
                result = json.loads(json.dumps(work(folder), allow_nan=False))
            write_json(folder / _RESULT, {**inputs, "key": key, "seconds": spent(), "result": result})
            found = Done(name, key, folder, result, spent())
        self.done[name] = found
        write_json(
            self.root / "stages.json",
            {done.name: str(done.folder.relative_to(self.root)) for done in self.done.values()},
        )
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No two runs in one folder. UserError when another one is at work here."""
        from filelock import FileLock, Timeout

        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {self.root}: {error.strerror}; choose another --out") from error
        try:
            # Held by the process, so it ends with the process, however that ends.
            with FileLock(self.root / _LOCK, timeout=0):
                yield
        except Timeout:
            raise UserError(
                f"another run is at work in {self.root}: wait for it, or choose another --out"
            ) from None


@contextmanager
def _clock(path: Path) -> Iterator[Callable[[], float]]:
    """Seconds of this and all earlier, stopped calls of a stage; a killed call's time is not known."""
    before = float((read_json(path) or {}).get("seconds", 0.0))
    started = time.monotonic()

    def spent() -> float:
        return round(before + time.monotonic() - started, 1)

    try:
        yield spent
    finally:
        write_json(path, {"seconds": spent()})


def fresh(folder: Path) -> Path:
    """An empty folder, whatever a stopped call left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
