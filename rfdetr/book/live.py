"""What a chapter does while it is executed: a line with its cell, its time, and what it said last."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

EVERY = 30.0
"""Seconds between lines where they are kept, as in a log; a terminal shows one line that changes."""
_PATIENCE = 10.0  # seconds that pass without a line: most chapters are done by then
_WIDTH = 100


class Live:
    """Stands for the standard output of a chapter's kernel and tells on the terminal how far it is.

    label    of the chapter
    running  the chapter's unfinished copy, in which finished cells are marked
    """

    def __init__(self, label: str, running: Path, terminal: TextIO | None = None) -> None:
        self.label, self.running = label, running
        self.terminal = terminal or sys.stderr
        self.rewrites = self.terminal.isatty()
        self._said = ""
        self._stop = threading.Event()
        self._started = time.monotonic()

    def write(self, text: str) -> int:
        """Take output of a cell; the last line of it is what is told."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            self._said = lines[-1]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> "Live":
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """Where the chapter is now."""
        seconds = time.monotonic() - self._started
        done, cells = _cells(self.running)
        cell = f"cell {min(done + 1, cells)} of {cells}, " if cells else ""
        text = f"{self.label}: {cell}{seconds:.0f} s" + (f"; {self._said}" if self._said else "")
        return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."

    def _tell(self) -> None:
        shown, wait = False, _PATIENCE
        while not self._stop.wait(wait):
            wait = 1.0 if self.rewrites else EVERY
            start, end = ("\r\x1b[K", "") if self.rewrites else ("" if shown else "\n", "\n")
            self.terminal.write(f"{start}    {self.line()}{end}")
            self.terminal.flush()
            shown = True
        if shown:
            # What became of the chapter is written behind its label.
            self.terminal.write(("\r\x1b[K" if self.rewrites else "") + f"{self.label} ... ")
            self.terminal.flush()


def _cells(running: Path) -> tuple[int, int]:
    """How many code cells of a copy are done, and how many it has; (0, 0) while there is none to read."""
    try:
        cells = json.loads(running.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return 0, 0
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    states = [cell.get("metadata", {}).get("papermill", {}).get("status") for cell in code]
    return states.count("completed"), len(code)
