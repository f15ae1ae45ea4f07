"""Accuracy of an exported peer and of its network, where neither weights nor labelled pictures are at hand.

Networks with random weights find nothing that is there, so the pictures are labelled by the network itself:
of what it finds some are kept, moved a little, as if a person had drawn them. Its AP on these labels is a
number between 0 and 1 that depends on every score and box; the exported file must reach the same.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfdetr.data.categories import CategoryMap
from rfdetr.data.dataset import DetectionDataset, Target, digest
from rfdetr.data.transforms import MEAN, STD
from rfdetr.model.outputs import Output, Prediction
from rfdetr.peers.detectors import Detector, outputs
from rfdetr.peers.liveliness import picture
from rfdetr.peers.yolo import LOWEST

LABELS = 12
"""Objects per picture, of the best detections every other one."""
_MOVED = 0.04
"""Standard deviation of a corner's displacement, of the box's side."""


class Eager(nn.Module):
    """A deployed peer that `rfdetr.evaluate` takes: images [B, 3, S, S] -> `Output`."""

    def __init__(self, network: Detector, nms: str, side: int, categories: CategoryMap) -> None:
        super().__init__()
        self.network, self.nms, self.resolution, self.categories = network, nms, side, categories
        self.num_classes = categories.num_classes

    def forward(self, images: Tensor) -> Output:
        """Picture by picture, as a file of batch 1 runs."""
        found = [outputs(self.network, images[i : i + 1], self.nms) for i in range(len(images))]
        logits, boxes = (
            torch.cat([torch.from_numpy(each[name]) for each in found]) for name in ("logits", "boxes")
        )
        return Output(encoder=Prediction(logits.float(), boxes.float()), projector=torch.empty(0))


class StandIn(DetectionDataset):
    """Pictures of noise with boxes that `model` found in them."""

    def __init__(self, model: Eager, count: int, seed: int = 0) -> None:
        self.name, self.split, self.flip = "stand-in", "test", 0.0
        self.category_ids = model.categories
        side, random = model.resolution, np.random.default_rng(seed)
        scale, shift = (torch.tensor(values).view(1, 3, 1, 1) for values in (STD, MEAN))
        known = torch.tensor(self.category_ids.indexes)
        self.pictures: list[np.ndarray] = []
        self.targets: list[Target] = []
        for index in range(count):
            values = (picture((side, side), 100 + seed + index) * scale + shift).clamp(0, 1)
            pixels = (255 * values[0]).round().permute(1, 2, 0).to(torch.uint8)
            images = (pixels.permute(2, 0, 1)[None] / 255 - shift) / scale
            found = model(images)
            scores, labels = found.logits[0][:, known].max(-1)
            labels = known[labels]
            best = scores.topk(min(2 * LABELS, len(scores))).indices[::2]
            half = found.boxes[0, best, 2:] / 2
            corners = torch.cat([found.boxes[0, best, :2] - half, found.boxes[0, best, :2] + half], 1)
            moved = torch.from_numpy(random.normal(0, _MOVED, corners.shape).astype(np.float32))
            corners = (corners + moved * torch.cat([2 * half, 2 * half], 1)).clamp(0, 1)
            boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
            # Rows that suppression has not filled are no detections.
            there = (boxes[:, 2:] > 2 / side).all(1) & (scores[best] > LOWEST / 2)
            self.pictures.append(pixels.numpy())
            self.targets.append(Target(labels[best][there], boxes[there], None, index + 1, (side, side)))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """Picture uint8 [S, S, 3] and its target without masks."""
        return self.pictures[index], self.targets[index]

    @property
    def coco(self) -> dict[str, Any]:
        """Ground truth of all pictures."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for target in self.targets:
            height, width = target.size
            images.append(
                {
                    "id": target.image_id,
                    "file_name": f"{target.image_id}.png",
                    "width": width,
                    "height": height,
                }
            )
            for label, box in zip(target.labels.tolist(), target.boxes.tolist(), strict=True):
                x, y, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": target.image_id,
                        "category_id": self.category_ids.id_of(label),
                        "bbox": [x - w / 2, y - h / 2, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
        return {"images": images, "annotations": annotations, "categories": self.category_ids.to_coco()}

    @property
    def fingerprint(self) -> str:
        """Digest of the boxes, which depend on the network."""
        return digest(*(float(target.boxes.sum()) for target in self.targets), len(self))

    @property
    def has_masks(self) -> bool:
        """Never."""
        return False
