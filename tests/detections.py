"""Detections of embedded scenes for the evaluation tests: perfect ones, and noisy ones."""

import numpy as np
import torch

from rfdetr.data.scenes import scenes

DATA = scenes("digits", "test", size=40)


def perfect(data):
    """Detections that are the ground truth, with masks."""
    found = []
    for i in range(len(data)):
        _, target = data[i]
        height, width = target.size
        cx, cy, w, h = (target.boxes * torch.tensor([width, height, width, height])).unbind(1)
        found.append(
            {
                "image_id": target.image_id,
                "scores": np.linspace(0.9, 0.5, len(target)),
                "labels": target.labels.numpy(),
                "boxes": torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1).numpy(),
                "masks": target.masks.numpy(),
            }
        )
    return found


def noisy(data, seed, jitter=0.12, wrong=0.25, extra=4):
    """Shifted, mislabelled and invented detections: every part of the matching is exercised."""
    rng = np.random.default_rng(seed)
    found = []
    for image in perfect(data):
        count = len(image["labels"])
        side = np.tile(image["boxes"][:, 2:] - image["boxes"][:, :2], 2)
        boxes = image["boxes"] + rng.normal(0, jitter, (count, 4)) * side
        labels = np.where(
            rng.random(count) < wrong, rng.integers(0, data.num_classes, count), image["labels"]
        )
        masks = np.array([np.roll(m, tuple(rng.integers(-2, 3, 2)), (0, 1)) for m in image["masks"]])
        low = rng.uniform(0, 60, (extra, 2))
        strange = np.concatenate([low, low + rng.uniform(5, 36, (extra, 2))], axis=1)
        found.append(
            {
                "image_id": image["image_id"],
                "scores": rng.random(count + extra).round(2),  # equal scores occur
                "labels": np.concatenate([labels, rng.integers(0, data.num_classes, extra)]),
                "boxes": np.concatenate([boxes, strange]),
                "masks": np.concatenate([masks.reshape(-1, 96, 96), rng.random((extra, 96, 96)) < 0.1]),
            }
        )
    return found
