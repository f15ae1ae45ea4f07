"""Mutated annotation files and pictures: each gives a dataset, a report, or one line of a UserError.

    python benchmarks/fuzz_data.py --json 10000 --pictures 2000 --seed 0

The cases run in another process with a limit on memory (4 GB) and on time, so that a death by a signal, a
hang and unbounded memory are counted as crashes too. Exit code 1 when there was one; case numbers are printed
and `--only json:123` runs one again, here, with its traceback. Case N of a seed is always the same.
"""

import argparse
import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from fuzz_cases import Pictures, json_case, picture_case

MEMORY = 4 * 2**30  # bytes of address space
SECONDS = 20  # of processor time of one case
PATIENCE = 300  # seconds without a line, on a machine that others use too


class Hang(BaseException):
    """A case took too long; no `except Exception` catches it."""


def run_json(seed: int, number: int, folder: Path) -> str:
    """Open one mutated annotation file as training, evaluation and search do. Returns what came of it."""
    import numpy as np

    from rfdetr.data import listing
    from rfdetr.data.checks import compare_splits, summary_line
    from rfdetr.data.coco import CocoDataset
    from rfdetr.data.inspection import inspect
    from rfdetr.data.statistics import Statistics
    from rfdetr.data.transforms import collate
    from rfdetr.errors import UserError
    from rfdetr.search.fast_ap import GroundTruth

    rng = np.random.default_rng([seed, 1, number])
    (folder / "a.json").write_bytes(json_case(rng, Pictures(folder).entries))
    listing.HEADER_LIMIT = 0 if rng.random() < 0.15 else 5000
    options = {
        "unreadable": ("error", "skip")[int(rng.random() < 0.3)],
        "masks": (None, None, True, False)[rng.integers(4)],
        "cache_side": (None, 30)[int(rng.random() < 0.3)],
    }
    try:
        dataset = CocoDataset(folder / "a.json", folder, "fuzz", ("train", "val")[rng.integers(2)], **options)
        check_content(dataset)
        for index in range(len(dataset)):
            image, target = dataset[index]
            assert image.dtype == np.uint8 and target.boxes.isfinite().all()
            assert not len(target) or 0 <= float(target.boxes.min()) <= float(target.boxes.max()) <= 1
            assert (target.masks is not None) == dataset.has_masks
        if len(dataset):
            collate(dataset, range(len(dataset)), 32, rng)
        evaluate(dataset)
        inspect(dataset)
        json.dumps(Statistics.of(dataset).to_dict(), default=str)
        assert "\n" not in summary_line(dataset)
        compare_splits(CocoDataset(folder / "good.json", folder), dataset)
        if len(dataset) and len(dataset.category_ids):
            GroundTruth(dataset.coco)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 3000, str(error)
        return "one line"
    return "report" if dataset.report else "no problem"


def check_content(dataset) -> None:
    """Nothing is lost silently, and what stays is plain and inside its picture."""
    left_out = sum(
        count for kind, count in dataset.report.counts.items() if "annotation" in kind or "box" in kind
    )
    left_out += dataset.report.notes.get("annotations of pictures that are left out", 0)
    given = json.loads((dataset.path).read_bytes())["annotations"]
    kept = dataset.coco["annotations"]
    assert len(kept) <= len(given) <= len(kept) + left_out
    json.dumps(dataset.coco, allow_nan=False)
    json.dumps(dataset.report.to_dict(), allow_nan=False)
    str(dataset.report)
    assert len({annotation["id"] for annotation in kept}) == len(kept)
    sizes = {image["id"]: (image["width"], image["height"]) for image in dataset.coco["images"]}
    for annotation in kept:
        (x, y, w, h), (width, height) = annotation["bbox"], sizes[annotation["image_id"]]
        assert w > 0 and h > 0 and x >= -1 and y >= -1 and x + w <= width + 1.01 and y + h <= height + 1.01


