"""Whether an exported peer finds what its network finds."""

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from rfdetr.export.artifact import Artifact
from rfdetr.export.onnx import ExportError, cpu_session
from rfdetr.peers.detectors import Detector, outputs
from rfdetr.peers.liveliness import picture

TOLERANCE = 1e-3
"""Of FP32 outputs against eager ones: scores as probabilities, boxes in 0..1, mask logits over their
largest."""


def compare(
    artifact: Artifact,
    network: Detector,
    nms: str = "deployed",
    tolerance: float = TOLERANCE,
    pictures: Callable[[int], Tensor] | None = None,
) -> float:
    """Largest difference between a file in ONNX Runtime and the network: of scores, boxes, and mask logits
    over their largest value.

    pictures: seed -> a picture; default: noise. The order of the detections is no part of what is found.
    Where two tokens score alike, rounding decides which is selected, and where queries have ranks (LW-DETR)
    what they become: so up to four pictures are tried, and the best counts. A wrong graph is wrong for all.
    Raises ExportError above `tolerance`.
    """
    session = cpu_session(artifact.file)
    make = pictures or (lambda seed: picture(_side(artifact), seed))
    best = float("inf")
    for seed in range(4):
        images = make(seed)
        expected = outputs(network, images, nms)
        names = [o.name for o in artifact.outputs if o.name in expected]
        found = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
        best = min(best, difference(found, expected))
        if best <= tolerance:
            return best
    raise ExportError(
        f"the exported {artifact.name} differs from the network by {best:.2g} ({tolerance:.2g})"
    )


def _side(artifact: Artifact) -> tuple[int, int]:
    height, width = artifact.inputs[0].sized()[-2:]
    return height, width


def difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Largest difference of what two runs found in one picture, whatever its order: detections are paired so
    that they differ least.
    """
    pairs = [(_plain(name, found[name])[0], _plain(name, expected[name])[0]) for name in found]
    direct = max(float(np.abs(a - b).max()) for a, b in pairs)
    if direct <= TOLERANCE:
        return direct
    from scipy.optimize import linear_sum_assignment

    short = [pair for pair in pairs if pair[0].ndim == 2]
    far = np.max([np.abs(a[:, None] - b[None]).max(-1) for a, b in short], axis=0)
    rows, columns = linear_sum_assignment(np.minimum(far, 1.0))
    return max(float(np.abs(a[rows] - b[columns]).max()) for a, b in pairs)


def _plain(name: str, value: np.ndarray) -> np.ndarray:
    """Logits as probabilities: a class that a box does not have is one of the largest negative numbers. Mask
    logits over their largest.
    """
    if name == "logits":
        return 1 / (1 + np.exp(-np.clip(value, -80, 80)))
    return value / max(1.0, float(np.abs(value).max())) if name == "masks" else value
