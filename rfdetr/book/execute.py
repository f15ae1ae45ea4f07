"""Execute one chapter: no half-made result, an error that says where, a record of time and memory."""

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfdetr.book.cache import Chapter, Project, read_notebook
from rfdetr.book.kernels import START, Kernels
from rfdetr.book.live import Said
from rfdetr.experiments.base.artifacts import Store
from rfdetr.interrupts import Interrupted
from rfdetr.provenance import commit, machine

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass
class Outcome:
    """What became of one chapter: `executed`, `cached`, `failed` or `skipped` (not asked for, no current
    copy).
    """

    chapter: Chapter
    state: str
    record: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def execute(
    project: Project,
    profile: str,
    chapter: Chapter,
    parameters: Mapping[str, Any],
    key: str,
    kernels: Kernels,
    timeout: int | None = None,
    said: Said | None = None,
) -> Outcome:
    """Execute a chapter. Its executed copy appears only if every cell succeeded.

    kernels   of the build, in their environment (`Kernels.environment`)
    timeout   seconds that one cell may take, also while it is stopped; None means no limit
    said      takes what the cells print

    Interrupted when the build was interrupted meanwhile.
    """
    target = project.executed(profile, chapter)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = running_copy(project, profile, chapter)
    failed = project.build / "failed" / profile / f"{chapter.name}.ipynb"
    failed.unlink(missing_ok=True)
    version, started, clock = commit(), datetime.now(UTC), time.perf_counter()
    error, peak = _run(chapter, temporary, parameters, kernels, timeout, said)
    if kernels.stopped.is_set():
        raise Interrupted
    seconds = time.perf_counter() - clock
    if error:
        if temporary.is_file():
            failed.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(failed)
            error += f"\nexecuted so far: {failed.relative_to(project.root)}"
        return Outcome(chapter, "failed", {"seconds": round(seconds, 1)}, error)
    record = {
        "chapter": chapter.name,
        "profile": profile,
        "parameters": dict(parameters),
        "key": key,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak / 2**20),
        "commit": version,
        "machine": machine(),
        "date": started.isoformat(timespec="seconds"),
        **_fresh_findings(project, profile, chapter, started),
    }
    with kernels.waiting():
        _publish(temporary, target, record)
    return Outcome(chapter, "executed", record)


def _run(
    chapter: Chapter,
    copy: Path,
    parameters: Mapping[str, Any],
    kernels: Kernels,
    timeout: int | None,
    said: Said | None,
) -> tuple[str, int]:
    """Execute a chapter into `copy`. Returns (what failed, or "", peak memory in bytes)."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    error, started = "", list[int]()
    with _PeakMemory(started) as peak:
        try:
            papermill.execute_notebook(
                str(chapter.path),
                str(copy),
                parameters=dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=said,
                start_timeout=START,
                execution_timeout=timeout,
                config=kernels.settings(started),
            )
        except PapermillExecutionError as problem:
            error = _cell_error(problem)
        except CellTimeoutError as problem:
            error = f"a cell took longer than {timeout} s\n{_last_lines(str(problem))}"
        except DeadKernelError:
            error = "the kernel died: killed, or out of memory; a smaller profile or sample needs less"
        finally:
            kernels.ended(started)
    return error, peak.bytes


def running_copy(project: Project, profile: str, chapter: Chapter) -> Path:
    """The unfinished copy of a chapter that is being executed."""
    return project.executed(profile, chapter).with_name(f".{chapter.name}.running.ipynb")


def _publish(temporary: Path, target: Path, record: dict[str, Any]) -> None:
    """Put the record into the executed copy and move that into place: one step decides that a chapter is
    done.
    """
    import nbformat

    notebook = read_notebook(temporary)
    notebook.metadata["rfdetr"] = record
    nbformat.write(notebook, temporary)
    temporary.replace(target)


def _fresh_findings(
    project: Project, profile: str, chapter: Chapter, since: datetime
) -> dict[str, list[dict[str, Any]]]:
    """`findings` that the chapter wrote in this run, or an empty list."""
    path = Store(store_root(project)).results(profile, chapter.name) / "findings.json"
    # A whole second of grace, for file systems with coarse times.
    if not path.is_file() or path.stat().st_mtime < since.timestamp() - 1:
        return {"findings": []}
    return {"findings": json.loads(path.read_text(encoding="utf-8"))["findings"]}


def store_root(project: Project) -> str:
    """Folder of the artifact store that the chapters use."""
    return os.environ.get("RFDETR_STORE") or str(project.build / "artifacts")


class _PeakMemory:
    """Largest resident memory of some processes and of those below them, sampled five times a second."""

    bytes = 0

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def __enter__(self) -> "_PeakMemory":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.2):
            total = 0
            for pid in list(self._pids):
                with suppress(psutil.Error):
                    top = psutil.Process(pid)
                    for process in (top, *top.children(recursive=True)):
                        with suppress(psutil.Error):
                            total += process.memory_info().rss
            self.bytes = max(self.bytes, total)


def _cell_error(problem: Any) -> str:
    first = next((line for line in problem.source.splitlines() if line.strip()), "")
    where = f"in cell {problem.cell_index} ({first.strip()[:80]})"
    if problem.ename in ("UserError", "NotFoundError"):
        return f"{where}: {problem.evalue}"
    trace = "\n".join(problem.traceback)
    return f"{where}: {problem.ename}: {problem.evalue}\n{_last_lines(trace)}"


def _last_lines(text: str, count: int = 12) -> str:
    return "\n".join(f"    {line}" for line in _ANSI.sub("", text).rstrip().splitlines()[-count:])
