"""Stages of a run: each is a folder named by what decides its content, finished when its result is written.

A run that was stopped or killed goes on in the folder of the stage that it had reached. A changed option
gives a stage, and those that depend on it, another key and so another folder; what was made before stays and
is found again when the option is changed back.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfdetr.data.categories import shortened
from rfdetr.errors import UserError
from rfdetr.files import check_folder, read_json, write_json

VERSION = 3
"""Part of every key: raise it when a stage computes something else from the same inputs."""
_RESULT, _CLOCK, _LOCK = "stage.json", "clock.json", ".nas.lock"
OPTIONS, FOLDERS = "options.json", "stages.json"
_OURS = (_LOCK, OPTIONS, FOLDERS)
"""Names of which a folder with a run has at least one."""


@dataclass(frozen=True)
class Done:
    """A finished stage: its name, key, folder, and what it returned (JSON values). peak_mb: the most memory
    that the process had held by its end, 0 where the system does not tell.
    """

    name: str
    key: str
    folder: Path
    result: Mapping[str, Any]
    seconds: float
    peak_mb: int = 0


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
            found = Done(name, key, folder, kept["result"], kept["seconds"], kept.get("peak_mb", 0))
        else:
            resumed = folder.is_dir()
            self.say(f"[{number}] {title}{' (going on)' if resumed else ''}")
            folder.mkdir(parents=True, exist_ok=True)
            with _clock(folder / _CLOCK) as spent:
                result = json.loads(json.dumps(work(folder), allow_nan=False))
            found = Done(name, key, folder, result, spent(), _peak_mb())
            about = {"key": key, "seconds": found.seconds, "peak_mb": found.peak_mb}
            write_json(folder / _RESULT, {**inputs, **about, "result": result})
        self.done[name] = found
        write_json(
            self.root / FOLDERS,
            {done.name: str(done.folder.relative_to(self.root)) for done in self.done.values()},
        )
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No two runs in one folder. UserError when another one is at work here, or when the folder holds
        something else, of which nothing may be overwritten.
        """
        from filelock import FileLock, Timeout

        check_folder(self.root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create {self.root}: {error.strerror}; choose another --out") from error
        there = sorted(path.name for path in self.root.iterdir())
        if there and not set(there) & set(_OURS):
            raise UserError(
                f"--out {self.root} holds something else ({shortened(there)}): choose a new or an empty"
                " folder, or that of an earlier `nas` to go on with it"
            )
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
        with suppress(UserError):  # a full disk is told by what was to be written there
            write_json(path, {"seconds": spent()})


def once(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returned (JSON values), kept in a file: a part of a stage that a stopped call has finished
    is not done again. The file lies in the stage's folder, whose key is also the part's.
    """
    kept = read_json(path)
    if not isinstance(kept, dict):
        write_json(path, work())
        kept = read_json(path)
    assert isinstance(kept, dict)
    return kept


def _peak_mb() -> int:
    """The most memory that this process, or one that it has started, has held so far, MB."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    most = max(resource.getrusage(one).ru_maxrss for one in whose)  # kB; bytes on macOS
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))


def fresh(folder: Path) -> Path:
    """An empty folder, whatever a stopped call left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
