"""Stopping a run on Ctrl-C or a termination signal without losing what it computed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Interrupted(SystemExit):
    """Ctrl-C or a termination signal; the checkpoint was written. Exit code 130."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(130)
        self.step, self.checkpoint = step, checkpoint


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Event that SIGINT or SIGTERM sets; a second signal acts as usual. So does one that came too late for
    the block to stop: at its end. Off the main thread signals are left alone.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous: dict[int, Any] = {}
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        event.set()
        came.append(number)
        signal.signal(number, previous[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.signal(number, handle)
    try:
        yield event
    finally:
        for number in previous:
            signal.signal(number, previous[number])
    # In the last step, for example: what follows this training must not begin.
    for number in came:
        signal.raise_signal(number)
