"""Inputs for graphs: noise where only time matters, images of a dataset where values do."""

from typing import TYPE_CHECKING

import numpy as np

from rfdetr.data.transforms import preprocess_batch
from rfdetr.export.artifact import Artifact

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset

Feed = dict[str, np.ndarray]


def random_inputs(artifact: Artifact, batch: int | None = None, seed: int = 0) -> Feed:
    """Standard normal inputs of the artifact's shapes: to the arithmetic they look like normalised images.

    batch: of an artifact whose batch is open (1 if None).
    """
    random = np.random.default_rng(seed)
    return {s.name: random.standard_normal(s.sized(batch or 1)).astype(s.dtype) for s in artifact.inputs}


def image_inputs(
    dataset: "DetectionDataset", resolution: int, count: int = 8, batch: int = 1, name: str = "images"
) -> list[Feed]:
    """`count` inputs of a graph, each of `batch` images, from places spread evenly over a dataset; noise
    does not reach the ranges that images do.
    """
    count = max(1, min(count, len(dataset) // batch))
    starts = np.linspace(0, max(0, len(dataset) - batch), count).astype(int).tolist()
    feeds = []
    for first in starts:
        images = [dataset[(first + i) % len(dataset)][0] for i in range(batch)]
        feeds.append({name: preprocess_batch(images, resolution).numpy()})
    return feeds
