"""Detecting on pictures: preprocessing as published, one forward pass per batch, boxes in pixels.

Anything that maps network inputs to an `Output` can detect: a network with an architecture, a sub-network, an
exported file in a runtime. They pass themselves as `run`; nothing here knows what they are.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor, nn

from rfdetr.arch import Arch
from rfdetr.data.categories import CategoryMap
from rfdetr.data.images import iterate_images, read_image
from rfdetr.data.transforms import preprocess_batch
from rfdetr.errors import UserError
from rfdetr.model.detections import Detections
from rfdetr.model.modes import evaluating
from rfdetr.model.outputs import Output
from rfdetr.model.postprocess import postprocess

Run = Callable[[Tensor], Output]
Unreadable = Callable[[str, UserError], None]


@dataclass(frozen=True)
class Options:
    """How pictures are predicted.

    threshold       least score, 0..1
    batch_size      pictures per forward pass
    max_detections  per picture; default: the number of queries
    keep_images     keep every picture in its detections, for `Detections.plot`
    unreadable      called with the name of a picture that cannot be read and the error; the others go on.
                    Default: the error is raised before that picture's batch runs
    """

    threshold: float = 0.5
    batch_size: int = 8
    max_detections: int | None = None
    keep_images: bool = True
    unreadable: Unreadable | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold must be in 0..1, not {self.threshold}")
        for name in ("batch_size", "max_detections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")


def detect(
    run: Run, resolution: int, images: Any, options: Options, categories: CategoryMap | None
) -> Iterator[Detections]:
    """Detections of one picture after the other, in the given order; a batch of pictures is in memory at a
    time.

    run         network inputs [B, 3, R, R] float32 on the CPU -> `Output`, R = resolution
    images      one picture or an iterable of them, of any sizes: paths, Pillow images, arrays, tensors (see
                `rfdetr.data.images.read_image`)
    categories  of the network; detections of a class index that stands for nothing are left out

    Raises UserError naming a picture that is missing or unreadable, unless `options.unreadable` takes it.
    """
    for sources, pictures in _batches(images, options):
        output = run(preprocess_batch(pictures, resolution))
        sizes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
        # Only what passes the threshold is resized to full-size masks.
        passing = (output.logits.float().sigmoid() >= options.threshold).flatten(1).sum(1).max()
        most = min(int(passing), options.max_detections or output.logits.shape[1])
        found = postprocess(output, sizes, max(most, 1))
        for source, picture, size, result in zip(sources, pictures, sizes, found, strict=True):
            detections = _detections(result, size, options.threshold, categories)
            detections.source = source
            detections.image = picture if options.keep_images else None
            yield detections


def network_run(network: nn.Module, arch: Arch) -> Run:
    """`run` of a network at one architecture: on the network's own device, in evaluation mode, every module's
    mode restored.
    """

    def run(images: Tensor) -> Output:
        weight = next(network.parameters())
        with evaluating(network):
            return network(images.to(weight.device, weight.dtype), arch, every_layer=False)

    return run


def only(found: list[Detections]) -> Detections:
    """The detections of the one picture that was given; UserError when there was another number."""
    if len(found) != 1:
        raise UserError(f"{len(found)} pictures were given, not one: use predict for several")
    return found[0]


def _detections(
    result: dict[str, Any], size: tuple[int, int], threshold: float, categories: CategoryMap | None
) -> Detections:
    labels = result["labels"].cpu().numpy().astype(np.int64)
    keep = (result["scores"] >= threshold).cpu().numpy()
    if categories is not None:
        keep &= np.array([name is not None for name in categories.class_names], dtype=bool)[labels]
    height, width = size
    boxes = result["boxes"].cpu().numpy()[keep].astype(np.float32)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    masks = None if result["masks"] is None else result["masks"].cpu().numpy()[keep]
    scores = result["scores"].cpu().numpy()[keep].astype(np.float32)
    return Detections(boxes, scores, labels[keep], size, masks, categories)


def _batches(images: Any, options: Options) -> Iterator[tuple[list[str | None], list[np.ndarray]]]:
    """Pictures that can be read with their paths (None for those that are no files), a batch at a time."""
    sources = iterate_images(images)
    while batch := list(islice(sources, options.batch_size)):
        names: list[str | None] = []
        pictures = []
        for source in batch:
            name = os.fspath(source) if isinstance(source, str | os.PathLike) else None
            try:
                pictures.append(read_image(source))
            except UserError as error:
                if options.unreadable is None:
                    raise
                options.unreadable(name or type(source).__name__, error)
                continue
            names.append(name)
        if pictures:
            yield names, pictures
