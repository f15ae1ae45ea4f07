"""All long studies on one lent machine (a GPU and many processors) within a given time.

    python benchmarks/gpu_studies.py --out FOLDER --seconds 540 [--cuda 10] [--cpu 6] [--mps] [--checks]
    python benchmarks/gpu_studies.py --out FOLDER --probe 60    how many processes the GPU should be shared by

Many processes train at once, the most important parts of the studies first (SCHEDULE). What is done is packed
into FOLDER every minute (one archive a study, at most 15 MiB each), so the run may be cut off at any time; on
a machine that keeps its files the same command goes on where it was. `tar xf` of the archives into
`build/artifacts/parts/` brings the parts into a checkout, where `python -m rfdetr results NAME` does what is
missing and keeps the result. RFDETR_COMMIT names the commit of a copy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.crew import Task, work
from rfdetr.experiments.kept_studies import STUDIES
from rfdetr.files import atomic_path

SCHEDULE: tuple[tuple[str, tuple[str, ...]], ...] = (
    # What others wait for, and what takes longest in one piece.
    ("full-search", ("train",)),
    ("fourteen-domains", ("base",)),
    ("precision-study", ("cpu-", "cuda-")),
    ("ranking", ("supernet-", "alone-0-", "tuned-0-", "share-0-")),
    ("full-search", ("unit-",)),
    ("fourteen-domains", ("first-",)),
    ("ranking", ("alone-", "tuned-", "share-")),
    ("fourteen-domains", ()),
    ("sampling-study", ()),
    ("ablation-study", ()),
    ("search-regret", ()),
    ("search-bill", ("counted-",)),
)
"""Study and the beginnings of its parts' names (none: all), most urgent first."""
NEVER = {
    "full-search": ("latency",),
    "search-bill": ("clocked-",),
    "peers-bench": ("",),
    "backbones-bench": ("",),
    "int8": ("",),
    "int8-domains": ("",),
    "domain-baseline": ("",),
    "peer-exports": ("",),
    "peer-fp16": ("",),
    "text-cost": ("",),
}
"""Beginnings of the names of parts that need a quiet processor, OpenVINO (int8), or other packages."""
_LIMIT = 15 << 20  # bytes of an archive
_RESERVE = 25.0  # seconds kept for collecting and packing


def tasks(store: Store, names: list[str], profile: str, seed: int) -> list[Task]:
    """The schedule for the chosen studies."""
    found = []
    for name, only in SCHEDULE:
        if name not in names or name not in STUDIES:
            continue
        study = STUDIES[name] if not profile else replace(STUDIES[name], profile=profile)
        every = [part.name for part in study.task(seed, store).plan.parts.values()]
        wanted = [part for part in every if not part.startswith(NEVER.get(name, ("\0",)))]
        chosen = [part for part in wanted if part.startswith(only or ("",))]
        if chosen:
            found.append(study.task(seed, store, chosen))
    return found


def pack(folder: Path, archive: Path) -> int:
    """Pack a study's finished parts, small files first, as long as they fit; returns how many were left
    out.
    """
    files = [p for p in folder.glob("*") if p.is_file() and not p.name.startswith((".", "crew"))]
    # Packed pictures were made elsewhere and brought along.
    files = [p for p in files if p.suffix != ".zip"]
    left, total = 0, 0
    with atomic_path(archive) as temporary, tarfile.open(temporary, "w:gz", compresslevel=6) as tar:
        for path in sorted(files, key=lambda p: p.stat().st_size):
            # JSON shrinks to a quarter, weights hardly at all.
            total += path.stat().st_size // (4 if path.suffix == ".json" else 1)
            if total > _LIMIT:
                left += 1
            else:
                tar.add(path, arcname=f"{folder.name}/{path.name}")
    return left


def pack_all(store: Store, names: list[str], out: Path) -> None:
    for name in names:
        folder = store.root / "parts" / name
        if folder.is_dir():
            left = pack(folder, out / f"parts-{name}.tar.gz")
            if left:
                print(f"parts-{name}.tar.gz: {left} large files left out")


