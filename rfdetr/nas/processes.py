"""Trainings of a run: in this process, or in several of their own.

Fabric starts the processes of a training by running the program once more in each of them. A run has stages
that only one process may do, so a training by several is a program of its own: this module, called with a
file that says what to train. It ends with the run, however that ends.
"""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.data.registry import load_dataset
from rfdetr.errors import UserError
from rfdetr.files import read_json, write_atomic, write_json
from rfdetr.interrupts import Interrupted
from rfdetr.model.detector import RFDETR
from rfdetr.provenance import usable_cpus
from rfdetr.training.config import TrainConfig
from rfdetr.training.loop import train

_STOPPING_S = 300  # that a stopped training has for its checkpoint
_JOB, _DONE = "job.pt", "job.json"
_MOST_SHARING = 4  # each needs memory of its own
_INTERRUPTED = 130


def check_devices(devices: int) -> None:
    """UserError where so many processes cannot train together, before any work."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError(
            "`nas` starts the processes of its trainings itself: run it once, without torchrun, with"
            " --devices N. For several machines: torchrun ... -m rfdetr train, then `search` and `select`"
        )
    if torch.cuda.is_available():
        most, unit = torch.cuda.device_count(), "GPU"
    else:
        most, unit = os.cpu_count() or 1, "core, and no GPU"
    if devices > most:
        raise UserError(
            f"--devices {devices}: here {'is' if most == 1 else 'are'} {most} {unit}"
            f"{'s' if unit == 'GPU' and most > 1 else ''}; give at most {most}"
        )


def sharing_processor(pictures: int) -> int:
    """Processes that can share the pictures of a step on this machine's processor: several with few threads
    compute a small network's steps faster than one with many. 1 where there is a GPU.
    """
    if torch.cuda.is_available():
        return 1
    cores = usable_cpus()
    return max(n for n in range(1, _MOST_SHARING + 1) if n <= cores and pictures % n == 0)


@dataclass(frozen=True)
class Trained:
    """step: updates done. best_step: the one whose weights the folder's network has. evaluations: rows on
    val. grown_mb: memory that training has added to a process, on its GPU where it has one.
    """

    step: int
    best_step: int
    evaluations: list[dict[str, Any]]
    grown_mb: float


@dataclass
class Trainer:
    """Trainings on the pictures of a run.

    data, skip_missing  as `NasOptions` has them; devices: processes;   opened: splits that are open already
    """

    data: str
    skip_missing: bool = False
    devices: int = 1
    opened: dict[str, DetectionDataset] = field(default_factory=dict)

    def split(self, name: str) -> DetectionDataset:
        """A split of the data, opened once."""
        if name not in self.opened:
            extra: dict[str, Any] = {"unreadable": "skip"} if self.skip_missing else {}
            self.opened[name] = load_dataset(self.data, name, **extra)
        return self.opened[name]

    def __call__(
        self,
        model: RFDETR,
        space: SearchSpace | Arch,
        config: TrainConfig,
        folder: Path,
        *,
        evaluated: bool = True,
        progress: bool = True,
        resume: bool = True,
        notes: Mapping[str, Any] | None = None,
        tensorboard: bool = False,
    ) -> Trained:
        """`rfdetr.training.loop.train`; the network is then in `folder`. evaluated: on val, too.

        With several processes `model` stays as it was.
        """
        options = {"progress": progress, "resume": resume, "notes": notes, "tensorboard": tensorboard}
        if self.devices == 1:
            return self._here(model, space, config, folder, evaluated, **options)
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "data": (self.data, self.skip_missing, self.devices),
            "training": (model, space, config, folder, evaluated),
            "options": options,
        }
        content = io.BytesIO()
        torch.save(job, content)
        write_atomic(folder / _JOB, content.getvalue())
        (folder / _DONE).unlink(missing_ok=True)
        code = _wait([sys.executable, "-m", "rfdetr.nas.processes", str(folder / _JOB)])
        told = read_json(folder / _DONE) or {}
        (folder / _JOB).unlink(missing_ok=True)
        if code == _INTERRUPTED:
            raise Interrupted
        if "error" in told or code or "step" not in told:
            why = told.get("error", "see above")
            raise UserError(f"a training by {self.devices} processes ended (exit code {code}): {why}")
        return Trained(**told)

    def _here(
        self,
        model: RFDETR,
        space: SearchSpace | Arch,
        config: TrainConfig,
        folder: Path,
        evaluated: bool,
        **options: Any,
    ) -> Trained:
        val = self.split("val") if evaluated else None
        with _peak_memory() as peak:
            found = train(
                model, self.split("train"), space, config, folder, val, devices=self.devices, **options
            )
        return Trained(found.step, found.best_step, found.evaluations, peak.grown_mb)


def _wait(command: list[str]) -> int:
    """Exit code of a program that stops when this one is stopped, and that ends when this one ends."""
    # Its standard input ends with this process, whatever kills it; the program watches that.
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            return process.wait()
        except (KeyboardInterrupt, SystemExit):
            process.terminate()  # it writes its checkpoint; a Ctrl-C has reached it already, which is no harm
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOPPING_S)
            raise


def _end_with_the_run() -> None:
    """End this process as soon as the run that started it has ended."""

    def watch() -> None:
        # Not sys.stdin: its lock would be held while the interpreter shuts down.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-the-run").start()


def main(path: Path) -> int:
    """One process of a training: of the job in `path`. The first one leaves what came of it."""
    _end_with_the_run()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    job = torch.load(path, weights_only=False)
    trainer, done = Trainer(*job["data"]), path.with_name(_DONE)
    model, space, config, folder, evaluated = job["training"]
    try:
        found = trainer._here(model, space, config, folder, evaluated, **job["options"])
    except UserError as error:
        write_json(done, {"error": str(error)})
        return 2
    except KeyboardInterrupt:  # before its first step, when there is nothing to keep
        return _INTERRUPTED
    if first:
        values = {name: getattr(found, name) for name in Trained.__dataclass_fields__}
        write_json(done, values)
    return 0


@dataclass
class _Peak:
    grown_mb: float = 0.0


@contextmanager
def _peak_memory() -> Iterator[_Peak]:
    """How far this process grows: its GPU's memory where there is one, else its own, looked at fifty times a
    second.
    """
    if torch.cuda.is_available():
        peak, before = _Peak(), torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            yield peak
        finally:
            peak.grown_mb = (torch.cuda.max_memory_reserved() - before) / 2**20
        return
    import psutil

    process, peak, stop = psutil.Process(), _Peak(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.is_set():
            peak.grown_mb = max(peak.grown_mb, (process.memory_info().rss - before) / 2**20)
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
