"""Measurements that have the machine to themselves, also while `make book` executes several chapters at once.

Whoever runs several processes side by side names itself in their environment (`VARIABLE`). A process that
then enters `alone` waits for the other measurements and stops the other processes until it has measured. What
took time in those meanwhile is longer by that, unless it was measured in `alone`, too.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

VARIABLE = "RFDETR_SIDE_BY_SIDE"
"""In the environment: the process whose children run side by side, and the lock of their measurements."""
_LONGEST = 2.0  # seconds until a stopped process is taken as stopped whatever it says


def side_by_side(lock: Path) -> str:
    """Value of `VARIABLE` for the children of this process."""
    return f"{os.getpid()} {lock}"


class _State:
    entered = False


_state = _State()


@contextmanager
def alone() -> Iterator[None]:
    """Nothing runs beside this block of what was started beside this process; does nothing by itself."""
    parent, _, lock = os.environ.get(VARIABLE, "").partition(" ")
    if not lock or _state.entered:
        yield
        return
    from filelock import FileLock

    # The lock belongs to the open file, so it ends with the process, however that ends.
    with FileLock(lock):
        _state.entered = True
        try:
            with _stopped(_others(int(parent))):
                yield
        finally:
            _state.entered = False


def _others(parent: int) -> "list[psutil.Process]":
    """Processes that run beside this one, with all that they started; none if `parent` is not above it."""
    import psutil

    here = psutil.Process()
    above = [here, *here.parents()]
    if parent not in [process.pid for process in above]:
        return []
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent).children():
            if child not in above:
                with suppress(psutil.NoSuchProcess):
                    found += [child, *child.children(recursive=True)]
    return found


@contextmanager
def _stopped(processes: "Sequence[psutil.Process]") -> Iterator[None]:
    """Stop processes for this block. They go on also when this process is killed in it."""
    if not processes or not hasattr(signal, "SIGSTOP"):
        yield
        return
    pids = [str(process.pid) for process in processes]
    # The shell wakes them when its input ends, which is when this process leaves the block or dies. It has
    # a session of its own, so that an interrupt of this process does not end it.
    wake = ["sh", "-c", 'read _; kill -CONT "$@" 2>/dev/null', "wake", *pids]
    with subprocess.Popen(wake, stdin=subprocess.PIPE, start_new_session=True):
        for process in processes:
            _signal(process, signal.SIGSTOP)
        _wait_until_stopped(processes)
        yield


def _wait_until_stopped(processes: "Sequence[psutil.Process]") -> None:
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end and not all(map(_is_still, processes)):
        time.sleep(0.01)


def _is_still(process: "psutil.Process") -> bool:
    import psutil

    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def _signal(process: "psutil.Process", number: Any) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
