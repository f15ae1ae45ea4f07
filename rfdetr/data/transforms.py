"""From a picture to the network's input: one `preprocess` for training, evaluation, prediction and exported
graphs.

The picture is resized to a square, without padding and whatever its aspect ratio (bilinear, antialiased),
scaled to 0..1 and normalised with ImageNet's mean and deviation. Boxes are relative to the picture, so they
need no resizing. Augmentation is horizontal flip and random crop only (paper, Appendix A).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.data.dataset import DetectionDataset, Target

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

CROP_PROBABILITY = 0.5
CROP_SCALE = (0.6, 1.0)  # side of the crop relative to the picture's, height and width drawn apart
MIN_REMAINING = 0.3  # an object that keeps less of its box (or mask) than this is no object of the crop
MIN_SIDE = 2.0  # px; and so is one thinner than this


def preprocess(image: np.ndarray, resolution: int) -> Tensor:
    """Network input FloatTensor [3, R, R] of a picture uint8 [H, W, 3] RGB.

    Raises ValueError when the array is no such picture.
    """
    return preprocess_batch([image], resolution)[0]


def preprocess_batch(images: Sequence[np.ndarray], resolution: int) -> Tensor:
    """`preprocess` of several pictures, FloatTensor [B, 3, R, R]; pictures of one size are resized
    together.
    """
    out = torch.empty(len(images), 3, resolution, resolution)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"a picture must be uint8 [H, W, 3] RGB, got {image.dtype} {list(image.shape)}: "
                'convert it, for example with np.asarray(pil_image.convert("RGB"))'
            )
        by_size.setdefault(image.shape, []).append(position)
    for shape, positions in by_size.items():
        stack = torch.from_numpy(np.stack([images[i] for i in positions])).permute(0, 3, 1, 2)
        pixels = stack.contiguous().float()
        if shape[:2] != (resolution, resolution):
            pixels = F.interpolate(
                pixels, size=(resolution, resolution), mode="bilinear", align_corners=False, antialias=True
            )
        out[positions] = pixels
    return normalize(out.div_(255))


def normalize(pixels: Tensor) -> Tensor:
    """ImageNet normalisation of RGB values in 0..1, [..., 3, H, W]."""
    return (pixels - pixels.new_tensor(MEAN)[:, None, None]) / pixels.new_tensor(STD)[:, None, None]


def denormalize(pixels: Tensor) -> Tensor:
    """Inverse of `normalize`: RGB values in 0..1, for showing what the network saw."""
    return pixels * pixels.new_tensor(STD)[:, None, None] + pixels.new_tensor(MEAN)[:, None, None]


def augment(
    image: np.ndarray,
    target: Target,
    rng: np.random.Generator,
    flip: float = 0.5,
    crop: float = CROP_PROBABILITY,
) -> tuple[np.ndarray, Target]:
    """Horizontal flip with probability `flip`, then a random crop with probability `crop`.

    Draws the same number of random values whatever happens, so that a stream stays aligned. `target.size`
    remains the size of the original image.
    """
    chance_flip, chance_crop, high, wide, top, left = rng.random(6)
    if chance_flip < flip:
        image, target = hflip(image, target)
    if chance_crop < crop:
        height, width = image.shape[:2]
        low, span = CROP_SCALE[0], CROP_SCALE[1] - CROP_SCALE[0]
        crop_height = max(1, round(height * (low + span * high)))
        crop_width = max(1, round(width * (low + span * wide)))
        y, x = int(top * (height - crop_height + 1)), int(left * (width - crop_width + 1))
        image, target = crop_to(image, target, y, x, crop_height, crop_width)
    return image, target


def hflip(image: np.ndarray, target: Target) -> tuple[np.ndarray, Target]:
    """Mirror a picture and its objects left to right."""
    boxes = target.boxes.clone()
    boxes[:, 0] = 1 - boxes[:, 0]
    masks = None if target.masks is None else target.masks.flip(-1)
    return np.ascontiguousarray(image[:, ::-1]), replace(target, boxes=boxes, masks=masks)


def crop_to(
    image: np.ndarray, target: Target, y: int, x: int, height: int, width: int
) -> tuple[np.ndarray, Target]:
    """Cut `height` x `width` pixels at (y, x) out of a picture.

    Boxes are clipped; where the cut goes through an object with a mask its box is taken anew from what is
    left of the mask. Objects that keep too little (`MIN_REMAINING` of their area, `MIN_SIDE` pixels) are
    dropped.
    """
    full_height, full_width = image.shape[:2]
    image = np.ascontiguousarray(image[y : y + height, x : x + width])
    if not len(target):
        masks = None if target.masks is None else target.masks[:, y : y + height, x : x + width]
        return image, replace(target, masks=masks)
    size = target.boxes.new_tensor([full_width, full_height])
    centre, half = target.boxes[:, :2] * size, target.boxes[:, 2:] * size / 2
    shift = target.boxes.new_tensor([x, y])
    limit = target.boxes.new_tensor([width, height])
    before = torch.cat([centre - half, centre + half], dim=1) - torch.cat([shift, shift])
    after = torch.cat([before[:, :2].clamp(min=0), torch.minimum(before[:, 2:], limit)], dim=1)
    cut = (after - before).abs().amax(1) > 1e-3
    extent = (after[:, 2:] - after[:, :2]).clamp(min=0)
    remaining = extent.prod(1) / (4 * half.prod(1)).clamp(min=1e-9)
    masks = target.masks
    if masks is not None:
        pixels = _areas(masks).clamp(min=1)
        masks = masks[:, y : y + height, x : x + width]
        remaining = torch.where(cut, _areas(masks) / pixels, remaining)
        for k in torch.nonzero(cut & (remaining > 0)).flatten().tolist():
            rows, columns = masks[k].any(1).nonzero().flatten(), masks[k].any(0).nonzero().flatten()
            after[k] = after.new_tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        extent = (after[:, 2:] - after[:, :2]).clamp(min=0)
    # An object that the cut leaves whole stays, however small it is.
    kept = ~cut | ((remaining >= MIN_REMAINING) & (extent.amin(1) >= MIN_SIDE))
    boxes = torch.cat([(after[:, :2] + after[:, 2:]) / 2, extent], dim=1) / torch.cat([limit, limit])
    return image, replace(
        target,
        labels=target.labels[kept],
        boxes=boxes[kept],
        masks=None if masks is None else masks[kept],
    )


def _areas(masks: Tensor) -> Tensor:
    """Pixels of each mask, bool [M, h, w] -> [M]. NumPy counts truth values a hundred times faster than a sum
    of torch, which was two thirds of the time of preparing pictures with many objects.
    """
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.long)


def collate(
    dataset: DetectionDataset, indexes: Sequence[int], resolution: int, rng: np.random.Generator | None = None
) -> tuple[Tensor, list[Target]]:
    """A batch: images FloatTensor [B, 3, R, R] and B targets.

    With `rng` every picture is augmented (flipped with the dataset's own probability `dataset.flip`); without
    it the batch is exactly what evaluation sees. Masks keep the size of the (cropped) picture.
    """
    pairs = [dataset[int(i)] for i in indexes]
    if rng is not None:
        pairs = [augment(image, target, rng, flip=dataset.flip) for image, target in pairs]
    return preprocess_batch([image for image, _ in pairs], resolution), [target for _, target in pairs]
