"""Ctrl-C and termination signals: work stops soon, nothing that is finished is lost, no signal is swallowed.

Python raises KeyboardInterrupt wherever the program happens to be. In a callback of a weak reference or a
destructor, of which PyTorch's exporter runs many, it is printed and forgotten. So here the signal is also
remembered, and long work asks for it between its steps (`check`). SIGTERM, which schedulers send when a job's
time is over, is treated like Ctrl-C. A second signal acts as if this module were not there.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(SystemExit):
    """Ctrl-C or a termination signal. Exit code 130."""

    def __init__(self) -> None:
        super().__init__(130)


class _State:
    active = False  # handlers are installed
    pending = False  # a signal came
    shields = 0  # blocks that must not be left half-way


_state = _State()


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in this block: at once where they can, else at the next `check`.

    Does nothing off the main thread and inside another such block.
    """
    if _state.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, previous[number])
        _state.pending = True
        if not _state.shields:
            raise Interrupted

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.signal(number, handle)
    _state.active, _state.pending, _state.shields = True, False, 0
    try:
        yield
        check()
    finally:
        _state.active = _state.pending = False
        for number, before in previous.items():
            signal.signal(number, before)


def check() -> None:
    """Raise `Interrupted` if a signal came and nothing shields this place."""
    if _state.pending and not _state.shields and threading.current_thread() is threading.main_thread():
        raise Interrupted


@contextmanager
def shielded() -> Iterator[None]:
    """A signal waits until the end of this short block; an exception of the block itself goes first."""
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
    check()


@contextmanager
def exposed() -> Iterator[None]:
    """Long work inside a shielded block, where a signal may raise."""
    before, _state.shields = _state.shields, 0
    try:
        check()
        yield
    finally:
        _state.shields = before
