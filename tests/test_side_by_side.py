"""Chapters that are executed at the same time: their order, measurements, failures, interrupts, messages."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_book import notebook, write_project

from rfdetr.book import live, schedule
from rfdetr.book.build import build_book, find_project
from rfdetr.book.cache import Chapter
from rfdetr.book.execute import Outcome
from rfdetr.book.stage import read_toc
from rfdetr.quiet import VARIABLE, alone, side_by_side
from rfdetr.sources import package_root

# Writes a time into `ticks` every few milliseconds until `enough` is there.
TICKS = """import time
from pathlib import Path
folder = Path("build")
with (folder / "ticks").open("w", buffering=1) as file:
    while not (folder / "enough").is_file():
        file.write(f"{time.monotonic()}\\n")
        time.sleep(0.005)"""
MEASURES = """import os, time
from pathlib import Path
from rfdetr.quiet import alone
folder = Path("build")
while not (folder / "ticks").is_file():
    time.sleep(0.01)
time.sleep(0.3)
with alone(), alone():
    begin = time.monotonic()
    time.sleep(0.8)
    end = time.monotonic()
(folder / "span").write_text(f"{begin} {end}")
time.sleep(0.3)
(folder / "enough").touch()
print(os.environ["OMP_NUM_THREADS"])"""
MAKES = """import time
from pathlib import Path
class supernet:
    def train_supernet():
        time.sleep(1.5)
        Path("build/made").touch()
supernet.train_supernet()
raise ValueError("broken after it was made")"""
USES = """from pathlib import Path
class supernet:
    def train_supernet():
        assert Path("build/made").is_file()
