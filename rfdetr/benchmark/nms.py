"""Non-maximum suppression inside the timed pass, for detectors that need it.

A latency without it is not what a user of such a detector waits for (Section 4: end-to-end latency).
"""

from dataclasses import replace
from typing import Any, Self

import numpy as np

from rfdetr.benchmark.runtimes.base import Arrays, Runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact


def nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou: float = 0.7) -> np.ndarray:
    """Indexes of the kept boxes, best first; boxes of different classes do not suppress each other.

    boxes [N, 4] left, top, right, bottom; scores [N]; labels [N] class indexes.
    """
    if not len(boxes):
        return np.empty(0, dtype=int)
    # Classes are moved apart so that one pass serves all; float64, since float32 would round moved boxes.
    boxes = boxes.astype(np.float64)
    moved = boxes + labels[:, None] * (boxes.max() - boxes.min() + 1)
    area = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(moved[best, :2], moved[rest, :2])
        high = np.minimum(moved[best, 2:], moved[rest, 2:])
        overlap = np.clip(high - low, 0, None).prod(axis=1)
        union = area[best] + area[rest] - overlap
        order = rest[overlap <= iou * union]
    return np.array(kept)


class WithNms(Runtime):
    """A runtime whose pass ends with NMS on the host, for graphs with one output [B, 4 + K, N] of cxcywh and
    scores.

    The pass then includes the copy to the host and is timed by the host's clock.
    """

    def __init__(
        self,
        inner: Runtime,
        iou: float = 0.7,
        threshold: float = 0.001,
        most: int = 300,
        candidates: int = 30000,
    ) -> None:
        outputs = inner.artifact.outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 3:
            raise UserError(
                "NMS is applied to graphs with one output [B, 4 + classes, boxes], not to"
                f" {inner.artifact.name}"
            )
        self._inner, self._options = inner, (iou, threshold, most, candidates)
        self.artifact = inner.artifact
        self.info = replace(inner.info, details={**inner.info.details, "includes": ("nms",)})
        self._found: dict[str, np.ndarray] = {}

    @classmethod
    def load(cls, artifact: Artifact, **options: Any) -> Self:
        """Wrap a loaded runtime instead."""
        raise UserError("load the artifact in a runtime and wrap that: WithNms(runtime)")

    @property
    def has_copies(self) -> bool:
        """As the wrapped runtime."""
        return self._inner.has_copies

    def bind(self, inputs: Arrays) -> None:
        """Copy the inputs to the device."""
        self._inner.bind(inputs)

    def infer(self) -> None:
        """Network, copy to the host, NMS of every image."""
        self._inner.infer()
        (raw,) = self._inner.fetch().values()
        iou, threshold, most, candidates = self._options
        images = []
        for image in raw:
            scores, labels = image[4:].max(axis=0), image[4:].argmax(axis=0)
            index = np.flatnonzero(scores > threshold)
            index = index[np.argsort(-scores[index], kind="stable")[:candidates]]
            centre, half = image[:2, index].T, image[2:4, index].T / 2
            boxes = np.concatenate([centre - half, centre + half], axis=1)
            kept = nms(boxes, scores[index], labels[index], iou)[:most]
            images.append(np.column_stack([boxes[kept], scores[index][kept], labels[index][kept]]))
        count = max(len(i) for i in images)
        padded = np.full((len(images), count, 6), np.nan, dtype=np.float32)
        for row, found in zip(padded, images, strict=True):
            row[: len(found)] = found
        self._found = {"detections": padded}

    def fetch(self) -> dict[str, np.ndarray]:
        """`detections` [B, N, 6]: left, top, right, bottom, score, class; NaN rows fill up."""
        return self._found

    def close(self) -> None:
        """Close the wrapped runtime."""
        self._inner.close()
