"""A chosen network as a file that works without this run, with a card that says what it is."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rfdetr.arch import Arch
from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.int8_layers import within_limit
from rfdetr.benchmark.prepare import prepare, quantises
from rfdetr.benchmark.runtimes import TORCH_RUNTIMES, load_runtime
from rfdetr.data.manifests import load_manifest, manifest_names
from rfdetr.data.transforms import MEAN, STD
from rfdetr.evaluation.outcomes import best_threshold
from rfdetr.export import export_onnx
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.files import sha256_file, strict, write_atomic
from rfdetr.model.detector import RFDETR
from rfdetr.model.identity import fingerprint
from rfdetr.nas.choose import read_detections
from rfdetr.nas.run import Run
from rfdetr.nas.stages import once
from rfdetr.nas.words import counted, named
from rfdetr.nas.words import number as _number
from rfdetr.progress import progress_bar
from rfdetr.provenance import commit, machine

TOLERANCE = 1e-3
"""Largest difference between the AP of a file and of its network."""

_OURS = (".onnx", ".md", ".xml", ".bin", ".json", ".engine")
"""Endings of files in a run's `networks/`, which an earlier choice may have left there."""
# Ten lines that need numpy, Pillow and ONNX Runtime alone.
SNIPPET = """import numpy as np, onnxruntime as ort
from PIL import Image
session = ort.InferenceSession("{file}")
names = {names}
picture = Image.open("photo.jpg").convert("RGB")
x = np.asarray(picture.resize(({side}, {side}), Image.Resampling.BILINEAR), np.float32) / 255
x = ((x - np.float32({mean})) / np.float32({std})).transpose(2, 0, 1)[None]
logits, boxes = session.run(["logits", "boxes"], {{session.get_inputs()[0].name: x}})
scores = 1 / (1 + np.exp(-logits[0]))
for query, label in zip(*np.where(scores > {threshold})):
    cx, cy, w, h = boxes[0, query] * [*picture.size, *picture.size]
    print(names[label], scores[query, label], cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
"""


