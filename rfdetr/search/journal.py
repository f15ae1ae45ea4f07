"""A journal file of Optuna's operations that survives half-written lines.

Optuna's own file backend refuses a journal for good once a line in it cannot be read, which is what a worker
that is killed while it writes, or a full disk, leaves behind. Here the next writer ends such a line, and it
counts as an operation without effect: a lost heartbeat, or a unit that has to be taken again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

# Deletes a study that nobody has, for a worker that is nobody: no worker takes it for a mistake of its own.
_NOTHING = {"op_code": 1, "worker_id": "", "study_id": -1}


class JournalFile(BaseJournalBackend):
    """One operation per line, appended under a lock that works on shared disks too."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        self.path = path
        self._lock = JournalFileOpenLock(str(path))
        self._offsets = [0]  # of every whole line seen so far, and of the one to come

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Operations from a line number on. A last line without an end is still being written, or will be
        ended by the next writer.
        """
        first = min(log_number_from, len(self._offsets) - 1)
        found = []
        with self.path.open("rb") as file:
            file.seek(self._offsets[first])
            for number, line in enumerate(file, start=first):
                if not line.endswith(b"\n"):
                    break
                if number + 1 == len(self._offsets):
                    self._offsets.append(self._offsets[number] + len(line))
                if number >= log_number_from:
                    found.append(_operation(line))
        return found

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations behind the others; a half line before them is ended first."""
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            with self.path.open("r+b") as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        content = b"\n" + content
                file.seek(end)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def _operation(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return _NOTHING
    return found if isinstance(found, dict) and "op_code" in found else _NOTHING
