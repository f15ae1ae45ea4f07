"""What chapters do while they are executed: of each a line with its cell, its time, and what it said last."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

EVERY = 30.0
"""Seconds between lines where they are kept, as in a log; a terminal shows one line that changes."""
_PATIENCE = 10.0  # seconds that pass without a line: most chapters are done by then
_WIDTH, _WIDEST = 100, 160
_BETWEEN = " | "


class Said:
    """Stands for the standard output of a chapter's kernel and knows how far the chapter is.

    label    of the chapter
    running  the chapter's unfinished copy, in which finished cells are marked
    """

    def __init__(self, label: str, running: Path) -> None:
        self.label, self.running = label, running
        self._last = ""
        self._cells: tuple[float, tuple[int, int]] = (0.0, (0, 0))
        self._started = time.monotonic()

    def write(self, text: str) -> int:
        """Take output of a cell; the last line of it is what is told."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            self._last = lines[-1]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def seconds(self) -> float:
        """Since the chapter began."""
        return time.monotonic() - self._started

    def line(self, width: int = _WIDTH) -> str:
        """Where the chapter is now."""
        done, cells = self._progress()
        cell = f"cell {min(done + 1, cells)} of {cells}, " if cells else ""
        text = f"{self.label}: {cell}{self.seconds:.0f} s" + (f"; {self._last}" if self._last else "")
        return text if len(text) <= width else text[: width - 3] + "..."

    def _progress(self) -> tuple[int, int]:
        """`_cells`, read once for every state of the copy: it may be large."""
        with suppress(OSError):
            changed = self.running.stat().st_mtime
            if changed != self._cells[0]:
                self._cells = changed, _cells(self.running)
        return self._cells[1]


class Live:
    """Tells on the terminal how far the chapters are: a changing line for all, or in a log a line for each
    from time to time. What became of a chapter is printed with `say`, so that the two do not mix.
    """

    def __init__(self, terminal: TextIO | None = None) -> None:
        self.terminal = terminal or sys.stderr
        self.rewrites = self.terminal.isatty()
        self._chapters: list[Said] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> "Live":
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.say()

    @contextmanager
    def chapter(self, label: str, running: Path) -> Iterator[Said]:
        """A chapter is told about in this block."""
        said = Said(label, running)
        with self._lock:
            self._chapters.append(said)
        try:
            yield said
        finally:
            with self._lock:
                self._chapters.remove(said)

    def say(self, *lines: str) -> None:
        """Print lines on standard output, whole."""
        with self._lock:
            if self.rewrites:
                self._write("\r\x1b[K")
            for line in lines:
                print(line, flush=True)

    def _tell(self) -> None:
        told: dict[Said, float] = {}
        while not self._stop.wait(min(1.0, EVERY)):
            with self._lock:
                long = [said for said in self._chapters if said.seconds > _PATIENCE]
                if self.rewrites:
                    self._write("\r\x1b[K    " + _side_by_side(long) if long else "")
                    continue
                for said in long:
                    if said.seconds - told.get(said, -EVERY) >= EVERY:
                        told[said] = said.seconds
                        self._write(f"    {said.line()}\n")

    def _write(self, text: str) -> None:
        self.terminal.write(text)
        self.terminal.flush()


def _side_by_side(chapters: list[Said]) -> str:
    """Lines of several chapters as one that fits the terminal."""
    columns = min(shutil.get_terminal_size((_WIDTH + 5, 24)).columns, _WIDEST) - 5
    each = max(20, (columns - len(_BETWEEN) * (len(chapters) - 1)) // len(chapters))
    return _BETWEEN.join(said.line(each) for said in chapters)


def _cells(running: Path) -> tuple[int, int]:
    """How many code cells of a copy are done, and how many it has; (0, 0) while there is none to read."""
    try:
        cells = json.loads(running.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return 0, 0
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    states = [cell.get("metadata", {}).get("papermill", {}).get("status") for cell in code]
    return states.count("completed"), len(code)