def card(artifact: Artifact, entry: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The model card, Markdown.

    entry  of the chosen network: arch, targets, latency_ms, val_AP by which it was chosen, tuned, and
           val and test (AP, low, high) of the weights in the file
    about  data, licence, runtime, threads, machine, commit, command, classes, threshold, metric
    """
    test, arch = entry["test"], artifact.arch
    side = arch.resolution if arch else "?"
    interval = f" [{test['low']:.3f}, {test['high']:.3f}]" if "low" in test else ""
    rows = {
        "architecture": entry["arch"],
        "chosen for": "; ".join(entry["targets"]),
        "classes": ", ".join(about["classes"]),
        "input": (
            f"1 x 3 x {side} x {side}, RGB, resized without keeping the aspect ratio, normalised (see the"
            " metadata)"
        ),
        "outputs": (
            "logits [1, queries, classes] (sigmoid gives scores), boxes [1, queries, 4] (centre x, centre y,"
            " width, height in 0..1)" + (", masks [1, queries, h, w] (logits)" if artifact.has_masks else "")
        ),
        f"{about['metric']} on test": (
            f"{_number(test['AP'])}{interval} ({test['images']} pictures, 95 % bootstrap interval)"
        ),
        f"{about['metric']} on validation": (
            f"{_number(entry['val_AP'])} (it was chosen by this number, which flatters it)"
            + (f"; {_number(entry['val']['AP'])} when trained further" if entry.get("tuned") else "")
        ),
        "latency": (
            f"{entry['latency_ms']:.3g} ms, {about['runtime']}, {about['precision']},"
            f" {counted(about['threads'], 'thread', 'threads')}, batch 1,"
            f" {'measured' if entry['timed'] else 'predicted from measured neighbours'},"
            f" on {about['machine']}"
        ),
        **(
            {
                f"{about['metric']} on test at this precision": (
                    f"{_number(entry['deployed']['AP'])}, of `{entry['deployed']['file']}`, executed in"
                    f" {entry['deployed']['precision']}, SHA-256 `{entry['deployed']['sha256']}`"
                )
            }
            if entry.get("deployed")
            else {}
        ),
        "weights": (
            "trained further after the choice" if entry.get("tuned") else "inherited from the supernet"
        ),
        "data": about["data"],
        "licence of the data": about["licence"],
        "SHA-256": f"`{artifact.sha256}`",
        "made by": f"`{about['command']}`, commit `{about['commit']}`",
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    code = SNIPPET.format(
        file=artifact.file.name,
        side=side,
        threshold=about["threshold"],
        names=json.dumps(list(about["classes"])),
        mean=MEAN,
        std=STD,
    )
    return (
        f"# {artifact.file.stem}\n\n| | |\n| --- | --- |\n{table}\n\n## Use\n\n"
        f"With this package: {_commands(artifact, entry)}\n\n"
        f"Without it:\n\n```python\n{code}```\n"
    )


def _commands(artifact: Artifact, entry: Mapping[str, Any]) -> str:
    """How the exported file predicts, and the one of the deployed precision where that is another."""
    deployed = [entry["deployed"]["file"]] if entry.get("deployed") else []
    names = dict.fromkeys([artifact.file.name, *deployed])
    return " or ".join(f"`python -m rfdetr predict {name} photo.jpg --out pictures`" for name in names)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def hand_over(run: Run, folder: Path) -> dict[str, Any]:
    """The stage: for every chosen network a file, evaluated on the test split, and its card."""
    rows = []
    with progress_bar(True, len(run.chosen), "export and evaluate", "file") as report:
        for number, entry in enumerate(run.chosen, start=1):
            rows.append(once(folder / f"{entry['arch']}.json", partial(_file, run, entry, folder)))
            report(number, len(run.chosen))
    return {"networks": rows}


def _file(run: Run, entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    test, tuned = run.data("test"), run.tuned(entry["arch"])
    model, arch, detections = run.final(entry["arch"])
    artifact = _exported(run, model, arch, folder / f"{entry['arch']}.onnx")
    checked = evaluate_artifact(artifact, test)
    numbers = checked.masks if run.options.segmentation else checked.boxes
    targets = [test[index][1] for index in range(len(test))]
    threshold, f1 = best_threshold(read_detections(detections), targets)
    row = {**entry, "tuned": tuned is not None}
    if tuned is not None:
        row |= {"test": tuned["test"], "val": tuned["val"]}
    row |= {"file": artifact.file.name, "sha256": artifact.sha256, "threshold": threshold, "f1": f1}
    row["file_AP"] = strict(numbers["AP"] if numbers else None)
    row["deployed"] = deployed(run, artifact)
    write_atomic(artifact.file.with_suffix(".md"), card(artifact, row, about(run, threshold)))
    return row


def _exported(run: Run, model: RFDETR, arch: Arch, path: Path) -> Artifact:
    """The network's file: that of its timing, which is the same to the byte, or made now."""
    source = fingerprint(model)
    for stage in ("search", "choose"):
        for made in sorted((run.folder(stage) / "onnx").glob(f"{arch.id}-*.onnx")):
            kept = load_artifact(made)
            if kept.precision == "fp32" and kept.metadata.get("source_sha256") == source:
                write_atomic(path, made.read_bytes())
                return load_artifact(path)
    return export_onnx(model, arch, path)


def differs(row: Mapping[str, Any]) -> bool:
    """Whether the file, evaluated alone, has another AP than the network that it was made of."""
    both = (row["file_AP"], row["test"]["AP"])
    return None not in both and abs(both[0] - both[1]) > TOLERANCE


def deliver(run: Run, folder: Path) -> list[Path]:
    """Copies of the files and cards of the current choice in `folder`; those of an earlier choice go."""
    made = run.folder("export")
    wanted = {name: made / name for row in run.result("export")["networks"] for name in _names(row)}
    for old in folder.glob("*") if folder.is_dir() else ():
        if old.name not in wanted and old.suffix in _OURS and old.stem.startswith("r"):
            old.unlink()
    for name, source in wanted.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256_file(source):
            write_atomic(folder / name, source.read_bytes())
    return [folder / row["file"] for row in run.result("export")["networks"]]


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    more = row["deployed"]["files"] if row.get("deployed") else []
    return row["file"], str(Path(row["file"]).with_suffix(".md")), *more


def deployed(run: Run, artifact: Artifact) -> dict[str, Any] | None:
    """The file that runs at the latencies' precision, made of an exported one and evaluated on the test split
    as it runs: file, files (with its companions), sha256, precision (as executed), AP. None for float32, and
    for PyTorch, which runs no file.
    """
    protocol, folder = run.protocol, artifact.file.parent
    precision = protocol.check()
    if precision == "fp32" or protocol.runtime in TORCH_RUNTIMES:
        return None
    if quantises(protocol.runtime, precision):
        train, val = run.data("train"), run.data("val")
        given: dict[str, Any] = {"threads": protocol.threads, "runtime": protocol.runtime}
        file = within_limit(artifact, folder, train, val, run.metric, precision, **given).file
    else:
        file = prepare(artifact, protocol.runtime, precision, folder, protocol.images, log=run.say)
    with load_runtime(protocol.runtime, file, precision, threads=protocol.threads) as runtime:
        numbers = evaluate_artifact(runtime, run.data("test")).row()
        executed = runtime.info.precision
    parts = (file.file.with_suffix(ending) for ending in (".bin", f"{file.file.suffix}.json"))
    files = [file.file.name, *(path.name for path in parts if path.is_file())]
    found = {"file": file.file.name, "files": files, "sha256": file.sha256, "precision": executed}
    return {**found, "AP": strict(numbers[run.metric])}


def about(run: Run, threshold: float) -> dict[str, Any]:
    """What a card says of the run."""
    train = run.data("train")
    return {
        "metric": named(run.metric),
        "classes": list(train.class_names),
        "threshold": threshold,
        "runtime": run.options.runtime,
        "precision": run.options.precision,
        "threads": run.options.threads,
        "machine": machine(),
        "data": f"{run.options.data} ({len(train)} training pictures)",
        "licence": licence(run.options.data),
        "command": run.command,
        "commit": commit(),
    }


def licence(data: str) -> str:
    """Of a registered dataset; for a folder that is the user's own affair."""
    return load_manifest(data).licence if data in manifest_names() else "see the owner of the data"