supernet.train_supernet()"""

FOREVER = "import time\nwhile True:\n    time.sleep(0.01)"
STOPS = """from pathlib import Path
from rfdetr.quiet import alone
with alone():
    Path("build/alone").touch()
    time.sleep(99)"""
KILLED = """import os, time
from rfdetr.quiet import alone
with alone():
    time.sleep(0.5)
    os.kill(os.getpid(), 9)"""


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in ("RFDETR_STORE", "GITHUB_REPOSITORY", "OMP_NUM_THREADS", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    # Kernels start in the small book's folder.
    monkeypatch.setenv("PYTHONPATH", str(package_root()))


def ticks(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split("\n")[:-1]]


def test_a_measurement_stops_the_other_chapter_and_that_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("rfdetr.book.kernels.usable_cpus", lambda: 6)
    project = write_project(tmp_path, _01_works=notebook(TICKS), _02_measures=notebook(MEASURES))
    result = build_book("smoke", project=project, site=False, jobs=2)
    assert result.names("executed") == ["01_works", "02_measures"], result.outcomes
    begin, end = map(float, (tmp_path / "build/span").read_text().split())
    found = ticks(tmp_path / "build/ticks")
    assert not [t for t in found if begin < t < end]
    assert [t for t in found if t < begin] and [t for t in found if t > end]
    text = project.executed("smoke", Chapter("", Path("02_measures.ipynb"))).read_text()
    assert '"3\\n"' in text  # threads: six processors, two chapters
    assert VARIABLE not in os.environ and "OMP_NUM_THREADS" not in os.environ


def test_a_chapter_waits_for_the_one_that_makes_what_it_uses_also_when_that_fails(tmp_path, capsys):
    project = write_project(
        tmp_path, _01_makes=notebook(MAKES), _02_uses=notebook(USES), _03_free=notebook("1 + 1")
    )
    result = build_book("smoke", project=project, site=False, jobs=2)
    assert (result.exit_code, result.names("failed")) == (1, ["01_makes"])
    assert [outcome.chapter.name for outcome in result.outcomes] == ["01_makes", "02_uses", "03_free"]
    assert result.names("executed") == ["02_uses", "03_free"]
    said = capsys.readouterr().out
    # The free one is done first; every message is in one piece.
    lines = [line for line in said.splitlines() if not line.startswith("    ")]
    assert [line[:2] for line in lines[:2]] == ["03", "01"] and "ValueError: broken after" in said
    records = json.loads((tmp_path / "build/records.json").read_text())["smoke"]
    assert set(records) == {"01_makes", "02_uses", "03_free"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_chapter_and_the_same_command_goes_on(tmp_path, number):
    project = write_project(
        tmp_path,
        _01_quick=notebook("1 + 1"),
        _02_works=notebook(FOREVER),
        _03_stops=notebook("import time\ntime.sleep(1)", STOPS),
    )
    command = [sys.executable, "-m", "rfdetr", "book", "--no-site", "--profile", "smoke", "--jobs", "3"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        end = time.monotonic() + 60
        quick = project.executed("smoke", Chapter("", Path("01_quick.ipynb")))
        while not ((tmp_path / "build/alone").exists() and quick.exists()) and time.monotonic() < end:
            time.sleep(0.05)
        kernels = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 130 and "the same command goes on" in err, err
    assert "FAILED" not in out and not list((tmp_path / "build").rglob("failed/**/*.ipynb"))
    gone, alive = psutil.wait_procs(kernels, 10)
    assert len(gone) >= 3 and not alive
    # What was done is not done again.
    result = build_book("smoke", ["01_quick"], project=project, site=False)
    assert result.names("cached") == ["01_quick"]


def test_others_go_on_when_a_measuring_process_is_killed(tmp_path):
    environment = {**os.environ, VARIABLE: side_by_side(tmp_path / "lock")}
    (tmp_path / "build").mkdir()
    command = [sys.executable, "-c"]
    works = subprocess.Popen([*command, TICKS], cwd=tmp_path)
    try:
        while not (tmp_path / "build/ticks").exists():
            time.sleep(0.01)
        killed = subprocess.run([*command, KILLED], env=environment, check=False)
        over = time.monotonic()
        assert killed.returncode == -signal.SIGKILL
        time.sleep(0.5)
    finally:
        (tmp_path / "build/enough").touch()
        works.wait(10)
    found = ticks(tmp_path / "build/ticks")
    gaps = [later - earlier for earlier, later in zip(found, found[1:], strict=False)]
    assert max(gaps) > 0.4 and found[-1] > over + 0.2


def test_alone_stops_nothing_where_nothing_runs_side_by_side(tmp_path, monkeypatch):
    with alone():
        pass
    # A process that is not below the one named, as in a shell that inherited the variable.
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        monkeypatch.setenv(VARIABLE, f"{stranger.pid} {tmp_path / 'lock'}")
        with alone():
            assert psutil.Process(stranger.pid).status() != psutil.STATUS_STOPPED
    finally:
        stranger.communicate(b"\n")


def test_this_books_chapters_wait_for_what_they_share():
    chapters = read_toc(find_project(package_root()))[1]
    waits = schedule.needs(chapters)
    assert {name for name, needed in waits.items() if needed} >= {
        "05_search",
        "06_latency_protocol",
        "B_query_drop",
    }
    assert waits["05_search"] == {"04_supernet_training"} and not waits["04_supernet_training"]
    assert (
        waits["G_fixed_architecture"] == waits["I_predictions"] == {"09_rf100vl"} and not waits["S_own_data"]
    )
    assert set(schedule.SECONDS) <= set(waits)
    urgent = schedule.urgency(waits)
    assert max(urgent, key=urgent.get) == "04_supernet_training"
    assert urgent["04_supernet_training"] == schedule.SECONDS["04_supernet_training"] + urgent["05_search"]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sets(st.integers(0, 8), max_size=3), st.integers(1, 30)), min_size=1, max_size=9),
)
def test_every_chapter_is_done_once_after_those_it_waits_for(jobs, drawn):
    """Any needs (of earlier chapters), any lengths, any number of places."""
    chapters = [Chapter(str(n), Path(f"{n}.ipynb")) for n in range(len(drawn))]
    waits = {str(n): {str(e) for e in needed if e < n} for n, (needed, _) in enumerate(drawn)}
    busy, most, done, lock = set(), [0], [], threading.Lock()

    def work(chapter):
        with lock:
            assert waits[chapter.name] <= set(done)
            busy.add(chapter.name)
            most[0] = max(most[0], len(busy))
        with lock:
            busy.remove(chapter.name)
            done.append(chapter.name)
        return Outcome(chapter, "executed")

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "needs", lambda _: waits)
        patch.setattr(schedule, "SECONDS", {str(n): seconds for n, (_, seconds) in enumerate(drawn)})
        schedule.run(chapters, jobs, work, seen.append, lambda threads: None)
    assert sorted(done) == sorted(waits) and most[0] <= jobs
    assert sorted(outcome.chapter.name for outcome in seen) == sorted(waits)


def test_an_error_of_the_builder_stops_the_other_chapters():
    chapters = [Chapter(name, Path(f"{name}.ipynb")) for name in ("bad", "long")]
    leave, stopped = threading.Event(), []

    def work(chapter):
        if chapter.name == "bad":
            raise OSError("the disk is full")
        leave.wait(10)
        return Outcome(chapter, "executed")

    def stop(threads):
        leave.set()
        for thread in threads:
            thread.join(10)
            stopped.append(not thread.is_alive())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "needs", lambda some: {chapter.name: set() for chapter in some})
        with pytest.raises(OSError, match="the disk is full"):
            schedule.run(chapters, 2, work, lambda outcome: None, stop)
    assert stopped == [True]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, or not."""

    def __init__(self, real: bool) -> None:
        super().__init__()
        self.real = real

    def isatty(self) -> bool:
        return self.real


@pytest.mark.parametrize("real", [True, False])
def test_lines_of_two_chapters_stay_apart(tmp_path, monkeypatch, capsys, real):
    monkeypatch.setattr(live, "_PATIENCE", 0.1)
    monkeypatch.setattr(live, "EVERY", 0.1)
    monkeypatch.setenv("COLUMNS", "90")
    terminal = Terminal(real)
    with (
        live.Live(terminal) as told,
        told.chapter("04 supernet training", tmp_path / "a") as first,
        told.chapter("S own data", tmp_path / "b") as second,
    ):
        first.write("300 of 1700 steps in 60 s, about 280 s left; loss 12.20\n")
        second.write("[4] searching\n")
        time.sleep(0.5)
        told.say("01 architecture ... executed in 9.0 s, peak 1004 MB")
    text = terminal.getvalue()
    if real:
        shown = [line for line in text.split("\r\x1b[K") if line]
        assert all("04 supernet training" in line and "S own data" in line for line in shown)
        assert shown and max(map(len, shown)) < 90 and "\n" not in text
        assert text.endswith("\r\x1b[K")
    else:
        lines = text.splitlines()
        assert any(line.startswith("    04 supernet") and line.endswith("loss 12.20") for line in lines)
        assert any(line.startswith("    S own data: 0 s; [4] searching") for line in lines)
    assert capsys.readouterr().out == "01 architecture ... executed in 9.0 s, peak 1004 MB\n"
