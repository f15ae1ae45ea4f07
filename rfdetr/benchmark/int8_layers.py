"""Which parts of a network lose most under INT8, and files that keep those in floating point.

A part is a group of products (matrix products and convolutions) by the module that they belong to. How much a
part loses is seen without labels: with it alone in floating point, how much of the outputs' error goes.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.benchmark.accuracy import evaluate_artifact
from rfdetr.benchmark.inputs import Feed, image_inputs
from rfdetr.benchmark.prepare import int8_path, quantiser
from rfdetr.benchmark.runtimes import load_runtime
from rfdetr.export.artifact import Artifact
from rfdetr.export.int8 import CALIBRATION_IMAGES

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset

MAX_LOSS = 0.005
"""AP that INT8 may cost before parts of a network stay in floating point."""
RANKING_IMAGES, PROBES = 32, 20
"""Images that the ranges come from while parts are ranked, and on which the outputs' error is taken."""


@dataclass(frozen=True)
class Ranking:
    """int8: the outputs' error with every part in INT8. parts: (name, nodes, error with this part alone in
    floating point), the one that loses most, and so leaves the least error, first.
    """

    int8: float
    parts: tuple[tuple[str, tuple[str, ...], float], ...]


@dataclass(frozen=True)
class Selection:
    """file: quantised, with the parts `kept` in floating point. expected: accuracy in float32. tries: (number
    of parts in floating point, accuracy), in the order in which they were made. reached: the loss is within
    the limit.
    """

    file: Artifact
    kept: tuple[str, ...]
    expected: float
    tries: tuple[tuple[int, float], ...]
    reached: bool


def parts_of(artifact: Artifact) -> dict[str, list[str]]:
    """Part of the network -> names of its products in the file."""
    import onnx

    graph = onnx.load(artifact.file, load_external_data=False).graph
    found: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            found.setdefault(part_of(node.name), []).append(node.name)
    return found


def part_of(name: str) -> str:
    """The part that a node belongs to, from the module in its name."""
    module = name.partition("/")[0].split(".")
    if module[0] == "backbone":
        if len(module) < 3:
            return "embedding"
        return f"block {int(module[2]) + 1}: {'attention' if 'attention' in module else 'MLP'}"
    if module[0] == "decoder" and len(module) > 2 and module[2].isdigit():
        return f"decoder layer {int(module[2]) + 1}"
    return {"class_head": "heads", "box_head": "heads"}.get(module[0], module[0])


def output_error(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> float:
    """Root mean square difference over all outputs; logits as probabilities.

    Queries are paired by rank; one that changes rank counts with its whole difference, as it does for a user
    who takes the best.
    """
    squares = [
        np.square(_plain(name, a[name]) - _plain(name, b[name])).mean()
        for a, b in zip(found, expected, strict=True)
        for name in ("logits", "boxes")
    ]
    return float(np.sqrt(np.mean(squares)))


def _plain(name: str, value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value)) if name == "logits" else value


def rank_parts(
    artifact: Artifact,
    feeds: Sequence[Feed],
    probes: Sequence[Feed],
    folder: Path,
    only: Sequence[str] = (),
    runtime: str = "openvino",
) -> Ranking:
    """Quantise a float32 ONNX file once as a whole and once for each part (one quantisation each).

    feeds   what the ranges come from;  probes: on which the outputs' error is taken
    folder  of the files that this makes and leaves behind
    only    names of parts; default: all
    """
    quantise, _ = quantiser(runtime)
    with load_runtime(runtime, artifact, "fp32") as loaded:
        expected = [loaded.run(feed) for feed in probes]

    def error(keep: Sequence[str]) -> float:
        file = quantise(artifact, int8_path(artifact, folder, runtime), feeds, keep=keep)
        with load_runtime(runtime, file, "int8") as loaded:
            return output_error([loaded.run(feed) for feed in probes], expected)

    groups = {name: nodes for name, nodes in parts_of(artifact).items() if not only or name in only}
    rows = [(name, tuple(nodes), error(nodes)) for name, nodes in groups.items()]
    return Ranking(error([]), tuple(sorted(rows, key=lambda row: row[2])))


def select_parts(
    artifact: Artifact,
    rank: Callable[[], Ranking],
    make_file: Callable[[Sequence[str], dict[str, str]], Artifact],
    accuracy: Callable[[Artifact, str], float],
    precision: str = "int8",
    limit: float = MAX_LOSS,
) -> Selection:
    """Keep the parts that lose most in floating point until the accuracy is within `limit` of float32's.

    rank       called only when all in INT8 loses more
    make_file  (nodes that stay in floating point, metadata) -> INT8 file
    accuracy   (file, precision) -> accuracy of the file as it runs

    One part, then two, four, ...: so few files are made, and at most twice as many parts stay in floating
    point as have to. When even all but one do not suffice, the best file is taken, and `reached` is False.
    """
    expected = accuracy(artifact, "fp32")
    order: list[tuple[str, tuple[str, ...], float]] = []

    def make(count: int) -> Artifact:
        keep = [node for _, nodes, _ in order[:count] for node in nodes]
        return make_file(keep, {"parts_kept": ", ".join(name for name, _, _ in order[:count])})

    file = make(0)
    tries = [(0, accuracy(file, precision))]
    if expected - tries[0][1] > limit:
        order += rank().parts
    while expected - tries[-1][1] > limit and tries[-1][0] < len(order) - 1:
        count = min(max(1, 2 * tries[-1][0]), len(order) - 1)
        file = make(count)
        tries.append((count, accuracy(file, precision)))
    count, found = tries[-1]
    reached = expected - found <= limit
    if not reached:
        count, _ = max(tries, key=lambda row: row[1])
        file = make(count) if count != tries[-1][0] else file
    kept = tuple(name for name, _, _ in order[:count])
    return Selection(file, kept, expected, tuple(tries), reached)


def within_limit(
    artifact: Artifact,
    folder: Path,
    images: "DetectionDataset",
    dataset: "DetectionDataset",
    metric: str = "AP",
    precision: str = "int8",
    limit: float = MAX_LOSS,
    threads: int = 1,
    runtime: str = "openvino",
) -> Selection:
    """An INT8 file that loses at most `limit` (`select_parts`), in place of `prepare`'s in `folder`.

    images of the data: `images` (of the training split) for ranges and ranking, `dataset` for the accuracy.
    """
    spec = artifact.inputs[0]
    side = int(spec.sized()[-1])
    feeds = image_inputs(images, side, CALIBRATION_IMAGES, name=spec.name)
    path, (quantise, _) = int8_path(artifact, folder, runtime), quantiser(runtime)

    def make_file(keep: Sequence[str], about: dict[str, str]) -> Artifact:
        about = {**about, "data": images.fingerprint}
        return quantise(artifact, path, feeds, keep=keep, metadata=about)

    def accuracy(file: Artifact, asked: str) -> float:
        with load_runtime(runtime, file, asked, threads=threads) as loaded:
            return evaluate_artifact(loaded, dataset).row()[metric]

    def rank() -> Ranking:
        few = image_inputs(images, side, RANKING_IMAGES, name=spec.name)
        with tempfile.TemporaryDirectory() as scratch:
            return rank_parts(artifact, few, few[:PROBES], Path(scratch), runtime=runtime)

    return select_parts(artifact, rank, make_file, accuracy, precision, limit)