def evaluate(dataset) -> None:
    """The ground truth against itself, boxes and masks, in both engines."""
    import numpy as np

    from rfdetr.data.masks import decode_segmentation
    from rfdetr.evaluation.coco import evaluate_detections

    found = []
    for image in dataset.coco["images"]:
        mine = [a for a in dataset.coco["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in mine], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [dataset.category_ids.index_of(a["category_id"]) for a in mine]
        one = {"image_id": image["id"], "scores": [0.5] * len(mine), "labels": labels, "boxes": boxes}
        if dataset.has_masks:
            size = image["height"], image["width"]
            masks = [decode_segmentation(a["segmentation"], *size) for a in mine]
            one["masks"] = np.array(masks, dtype=bool).reshape(-1, *size)
        found.append(one)
    for kind in ("bbox", "segm") if dataset.has_masks else ("bbox",):
        for engine in ("pycocotools", "faster"):
            evaluate_detections(dataset, found, kind, engine=engine)


def run_picture(seed: int, number: int, folder: Path) -> str:
    """Read one mutated picture in every way that there is. Returns what came of it."""
    import numpy as np

    from rfdetr.data.images import image_size, read_header, read_image
    from rfdetr.errors import UserError

    rng = np.random.default_rng([seed, 2, number])
    path = folder / "picture"
    path.write_bytes(picture_case(rng, Pictures(folder).files))
    outcomes = set()
    for read in (
        lambda: read_image(path),
        lambda: read_image(path, oriented=False),
        lambda: read_image(path, oriented=image_size(path), max_side=20),
        lambda: read_image(path, oriented=read_header(path).shown),
    ):
        try:
            image = read()
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error), str(error)
            outcomes.add("one line")
            continue
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
        outcomes.add("picture")
    return " and ".join(sorted(outcomes))


RUN = {"json": run_json, "picture": run_picture}


def work(kind: str, seed: int, first: int, last: int) -> None:
    """Run cases one after the other and write one JSON line for each (`supervise` reads them)."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def hang(*_: object) -> None:
        raise Hang(f"more than {SECONDS} s of processor time")

    signal.signal(signal.SIGPROF, hang)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Exception):  # what is imported is no part of a case's time
            RUN[kind](seed, first, Path(folder))
        for number in range(first, last):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                result, text = RUN[kind](seed, number, Path(folder)), ""
            except (Exception, Hang):
                result, text = "crash", traceback.format_exc()[-2000:]
            signal.setitimer(signal.ITIMER_PROF, 0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps([number, result, text, peak]), flush=True)


def supervise(kind: str, seed: int, count: int) -> tuple[Counter[str], list[str], int]:
    """Outcomes, descriptions of the crashes, and the peak memory in KiB of `count` cases."""
    outcomes: Counter[str] = Counter()
    crashes: list[str] = []
    peak = following = 0
    while following < count:
        command = [sys.executable, __file__, "--worker", kind, str(seed), str(following), str(count)]
        # Unbuffered: a line that waits in a buffer here would look like silence to `select`.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        assert process.stdout is not None
        while select.select([process.stdout], [], [], PATIENCE)[0]:
            line = process.stdout.readline()
            if not line:
                break
            number, result, text, memory = json.loads(line)
            following, peak = number + 1, max(peak, memory)
            outcomes[result] += 1
            if result == "crash":
                crashes.append(f"{kind}:{number}\n{text}")
        else:
            process.kill()  # it waits for something, or does not even take the signal
        code = process.wait()
        if following < count:
            outcomes["crash"] += 1
            crashes.append(f"{kind}:{following}: the process ended with {code}")
            following += 1
    return outcomes, crashes, peak


def main() -> int:
    """Run the cases and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=int, default=300, help="mutated annotation files")
    parser.add_argument("--pictures", type=int, default=100, help="mutated pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one case, e.g. json:123, in this process")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        kind, *numbers = given.worker
        work(kind, *map(int, numbers))
        return 0
    if given.only:
        kind, number = given.only.split(":")
        with tempfile.TemporaryDirectory() as folder:
            print(RUN[kind](given.seed, int(number), Path(folder)))
        return 0
    failed = 0
    for kind, count in (("json", given.json), ("picture", given.pictures)):
        outcomes, crashes, peak = supervise(kind, given.seed, count)
        failed += len(crashes)
        shown = ", ".join(f"{name}: {number}" for name, number in sorted(outcomes.items()))
        print(f"{kind}: {count} cases, crashes {len(crashes)}, peak {peak / 2**10:.0f} MiB ({shown})")
        for crash in crashes[:10]:
            print(crash)
    return int(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
