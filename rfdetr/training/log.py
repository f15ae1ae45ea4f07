"""What a run writes down: one row per step in log.jsonl and log.csv, and a progress line."""

import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError
from rfdetr.files import strict, write_atomic

Row = dict[str, Any]


class TrainingLog:
    """log.jsonl and log.csv in a folder. Rows are appended and flushed; a killed run loses at most the last
    one.

    Opening for a run that continues after `step` updates drops later rows (and half-written ones), so no step
    appears twice. The CSV has the columns of the first row.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.jsonl, self.csv = folder / "log.jsonl", folder / "log.csv"
        rows = [row for row in read_log(folder) if row["step"] <= step] if step else []
        write_atomic(self.jsonl, "".join(json.dumps(row) + "\n" for row in rows))
        self._columns = list(rows[0]) if rows else []
        write_atomic(self.csv, self._csv_lines(rows, header=bool(rows)))
        self._files = [
            self.jsonl.open("a", encoding="utf-8"),
            self.csv.open("a", encoding="utf-8", newline=""),
        ]

    def write(self, row: Row) -> None:
        """Append one row."""
        header = not self._columns
        self._columns = self._columns or list(row)
        for file, text in zip(
            self._files, (json.dumps(strict(row)) + "\n", self._csv_lines([row], header)), strict=True
        ):
            try:
                file.write(text)
                file.flush()
            except OSError as error:
                raise UserError(
                    f"cannot write {file.name} ({error.strerror}): free some space or choose another folder,"
                    " then run the same command again; it goes on from the last checkpoint"
                ) from error

    def close(self) -> None:
        """Close both files."""
        for file in self._files:
            # A row that did not fit on the disk is tried again here; its failure has been reported.
            with contextlib.suppress(OSError):
                file.close()

    def _csv_lines(self, rows: list[Row], header: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def read_log(folder: str | Path) -> list[Row]:
    """Rows of log.jsonl in a run's folder, oldest first; a half-written last line is left out. No file: no
    rows.

    A loss that was not finite reads None.
    """
    path = Path(folder) / "log.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Progress:
    """Progress of a run: a line that is rewritten on a terminal, else one every ten seconds; or a callable's
    affair.
    """

    def __init__(self, report: bool | Callable[[Row], None], steps: int, first: int) -> None:
        self.report, self.steps, self.first = report, steps, first
        self._start = self._last = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Tell about one finished step."""
        if callable(self.report):
            self.report(dict(row))
        now = time.monotonic()
        done = row["step"] - self.first
        last = row["step"] == self.steps
        if self.report is not True or (now - self._last < (0.5 if self._terminal else 10) and not last):
            return
        self._last = now
        left = (now - self._start) / done * (self.steps - row["step"])
        line = (
            f"step {row['step']}/{self.steps}  loss {row['total']:.3f}  {row['arch']}  "
            f"{row['images_per_s']:.1f} images/s  {duration(left)} left"
        )
        print(
            f"\r{line}\033[K" if self._terminal else line,
            end="\n" if last or not self._terminal else "",
            flush=True,
        )


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 05 min` or `3 min 20 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
