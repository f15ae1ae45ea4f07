"""One interleaved run of many detectors on one processor: which are fast, in which runtime and precision.

A study in parts (`python -m rfdetr results peers-bench`): first every file, then sweeps, one for each round
and number of threads. In a sweep every model is timed once, in a new order, each runtime and precision in a
process of its own; those of `CORE` come first. What is kept is made of sweeps in which all of these are done,
so a run that was cut off still treats them alike, and says what is missing. It belongs on a machine that does
nothing else; the files (`--part file-`) can be made before, on one that is busy.
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

NAME, BACKBONES_NAME = "peers-bench", "backbones-bench"
OURS = ("nano", "small", "medium", "large", "2xlarge", "seg-nano", "seg-small", "seg-medium")
PEERS = (
    *(f"lw-detr-{size}" for size in "tsm"),
    *(f"d-fine-{size}" for size in "nsm"),
    *("rt-detr-r18", "rt-detr-r50"),
    *(f"yolov8-{size}" for size in "nsm"),
    *(f"yolo11-{size}" for size in "nsm"),
    *("yolov8-seg-n", "yolo11-seg-n", "yolo11-seg-s"),
    # What suppression over all pairs and whole masks cost.
    *("yolo11-n.evaluation", "yolo11-seg-n.prototypes", "yolo11-seg-s.prototypes"),
)
BACKBONES = ("hiera-s", "caev2-vit-s", "siglip2-vit-b")
"""Those of Table 6, alone: a run of their own, in turns with each other."""
CORE = (
    *("nano", "small", "medium", "seg-nano", "seg-small"),
    *(f"lw-detr-{size}" for size in "tsm"),
    *(f"d-fine-{size}" for size in "nsm"),
    *("rt-detr-r18", "yolov8-seg-n", "yolo11-seg-n"),
    *(f"yolov8-{size}" for size in "nsm"),
    *(f"yolo11-{size}" for size in "nsm"),
)
"""What even a short run has: of every family its smaller sizes."""
ROUNDS = 5
THREADS = (1, 2)
PRECISIONS = {"onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "int8")}
CALIBRATION = 8
"""Pictures of noise that the INT8 files' ranges come from: they decide no speed, and these files are only
timed."""
_CALL = "rfdetr.experiments.ch07_contest"
_KEY = ["model", "runtime", "asked", "threads", "protocol"]


def study(
    models: Sequence[str] = (*OURS, *PEERS), rounds: int = ROUNDS, name: str = NAME, **cell: Any
) -> Study:
    """The study over these models. cell: sizes of a `peers.timing.Cell`."""

    def parts(profile: Profile, seed: int) -> list[Part]:
        found = [Part(_file(model), f"{_CALL}:file_part", {"model": model}) for model in models]
        for number in range(rounds):
            for threads in THREADS:
                for model in _order(models, f"{seed}-{number}-{threads}"):
                    options = {"model": model, "round": number, "threads": threads, "cell": cell}
                    name = f"round-{number}-{threads}-{model}"
                    found.append(Part(name, f"{_CALL}:time_part", options, (_file(model),)))
        return found

    return Study(name, "cpu", parts, collect, ("rfdetr.peers.timing", "rfdetr.peers.exporting"))


def core(models: Sequence[str]) -> list[str]:
    """Those of the models that every sweep must have: `CORE`, or all where none of it is among them."""
    return [model for model in models if model in CORE] or list(models)


def _order(models: Sequence[str], seed: str) -> list[str]:
    first = core(models)
    rest = [model for model in models if model not in first]
    drawn = random.Random(seed)
    return [*drawn.sample(first, len(first)), *drawn.sample(rest, len(rest))]


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


def time_part(
    place: Place, model: str, round: int, threads: int, cell: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every runtime and precision of one model, in a random order: rows of `peers.timing.timed`."""
    from rfdetr.peers.timing import Cell, timed_apart

    ways = [
        (runtime, precision)
        for runtime, precisions in PRECISIONS.items()
        for precision in precisions
        if runtime != "openvino" or _has_openvino()
    ]
    random.Random(f"{round}-{threads}-{model}").shuffle(ways)
    rows = []
    for runtime, precision in ways:
        path = place.needed(_file(model), ".xml" if precision == "int8" else ".onnx")
        for row in timed_apart(Cell(str(path), runtime, precision, threads, **cell)):
            rows.append({"model": model, "round": round, **row})
    return rows


def collect(finished: Finished) -> None:
    """Keep the rows of the sweeps that have all of `core`, and their summary. UserError without any."""
    import pandas as pd

    models = [name.removeprefix("file-") for name in finished.plan.parts if name.startswith("file-")]
    sweeps: dict[tuple[int, int], dict[str, list[dict[str, Any]]]] = {}
    for name, rows in finished.values("round-").items():
        _, number, threads, model = name.split("-", 3)
        sweeps.setdefault((int(number), int(threads)), {})[model] = rows
    needed = set(core(models))
    whole = {key: done for key, done in sorted(sweeps.items()) if needed <= set(done)}
    if not whole:
        done = max((len(needed & set(parts)) for parts in sweeps.values()), default=0)
        raise UserError(
            f"{finished.folder.name}: no sweep is complete yet ({done} of the {len(needed)} models that every"
            " one has): run it again, for longer"
        )
    frame = pd.DataFrame([row for done in whole.values() for rows in done.values() for row in rows])
    files = finished.values("file-")
    rounds = {int(name.split("-")[1]) for name in finished.plan.parts if name.startswith("round-")}
    kept.keep(
        finished.folder,
        {"rows": frame, "models": summary(frame)},
        finished.origin,
        sweeps=[
            {"round": number, "threads": threads, "models": len(done)}
            for (number, threads), done in whole.items()
        ],
        planned={"rounds": len(rounds), "threads": list(THREADS), "models": len(models)},
        models=sorted({model for done in whole.values() for model in done}, key=models.index),
        files={name.removeprefix("file-"): value for name, value in files.items()},
        made_by=finished.makers(),
        missing=finished.plan.missing(),
    )


def scope(record: Mapping[str, Any]) -> str:
    """What a kept run has of what was planned, in a sentence for the page."""
    sweeps, planned = record["sweeps"], record["planned"]
    threads = sorted({sweep["threads"] for sweep in sweeps})
    rounds = {count: sum(sweep["threads"] == count for sweep in sweeps) for count in threads}
    done = ", ".join(f"rounds on {t} thread(s): {n}" for t, n in rounds.items())
    text = f"{len(record['models'])} of {planned['models']} models, {done}"
    wanted = planned["rounds"] * len(planned["threads"])
    if len(sweeps) < wanted or len(record["models"]) < planned["models"]:
        wide = " and ".join(map(str, planned["threads"]))
        text += f"; planned are {planned['rounds']} rounds each on {wide} threads, the rest is not measured"
    if max(rounds.values()) < 2:
        text += "; with one round a spread between rounds is not known"
    return text + "."


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


def loaded(root: Path | None = None, name: str = NAME) -> kept.Kept | None:
    """The kept run, or None where there is none."""
    return kept.find(name, root)


STUDY = study()
BACKBONES_STUDY = study(BACKBONES, 3, BACKBONES_NAME)
