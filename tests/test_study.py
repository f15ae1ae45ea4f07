"""Searches shared by processes that die: complete, no duplicate, no difference from an undisturbed one."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rfdetr import interrupts
from rfdetr.errors import UserError
from rfdetr.search.queue import WorkQueue

UNITS, KILLS = 240, 20


def worker(url, log, count):
    """A worker process whose units take a few milliseconds and log that they were computed."""

    def compute(unit):
        time.sleep(0.02)
        with Path(log).open("a") as file:
            file.write(f"{unit}\n")
        return {"square": int(unit[1:]) ** 2, "nan": float("nan")}

    units = [f"u{i}" for i in range(count)]
    WorkQueue(url, "search", units, heartbeat=0.3, grace=1.5, attempts=50).work(compute)


def start(url, log, count):
    # Forked, because importing takes longer than all the units; nothing is open in this process yet.
    process = multiprocessing.get_context("fork").Process(target=worker, args=(url, log, count))
    process.start()
    return process


def disturbed(url, log, count, kills, seed=0):
    """Run two workers, kill one at a time at random moments, replace it; then let two finish."""
    rng = random.Random(seed)
    workers = [start(url, log, count) for _ in range(2)]
    killed = 0
    while killed < kills:
        before = log.stat().st_size if log.exists() else 0
        # Only a worker that is at work is worth killing.
        while not (log.exists() and log.stat().st_size > before):
            time.sleep(0.005)
            if not any(process.is_alive() for process in workers):
                return killed
        time.sleep(rng.uniform(0, 0.05))
        victim = rng.randrange(2)
        if workers[victim].is_alive():
            workers[victim].kill()
            killed += 1
        workers[victim].join()
        workers[victim] = start(url, log, count)
    for process in workers:
        process.join(timeout=150)
        assert process.exitcode == 0, f"exit code {process.exitcode}"
    return killed


def check(url, count):
    queue = WorkQueue(url, "search", [f"u{i}" for i in range(count)])
    values = queue.values()
    assert {u: v["square"] for u, v in values.items()} == {f"u{i}": i**2 for i in range(count)}
    progress = queue.progress()
    assert (progress.done, progress.waiting, progress.failed) == (count, 0, 0)
    return queue


def urls(tmp_path):
    return {"sqlite": f"sqlite:///{tmp_path}/search.db", "journal": f"journal://{tmp_path}/search.log"}


def test_killed_workers_with_sqlite(tmp_path):
    url, log = urls(tmp_path)["sqlite"], tmp_path / "computed"
    assert disturbed(url, log, UNITS, KILLS) == KILLS
    check(url, UNITS)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_one_worker_resumes_and_repeats_nothing(tmp_path, kind):
    url = urls(tmp_path)[kind]
    computed = []

    def compute(unit):
        computed.append(unit)
        return {"square": int(unit[1:]) ** 2}

    units = [f"u{i}" for i in range(12)]
    assert WorkQueue(url, "search", units).work(compute, limit=5) == 5
    seen = []
    assert WorkQueue(url, "search", units).work(compute, on_progress=seen.append) == 7
    assert sorted(computed) == sorted(units)
    assert seen[-1].done == 12 and "12/12" in str(seen[-1])
    check(url, 12)
    # Another search in the same storage is another search.
    assert WorkQueue(url, "other", units).progress().done == 0


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_finishing_a_unit_twice_leaves_one_result(tmp_path, kind):
    queue = WorkQueue(urls(tmp_path)[kind], "search", ["u1"])
    assert queue.results.insert("u1", '{"value": 1, "seconds": 0}')
    assert not queue.results.insert("u1", '{"value": 2, "seconds": 0}')
    assert queue.values() == {"u1": 1}
    # The trial that still waits is dropped without computing.
    assert queue.work(lambda unit: pytest.fail("computed again")) == 0


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_unit_that_is_queued_twice_is_computed_once(tmp_path, kind):
    """As when two workers fill the queue at the same moment."""
    from optuna.trial import TrialState, create_trial

    def queue():
        return WorkQueue(urls(tmp_path)[kind], "search", ["u1"], heartbeat=0.05, grace=30)

    first, second = queue(), queue()
    twin = create_trial(state=TrialState.WAITING, user_attrs={"unit": "u1"})
    first.storage.create_new_trial(first.study, twin)
    computed = []

    def compute(unit):
        computed.append(unit)
        if len(computed) == 1:
            # Meanwhile another worker claims the twin: it leaves the unit to this one.
            assert second._run(*second._take(), compute) == 0
        return 4

    assert first.work(compute) == 1 and computed == ["u1"]
    assert first.values() == {"u1": 4}


def test_a_unit_that_raises_is_retried_then_reported(tmp_path):
    queue = WorkQueue(urls(tmp_path)["sqlite"], "search", ["good", "bad", "flaky"], attempts=3)
    tried = []

    def compute(unit):
        tried.append(unit)
        if unit == "bad" or (unit == "flaky" and tried.count("flaky") < 3):
            raise ValueError("no such luck")
        return unit

    with pytest.raises(UserError, match=r"bad failed 3 times, last with ValueError: no such luck"):
        queue.work(compute)
    assert queue.values() == {"good": "good", "flaky": "flaky"}
    assert tried.count("bad") == 3 and queue.progress().failed == 1


def test_an_interrupt_gives_the_unit_back(tmp_path):
    queue = WorkQueue(urls(tmp_path)["sqlite"], "search", ["u1"], attempts=1)

    def interrupted(unit):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.work(interrupted)
    assert queue.work(lambda unit: 4) == 1
    assert queue.values() == {"u1": 4}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_signal_gives_the_unit_back_and_is_no_attempt(tmp_path, kind, number):
    url, started = urls(tmp_path)[kind], tmp_path / "started"

    def stopped():
        def compute(unit):
            started.touch()
            time.sleep(60)

        with interrupts.interruptible():
            WorkQueue(url, "search", ["u1"], attempts=1, deaths=1).work(compute)

    process = multiprocessing.get_context("fork").Process(target=stopped)
    process.start()
    while not started.exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 130
    # Neither the only attempt nor the only death is spent, and nobody waits for a dead worker.
    queue = WorkQueue(url, "search", ["u1"], attempts=1, deaths=1)
    assert queue.progress().running == 0
    assert queue.work(lambda unit: 4) == 1 and queue.values() == {"u1": 4}


def test_dying_workers_are_no_failed_attempts_but_not_for_ever(tmp_path):
    url = urls(tmp_path)["sqlite"]
    given = {"heartbeat": 0.05, "grace": 0.2, "attempts": 1, "deaths": 3}

    def dying():
        WorkQueue(url, "search", ["u1"], **given).work(lambda unit: os._exit(9))

    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=dying)
        process.start()
        process.join()
        assert process.exitcode == 9
    assert WorkQueue(url, "search", ["u1"], **given).work(lambda unit: 4) == 1

    other = urls(tmp_path)["journal"]

    def dying_elsewhere():
        WorkQueue(other, "search", ["u1"], **given).work(lambda unit: os._exit(9))

    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=dying_elsewhere)
        process.start()
        process.join()
    with pytest.raises(UserError, match="u1 lost its worker 3 times"):
        WorkQueue(other, "search", ["u1"], **given).work(lambda unit: 4)


def test_a_slow_worker_keeps_its_unit(tmp_path):
    url = urls(tmp_path)["sqlite"]
    slow = WorkQueue(url, "search", ["u1"], heartbeat=0.1, grace=1.0)
    watcher = WorkQueue(url, "search", ["u1"], heartbeat=0.1, grace=1.0)

    def compute(unit):
        for _ in range(12):
            time.sleep(0.2)
            assert watcher._fill() == 0
        return 1

    assert slow.work(compute) == 1


def test_wrong_storage_is_named(tmp_path):
    with pytest.raises(UserError, match="heartbeats"):
        WorkQueue(urls(tmp_path)["sqlite"], "search", ["u1"], heartbeat=5, grace=6)


def postgres_tool(name):
    found = shutil.which(name)
    if found and Path(found).resolve().parent.name == "bin" and "postgresql" in str(Path(found).resolve()):
        return str(Path(found).resolve())
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else found


@pytest.fixture
def postgres(tmp_path_factory):
    """URL of a PostgreSQL server of its own on a socket, run as an unprivileged user where we are root."""
    if not postgres_tool("initdb"):
        pytest.skip("PostgreSQL's server programs are not installed")
    pytest.importorskip("psycopg")
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    options = {}
    if os.geteuid() == 0:
        import pwd

        user = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options = {"user": user.pw_uid, "group": user.pw_gid}
    data = folder / "data"

    def run(*command):
        subprocess.run(
            command,
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            timeout=100,
            env={"HOME": str(folder), "LC_ALL": "C", "PATH": os.environ["PATH"]},
            **options,
        )

    run(postgres_tool("initdb"), "-D", data, "-U", "search", "--auth=trust", "-N", "-E", "UTF8")
    control = postgres_tool("pg_ctl")
    run(
        control,
        "-D",
        data,
        "-w",
        "-l",
        folder / "log",
        "-o",
        f"-k {folder} -c listen_addresses='' -F",
        "start",
    )
    try:
        yield f"postgresql://search@/postgres?host={folder}"
    finally:
        run(control, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_killed_workers_with_postgresql(postgres, tmp_path):
    log = tmp_path / "computed"
    assert disturbed(postgres, log, UNITS, KILLS) == KILLS
    check(postgres, UNITS)
