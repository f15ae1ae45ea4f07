"""A whole search, killed at random moments: the same command finishes it, and nothing is done twice.

    python benchmarks/kill_search.py [--kills 10] [--seed 0] [--out FOLDER]

Runs `nas` on a small folder, kills it with all its processes (signal 9) at random moments, and starts it
again until it was killed so often and has finished. Then the same search runs undisturbed, with the latencies
that the killed one has measured (measured again they would differ), and both are compared: weights, table,
choice, test numbers, files. Exit code 1, and a line for everything that differs or was made twice. A few
minutes of one core.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from rfdetr import Arch
from rfdetr.data.scenes import scenes
from rfdetr.nas.findings import Findings

WORDS = (
    *(
        "--steps",
        "40",
        "--batch-size",
        "4",
        "--resolutions",
        "32,48",
        "--patch-sizes",
        "16",
        "--windows",
        "1",
    ),
    *("--windows", "1", "--queries", "4", "--measured", "12", "--baseline"),
)
FINISHED = ("*/stage.json", "*/r*.json", "*-search-*/evaluated/**/*", "*-search-*/onnx/**/*.onnx")
"""Files below `stages` that are written once, when a stage or a part of one is done."""
LONGEST = 600  # seconds that one start may take
Stamps = dict[str, tuple[int, int]]


def folder_of_scenes(root: Path, counts: tuple[tuple[str, int], ...]) -> Path:
    """A COCO folder as people have them, of small scenes. counts: (name of a split, pictures)."""
    for name, count in counts:
        data = scenes("giants", {"valid": "val"}.get(name, name), size=count, canvas=64)
        place = root / name
        place.mkdir(parents=True)
        truth = data.coco
        for index, image in enumerate(truth["images"]):
            Image.fromarray(data[index][0]).save(place / image["file_name"])
        (place / "_annotations.coco.json").write_text(json.dumps(truth))
    return root


def start(data: Path, out: Path, *words: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, in a session that can be killed whole."""
    command = [sys.executable, "-m", "rfdetr", "nas", "--data", str(data), "--out", str(out), *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def stamps(out: Path) -> Stamps:
    """When each finished part of a run was written, and its size."""
    files = {path for pattern in FINISHED for path in (out / "stages").glob(pattern) if path.is_file()}
    found = {}
    for path in files:
        if not path.name.startswith("."):  # one that was being written
            state = path.stat()
            found[str(path.relative_to(out))] = (state.st_mtime_ns, state.st_size)
    return found


def kill_until_done(
    begin: Callable[[], "subprocess.Popen[str]"], out: Path, kills: int, seconds: Callable[[], float]
) -> tuple[list[str], list[str]]:
    """Start a run, kill it after `seconds()` up to `kills` times, and let it finish. Returns (the last line
    that each killed one had said, complaints).
    """
    moments: list[str] = []
    complaints: list[str] = []
    seen: Stamps = {}
    while True:
        process = begin()
        try:
            said, _ = process.communicate(timeout=seconds() if len(moments) < kills else LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            lines = [line for line in said.splitlines() if line.startswith("[")]
            moments.append(lines[-1] if lines else "before the first stage")
        now = stamps(out)
        complaints += [f"made twice: {name}" for name, stamp in seen.items() if now.get(name) != stamp]
        seen = now
        if process.returncode == 0:
            return moments, complaints
        if process.returncode != -signal.SIGKILL:
            return moments, [*complaints, f"exit code {process.returncode}: {said[-2000:]}"]


def differences(one: Path, two: Path, latencies: bool) -> list[str]:
    """What two finished runs of the same command differ in. latencies: also all that follows from measured
    times, which must then be the same.
    """
    first, second = Findings.of(one), Findings.of(two)
    found = [] if first.stages == second.stages else [f"stages: {first.stages}, {second.stages}"]
    trained = ("train", "fine-tune", "baseline") if latencies else ("train",)
    for stage in trained:
        for path in sorted(first.path(stage).rglob("checkpoint.pt")):
            other = second.path(stage) / path.relative_to(first.path(stage))
            if not other.is_file() or not _same_weights(path, other):
                found.append(f"weights: {path}, {other}")
    columns = list(first.table.columns) if latencies else [*Arch.KNOBS, "AP", "AP50"]
    try:
        pd.testing.assert_frame_equal(first.table[columns], second.table[columns])
    except AssertionError as error:
        found.append(f"table: {error}")
    for stage in ("choose", "fine-tune", "baseline", "export") if latencies else ():
        if first.stage(stage)["result"] != second.stage(stage)["result"]:
            found.append(f"results of {stage}")
    for run in (first, second):
        steps = pd.read_json(run.path("train") / "log.jsonl", lines=True)["step"].tolist()
        if steps != list(range(1, len(steps) + 1)):
            found.append(f"steps of {run.folder}: {steps}")
    return found


def _same_weights(one: Path, two: Path) -> bool:
    first, second = (torch.load(path, weights_only=False)["weights"] for path in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shortest", type=float, default=4.0, help="seconds before a kill")
    parser.add_argument("--longest", type=float, default=14.0)
    parser.add_argument("--out", type=Path, help="a new folder; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.out or Path(scratch)
        data = folder_of_scenes(root / "data", (("train", 12), ("valid", 6), ("test", 6)))
        random = np.random.default_rng(options.seed)
        kills, complaints = 0, []
        while kills < options.kills and not complaints:
            killed = root / f"killed-{kills}"
            moments, complaints = kill_until_done(
                lambda place=killed: start(data, place, *WORDS),
                killed,
                options.kills - kills,
                lambda: float(random.uniform(options.shortest, options.longest)),
            )
            for number, moment in enumerate(moments, start=kills + 1):
                print(f"kill {number}: {moment}", flush=True)
            complaints += [] if complaints else compared(data, killed, root / f"undisturbed-{kills}")
            if not moments:
                complaints.append("the run ended before it was killed: choose a shorter --longest")
            kills += len(moments)
        print("\n".join(complaints) or f"{kills} kills: the same results, nothing made twice")
    return 1 if complaints else 0


def compared(data: Path, killed: Path, out: Path) -> list[str]:
    """Differences to an undisturbed run in `out` that is given the latencies that the killed one measured."""
    folder = out / Findings.of(killed).path("search").relative_to(killed)
    folder.mkdir(parents=True)
    (out / ".nas.lock").touch()  # the mark of a run's folder
    shutil.copy(Findings.of(killed).path("search") / "latency.csv", folder)
    process = start(data, out, *WORDS)
    said, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        return [f"undisturbed: exit code {process.returncode}: {said[-2000:]}"]
    return differences(killed, out, latencies=True)


if __name__ == "__main__":
    sys.exit(main())
