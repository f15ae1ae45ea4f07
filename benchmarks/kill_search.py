"""A whole search, killed at random moments: the same command finishes it, and nothing is done twice.

    python benchmarks/kill_search.py [--kills 10] [--seed 0] [--out FOLDER]

Runs `nas` on a small folder, kills it with all its processes (signal 9) at random moments of random stages,
and starts it again until it was killed so often and has finished. Then the same search runs undisturbed, with
the latencies that the killed one has measured (measured again they would differ), and both are compared:
weights, table, choice, test numbers, files. Exit code 1, and a line for everything that differs or was made
twice. A few minutes of one core.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
STAGES = 9
Stamps = dict[str, tuple[int, int]]
Moment = tuple[int, float]
"""A stage's number, and seconds after its beginning."""


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


def random_moments(kills: int, longest: float, seed: int) -> list[Moment]:
    """Random stages in their order, and random seconds after each one's beginning."""
    random = np.random.default_rng(seed)
    stages = sorted(random.integers(1, STAGES + 1, kills).tolist())
    return [(stage, float(random.uniform(0, longest))) for stage in stages]


def kill_until_done(
    begin: Callable[[], "subprocess.Popen[str]"], out: Path, moments: Sequence[Moment]
) -> tuple[list[str], list[str]]:
    """Start a run again and again, kill it at one moment after the other, and let it finish. Returns (the
    last stage that each killed one had named, complaints).
    """
    killed: list[str] = []
    complaints: list[str] = []
    seen: Stamps = {}
    for moment in [*moments, None]:
        process = begin()
        said = _until(process, moment)
        if moment is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed.append(next((x for x in reversed(said.splitlines()) if x.startswith("[")), "before all"))
        said += process.communicate(timeout=LONGEST)[0]
        now = stamps(out)
        complaints += [f"made twice: {name}" for name, stamp in seen.items() if now.get(name) != stamp]
        seen = now
        if process.returncode not in (0, -signal.SIGKILL):
            return killed, [*complaints, f"exit code {process.returncode}: {said[-2000:]}"]
    return killed, complaints


def _until(process: "subprocess.Popen[str]", moment: Moment | None) -> str:
    """Wait for a moment of a run, or its end; what it has said."""
    if moment is None:
        return ""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"[{moment[0]}]"):
            time.sleep(moment[1])
            break
    return "".join(lines)


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
    parser.add_argument("--longest", type=float, default=6.0, help="seconds after a stage's beginning")
    parser.add_argument("--out", type=Path, help="a new folder; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = options.out or Path(scratch)
        data = folder_of_scenes(root / "data", (("train", 12), ("valid", 6), ("test", 6)))
        out = root / "killed"
        moments = random_moments(options.kills, options.longest, options.seed)
        killed, complaints = kill_until_done(lambda: start(data, out, *WORDS), out, moments)
        for number, stage in enumerate(killed, start=1):
            print(f"kill {number}: {stage}", flush=True)
        complaints += [] if complaints else compared(data, out, root / "undisturbed")
        print("\n".join(complaints) or f"{len(killed)} kills: the same results, nothing made twice")
    return 1 if complaints else 0


def compared(data: Path, killed: Path, out: Path) -> list[str]:
    """Differences to an undisturbed run in `out` that is given the latencies that the killed one measured."""
    for stage in ("search", "choose", "baseline"):
        there = Findings.of(killed).path(stage)
        folder = out / there.relative_to(killed)
        folder.mkdir(parents=True)
        shutil.copy(there / "latency.csv", folder)
    (out / ".nas.lock").touch()  # the mark of a run's folder
    process = start(data, out, *WORDS)
    said, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        return [f"undisturbed: exit code {process.returncode}: {said[-2000:]}"]
    return differences(killed, out, latencies=True)


if __name__ == "__main__":
    sys.exit(main())
