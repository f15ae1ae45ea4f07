"""The kernels of one build: what they find in their environment, and how all of them are stopped."""

import logging
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from rfdetr.interrupts import Interrupted
from rfdetr.provenance import usable_cpus
from rfdetr.quiet import VARIABLE, side_by_side

START = 600
"""Seconds that a kernel may take to begin, and that the last output of a cell may take to arrive: it may be
stopped meanwhile, while another chapter measures.
"""
_GRACE = 10.0  # seconds that an interrupted kernel has for writing its checkpoint


class Kernels:
    """The kernels of a build that executes `jobs` chapters at a time.

    stopped  set when the build was interrupted: what ends after that has not failed
    """

    def __init__(self, root: Path, store: str, jobs: int = 1) -> None:
        self.root, self.store, self.jobs = root, store, jobs
        self.stopped = threading.Event()
        self._pids: set[int] = set()

    @property
    def _lock(self) -> Path:
        return self.folder / "alone.lock"

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Variables for the kernels, which inherit those of this process."""
        with tempfile.TemporaryDirectory(prefix="rfdetr-") as folder:
            self.folder = Path(folder)
            wanted = {
                "RFDETR_STORE": self.store,
                # Progress bars go to stderr, and a page keeps every line of them.
                "TQDM_DISABLE": "1",
                # The kernel of this environment, not one that the user has installed elsewhere.
                "JUPYTER_PREFER_ENV_PATH": "1",
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            }
            if self.jobs > 1:
                wanted[VARIABLE] = side_by_side(self._lock)
                if "OMP_NUM_THREADS" not in os.environ:
                    wanted["OMP_NUM_THREADS"] = str(max(1, usable_cpus() // self.jobs))
            before = {name: os.environ.get(name) for name in wanted}
            os.environ.update(wanted)
            try:
                yield
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value

    def settings(self, started: list[int]) -> Any:
        """`quiet_kernel` for a kernel in the book's folder whose process number is put into `started`."""
        from jupyter_client.manager import AsyncKernelManager

        build = self

        class Manager(AsyncKernelManager):
            """Starts a kernel while no chapter measures, and tells the build its process number."""

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                # Else all of them would have the same sockets in the folder they run in.
                self.ip = str(build.folder / secrets.token_hex(4))
                with build.waiting():
                    await super().start_kernel(**options, cwd=str(build.root))
                process = getattr(self.provisioner, "pid", None)
                if process:
                    started.append(process)
                    build._pids.add(process)

        config = quiet_kernel()
        config.NotebookClient.kernel_manager_class = Manager
        return config

    def ended(self, started: Iterable[int]) -> None:
        """These kernels are gone; their numbers may become those of other processes."""
        self._pids -= set(started)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that does not run while a chapter measures; Interrupted when the build was meanwhile."""
        with FileLock(self._lock):
            if self.stopped.is_set():
                raise Interrupted
            yield

    def stop(self, threads: Iterable[threading.Thread]) -> None:
        """Interrupt every kernel, so that the threads which wait for them end; the last means is to kill."""
        self.stopped.set()
        end = time.monotonic() + _GRACE
        waiting = list(threads)
        while waiting:
            late = time.monotonic() > end
            for process in list(self._pids):
                with suppress(OSError):
                    # One that is stopped for a measurement hears no other signal. A kernel between two
                    # cells forgets an interrupt, so it gets another one.
                    os.killpg(process, signal.SIGCONT)
                    os.killpg(process, signal.SIGKILL if late else signal.SIGINT)
            waiting[0].join(1.0)
            waiting = [thread for thread in waiting if thread.is_alive()]


def quiet_kernel() -> Any:
    """Settings of a kernel that writes nothing but the notebook's own output (a traitlets configuration)."""
    from traitlets.config import Config

    return Config(
        {
            # Messages between processes of one machine: no open port, and no warning about one.
            "KernelManager": {"transport": "ipc"},
            "NotebookClient": {
                # A finished kernel is interrupted before it is shut down, and would report that as an error.
                "extra_arguments": [f"--IPKernelApp.log_level={logging.CRITICAL}"],
                "iopub_timeout": START,
            },
        }
    )