@contextmanager
def every_minute(call: Callable[[], None], seconds: float = 60.0) -> Iterator[None]:
    """Call it now and then while the block runs."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            # A file that is being replaced while it is packed waits for the next time.
            with suppress(OSError):
                call()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def shared_gpu(wanted: bool) -> Iterator[bool]:
    """NVIDIA's multi-process service for the processes started inside, where it is installed and works.

    It lets the kernels of several processes run at the same time instead of in turns. It is a program of
    this user and ends with the block; no setting of the GPU is touched.
    """
    program = shutil.which("nvidia-cuda-mps-control")
    if not (wanted and program):
        yield False
        return
    folder = Path("/tmp/rfdetr-mps")
    folder.mkdir(exist_ok=True)
    names = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    os.environ.update(names)
    try:
        subprocess.run([program, "-d"], check=False, timeout=20)
        test = "import torch; print(torch.ones(2, device='cuda').sum().item())"
        good = subprocess.run([sys.executable, "-c", test], check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        good = False
    if not good:
        _end_service(program)
        for name in names:
            os.environ.pop(name)
    try:
        yield good
    finally:
        if good:
            _end_service(program)


def _end_service(program: str) -> None:
    try:
        subprocess.run([program], input=b"quit\n", check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"the multi-process service did not end: {error}")


def collect(store: Store, names: list[str], profile: str, seed: int, out: Path) -> None:
    """Keep what can be kept of every study, in results.tar.gz."""
    folder = store.root / "kept"
    for name in names:
        study = STUDIES[name] if not profile else replace(STUDIES[name], profile=profile)
        try:
            study.keep(folder / name, seed, store)
        except (UserError, KeyError, ValueError) as error:
            print(f"{name}: not kept: {error}")
    if folder.is_dir():
        with atomic_path(out / "results.tar.gz") as temporary, tarfile.open(temporary, "w:gz") as tar:
            tar.add(folder, arcname="results")


def print_findings(folder: Path, names: list[str]) -> None:
    """The answers of the kept studies in a few lines."""
    from rfdetr.experiments import ch04_precision, ch04_ranking_summary, ch04_sampling_study, ch09_analysis
    from rfdetr.experiments.base import kept

    for name in names:
        try:
            found = kept.load(name, folder)
            if name == "ranking":
                resampled = found.arrays["resampled"]
                table = ch04_ranking_summary.summary(found.tables["networks"], resampled, draws=300)
            elif name == "precision-study":
                table = ch04_precision.summary(found.tables["runs"], found.arrays["resampled"])
                table = table[table["variant"] == "bf16"].drop(columns=["updates", "tflops", "steps"])
            elif name == "sampling-study":
                table = ch04_sampling_study.summary(found.tables["runs"])
            elif name == "fourteen-domains":
                print(ch09_analysis.averages(found.tables["tests"]).to_string(index=False))
                table = ch09_analysis.comparison(found, "nas", "fixed", draws=300)
            else:
                continue
        except (UserError, KeyError, ValueError) as error:
            print(f"{name}: {error}")
            continue
        print(f"--- {name}\n{table.round(4).to_string(index=False)}")


CASES = (1, 3, 6, 10)
"""Numbers of processes that `probe` compares."""


def probe(seconds: float, device: str) -> None:
    """Steps a second of the small supernet with 1, 3, 6 and 10 processes at once on the device."""
    here = str(Path(__file__).parent)
    program = f"import sys; sys.path.insert(0, {here!r}); import gpu_studies as g; g.train_for(*sys.argv[1:])"
    together = Path(tempfile.mkdtemp())
    commands = [
        [sys.executable, "-c", program, device, str(number), str(together), str(seconds)]
        for number in range(CASES[-1])
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    counts = [json.loads(process.communicate()[0].strip().splitlines()[-1]) for process in running]
    for case, processes in enumerate(CASES):
        rate = sum(count[case] for count in counts) / seconds
        print(f"{processes:2d} processes: {rate:6.1f} steps/s in all", flush=True)


def train_for(device: str, number: str, together: str, seconds: str) -> None:
    """Train in every case of `CASES` that has so many processes, for some seconds each, all processes
    together; print the numbers of steps.
    """
    import torch

    from rfdetr.experiments.base import fitting
    from rfdetr.experiments.base.parts import Place
    from rfdetr.experiments.base.profiles import get_profile
    from rfdetr.training.config import TrainConfig
    from rfdetr.training.loop import train

    torch.set_num_threads(1)
    profile, counts, start = get_profile("cpu"), [0] * len(CASES), 0.0

    def tell(row: dict) -> None:
        nonlocal start
        if not start:  # a first step warms up
            (Path(together) / number).touch()
            while len(ready := list(Path(together).iterdir())) < CASES[-1]:
                time.sleep(0.05)
            start = max(path.stat().st_mtime for path in ready) + 1
        now = (time.time() - start) / float(seconds)
        if 0 <= now < len(CASES):
            counts[int(now)] += 1
        wait = next((case for case in range(max(0, int(now)), len(CASES)) if int(number) < CASES[case]), None)
        if now >= len(CASES) or wait is None:
            raise KeyboardInterrupt
        time.sleep(max(0.0, start + wait * float(seconds) - time.time()))

    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        place = Place(Path(folder) / "probe", "probe", device)
        data = fitting.scenes_of(place, profile, "train", 400)
        model = fitting.new_network(data, profile.recipe.model, 0)
        config = TrainConfig.from_dict({**profile.recipe.train, "steps": 100000})
        space = profile.recipe.training
        train(model, data, space, config, place.work, progress=tell, accelerator=device)
    print(json.dumps(counts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--cuda", type=int, default=10, help="processes that share the GPU")
    parser.add_argument("--cpu", type=int, default=6, help="processes for parts that must run on a processor")
    parser.add_argument("--mps", action="store_true", help="share the GPU by NVIDIA's multi-process service")
    parser.add_argument("--checks", action="store_true", help="run benchmarks/cuda_checks.py beside")
    parser.add_argument("--probe", type=float, default=0, help="only measure sharing, so many seconds a case")
    parser.add_argument("--studies", default=",".join(dict.fromkeys(name for name, _ in SCHEDULE)))
    parser.add_argument("--profile", default="", help="another profile, e.g. smoke, to try the script")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--open-cpu", action="store_true", help="processor processes take any part")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    given.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in given.studies.split(",") if name in STUDIES]
    store = Store()
    if given.probe:
        for wanted in dict.fromkeys((False, given.mps)):
            with shared_gpu(wanted) as shared:
                print(f"multi-process service: {'on' if shared else 'off'}", flush=True)
                probe(given.probe, "cuda" if given.cuda else "cpu")
        return 0
    with shared_gpu(given.mps) as shared:
        print(f"multi-process service: {'on' if shared else 'off'}", flush=True)
        checks = _checks(given.out, given.seconds - _RESERVE) if given.checks else None
        planned = tasks(store, names, given.profile, given.seed)
        devices = ["cpu"] * given.cpu + ["cuda"] * given.cuda
        with every_minute(lambda: pack_all(store, names, given.out)):
            outcome = work(
                planned,
                devices,
                max(1.0, end - time.monotonic() - _RESERVE),
                1,
                lambda line: print(line, flush=True),
                () if given.open_cpu else ("cpu",),
            )
        if checks is not None:
            checks.terminate()
    pack_all(store, names, given.out)
    collect(store, names, given.profile, given.seed, given.out)
    for name in names:
        study = STUDIES[name] if not given.profile else replace(STUDIES[name], profile=given.profile)
        plan = study.task(given.seed, store).plan
        print(f"{name:18s} {len(plan.parts) - len(plan.missing()):4d} of {len(plan.parts)} parts done")
    print_findings(store.root / "kept", names)
    for (study_name, part), error in outcome.failed.items():
        print(f"FAILED {study_name} {part}: {error}")
    return 1 if outcome.failed else 0


def _checks(out: Path, seconds: float) -> subprocess.Popen:
    """The checks beside the studies; their lines go to checks.txt."""
    script = Path(__file__).with_name("cuda_checks.py")
    scratch = Path("/tmp/rfdetr-cuda-checks")
    command = [sys.executable, str(script), "--out", str(scratch), "--seconds", str(seconds)]
    with (out / "checks.txt").open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    raise SystemExit(main())
