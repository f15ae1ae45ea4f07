"""Detecting on pictures: preprocessing as published, one forward pass per batch, boxes in pixels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rfdetr.arch import Arch
from rfdetr.data.categories import CategoryMap
from rfdetr.data.images import iterate_images, read_image
from rfdetr.errors import UserError
from rfdetr.model.detections import Detections
from rfdetr.model.postprocess import postprocess

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

__all__ = ["Detections", "predict"]


def predict(
    model: "RFDETR",
    images: Any,
    arch: Arch | None = None,
    threshold: float = 0.5,
    *,
    batch_size: int = 8,
    max_detections: int | None = None,
    keep_images: bool = True,
) -> list[Detections]:
    """Detections of every picture, in the given order.

    images          one picture or an iterable of them, of any sizes: paths, Pillow images, arrays, tensors
                    (see `read_image`)
    arch            the sub-network; None takes the default one
    threshold       least score, 0..1
    batch_size      pictures per forward pass
    max_detections  per picture; default: the number of queries
    keep_images     keep every picture in its detections, for `Detections.plot`

    Pictures are resized to the square that the architecture wants (`rfdetr.data.transforms`). The network
    runs on its own device in evaluation mode; the mode of every module is restored. Raises UserError naming a
    picture that is missing or unreadable, before that picture's batch runs.
    """
    from rfdetr.data.transforms import preprocess_batch

    if not 0 <= threshold <= 1:
        raise UserError(f"threshold must be in 0..1, not {threshold}")
    if max_detections is not None and max_detections < 1:
        raise UserError(f"max_detections must be at least 1, not {max_detections}")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    arch = model.resolve(arch)
    weight = next(model.parameters())
    results: list[Detections] = []
    with _evaluating(model), torch.inference_mode():
        for sources, pictures in _batches(images, batch_size):
            batch = preprocess_batch(pictures, arch.resolution).to(weight.device, weight.dtype)
            output = model(batch, arch, every_layer=False)
            sizes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
            # Only what passes the threshold is resized to full-size masks.
            passing = (output.logits.float().sigmoid() >= threshold).flatten(1).sum(1).max()
            most = min(int(passing), max_detections or arch.queries)
            found = postprocess(output, sizes, max(most, 1))
            for source, picture, size, result in zip(sources, pictures, sizes, found, strict=True):
                detections = _detections(result, size, threshold, model.config.categories)
                detections.source = source
                detections.image = picture if keep_images else None
                results.append(detections)
    return results


def _detections(
    result: dict[str, Any], size: tuple[int, int], threshold: float, categories: CategoryMap | None
) -> Detections:
    keep = result["scores"] >= threshold
    height, width = size
    boxes = result["boxes"][keep].cpu().numpy().astype(np.float32)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    masks = None if result["masks"] is None else result["masks"][keep].cpu().numpy()
    scores, labels = (result[key][keep].cpu().numpy() for key in ("scores", "labels"))
    return Detections(boxes, scores.astype(np.float32), labels.astype(np.int64), size, masks, categories)


def _batches(images: Any, batch_size: int) -> Iterator[tuple[list[str | None], list[np.ndarray]]]:
    sources = iterate_images(images)
    while batch := list(islice(sources, batch_size)):
        names = [str(s) if isinstance(s, str | os.PathLike) else None for s in batch]
        yield names, [read_image(source) for source in batch]


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
