"""One interleaved run of many detectors on one processor: which are fast, in which runtime and precision.

A study in parts (`python -m rfdetr results peers-bench`): first every file, then rounds; in a round every
model is timed once, in a new order, each runtime, precision and number of threads in a process of its own.
What is kept is made of whole rounds, so a run that was cut off still treats all models alike; the first
round has to be complete. It belongs on a machine that does nothing else.
"""

import random
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.studies import Finished, Study

if TYPE_CHECKING:
    import pandas as pd

NAME = "peers-bench"
OURS = ("nano", "small", "medium", "large", "2xlarge", "seg-nano", "seg-small", "seg-medium")
PEERS = (
    *(f"lw-detr-{size}" for size in "tsm"),
    *(f"d-fine-{size}" for size in "nsm"),
    *("rt-detr-r18", "rt-detr-r50"),
    *(f"yolov8-{size}" for size in "nsm"),
    *(f"yolo11-{size}" for size in "nsm"),
    *("yolov8-seg-n", "yolo11-seg-n", "yolo11-seg-s"),
    # What suppression over all pairs and whole masks cost; and the backbones of Table 6.
    *("yolo11-n.evaluation", "yolo11-seg-n.prototypes", "yolo11-seg-s.prototypes"),
    *("hiera-s", "caev2-vit-s"),
)
ROUNDS = 5
THREADS = (1, 2)
PRECISIONS = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "int8")}
CALIBRATION = 8
"""Pictures of noise that the INT8 files' ranges come from: they decide no speed, and these files are only
timed."""
_CALL = "rfdetr.experiments.ch07_contest"
_KEY = ["model", "runtime", "asked", "threads", "protocol"]


def study(models: Sequence[str] = (*OURS, *PEERS), rounds: int = ROUNDS, **cell: Any) -> Study:
    """The study over these models. cell: sizes of a `peers.timing.Cell`."""

    def parts(profile: Profile, seed: int) -> list[Part]:
        found = [Part(_file(model), f"{_CALL}:file_part", {"model": model}) for model in models]
        for number in range(rounds):
            order = random.Random(f"{seed}-{number}").sample(list(models), len(models))
            for model in order:
                options = {"model": model, "round": number, "cell": cell}
                found.append(Part(f"round-{number}-{model}", f"{_CALL}:time_part", options, (_file(model),)))
        return found

    return Study(NAME, "cpu", parts, collect, ("rfdetr.peers.timing", "rfdetr.peers.exporting"))


def _file(model: str) -> str:
    return f"file-{model}"


def file_part(place: Place, model: str) -> dict[str, Any]:
    """Export a model with random weights, FP32 and, where OpenVINO and NNCF are, INT8."""
    from rfdetr.arch import PRESETS
    from rfdetr.benchmark.inputs import random_inputs
    from rfdetr.export.int8 import to_int8
    from rfdetr.export.onnx import export_onnx
    from rfdetr.networks import RANDOM, open_network

    path = place.file(".onnx")
    if model in PRESETS:
        artifact = export_onnx(open_network(RANDOM + model), None, path, preset=model)
    else:
        from rfdetr.peers import catalogue
        from rfdetr.peers.exporting import export_backbone, export_peer

        name, _, way = model.partition(".")
        if catalogue.named(name)["size"] == catalogue.BACKBONE:
            artifact = export_backbone(name, path)
        else:
            nms = "evaluation" if way == "evaluation" else "deployed"
            artifact = export_peer(
                name, path, nms=nms, masks="prototypes" if way == "prototypes" else "whole"
            )
    int8 = ""
    if _has_openvino():
        noise = [random_inputs(artifact, seed=seed) for seed in range(CALIBRATION)]
        int8 = to_int8(artifact, place.file(".xml"), noise, metadata={"data": "noise"}).sha256
    return {"sha256": artifact.sha256, "int8_sha256": int8, "file_mb": path.stat().st_size / 1e6}


def _has_openvino() -> bool:
    return find_spec("openvino") is not None and find_spec("nncf") is not None


def time_part(place: Place, model: str, round: int, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every runtime, precision and number of threads of one model, in a random order: rows of
    `peers.timing.timed`.
    """
    from rfdetr.peers.timing import Cell, timed_apart

    ways = [
        (runtime, precision, threads)
        for runtime, precisions in PRECISIONS.items()
        for precision in precisions
        for threads in THREADS
        if runtime != "openvino" or _has_openvino()
    ]
    random.Random(f"{round}-{model}").shuffle(ways)
    rows = []
    for runtime, precision, threads in ways:
        path = place.needed(_file(model), ".xml" if precision == "int8" else ".onnx")
        for row in timed_apart(Cell(str(path), runtime, precision, threads, **cell)):
            rows.append({"model": model, "round": round, **row})
    return rows


def collect(finished: Finished) -> None:
    """Keep the rows of whole rounds and their summary. UserError when no round is complete."""
    import pandas as pd

    names = list(finished.plan.parts)
    models = [name.removeprefix("file-") for name in names if name.startswith("file-")]
    by_round: dict[int, list[dict[str, Any]]] = {}
    for name, rows in finished.values("round-").items():
        by_round.setdefault(int(name.split("-")[1]), []).append(rows)
    whole = [number for number, parts in sorted(by_round.items()) if len(parts) == len(models)]
    if not whole:
        done = max((len(parts) for parts in by_round.values()), default=0)
        raise UserError(
            f"{NAME}: no round is complete yet ({done} of {len(models)} models in the first): run it again,"
            " for longer"
        )
    rows = pd.DataFrame([row for number in whole for part in by_round[number] for row in part])
    files = finished.values("file-")
    kept.keep(
        finished.folder,
        {"rows": rows, "models": summary(rows)},
        finished.origin,
        rounds=len(whole),
        models=models,
        files={name.removeprefix("file-"): value for name, value in files.items()},
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def summary(rows: "pd.DataFrame") -> "pd.DataFrame":
    """One row per model, runtime, precision asked for, threads and protocol.

    Columns: median_ms (of the rounds' medians), low_ms, high_ms (of the rounds), spread ((high - low) /
    median), rounds, noisy (share of rounds with a reason), precision (as built), memory_mb, load_s (medians).
    """
    groups = rows.groupby(_KEY, sort=False)
    frame = groups.agg(
        median_ms=("median_ms", "median"),
        low_ms=("median_ms", "min"),
        high_ms=("median_ms", "max"),
        rounds=("round", "nunique"),
        noisy=("noisy", "mean"),
        precision=("precision", "first"),
        memory_mb=("memory_mb", "median"),
        load_s=("load_s", "median"),
    ).reset_index()
    return frame.assign(spread=(frame.high_ms - frame.low_ms) / frame.median_ms)


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept run, or None where there is none."""
    try:
        return kept.load(NAME, root)
    except UserError:
        return None


STUDY = study()
