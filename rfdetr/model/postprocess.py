"""From a network's output to detections in pixels.

Source: Section 3: the best (query, class) pairs are the detections, without non-maximum suppression.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.model.outputs import Output, Prediction


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] centre x, centre y, width, height -> left, top, right, bottom; same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def select(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best (query, class) pairs: scores, query indexes and class indexes, each [B, N], best
    first.

    logits: [B, Q, K]. A query may appear with several classes; N is at most Q * K.
    """
    scores, pairs = logits.float().sigmoid().flatten(1).topk(min(count, logits[0].numel()), dim=1)
    return scores, pairs // logits.shape[2], pairs % logits.shape[2]


def finite(logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [..., Q, K] and boxes [..., Q, 4] in which queries with an output that is not finite find
    nothing.

    Such a query gets score 0 and an empty box. An evaluator compares overlaps with thresholds, and a NaN that
    is "not below" a threshold would count as a hit.
    """
    broken = ~(logits.isfinite().all(-1) & boxes.isfinite().all(-1))[..., None]
    return logits.masked_fill(broken, -1e4), boxes.masked_fill(broken, 0.0)


@torch.no_grad()
def postprocess(
    output: Output | Prediction, sizes: Sequence[tuple[int, int]], top_k: int | None = None
) -> list[dict[str, Tensor | None]]:
    """Detections of each image, best first.

    output   of a network in evaluation mode (B images), or one of its layers' predictions
    sizes    (height, width) in px of each original image
    top_k    number of detections to keep; default: the number of queries

    Returns one dict per image: scores [N] in 0..1, labels [N] class indexes, boxes [N, 4] left, top, right,
    bottom in px of the original image (not clipped), masks [N, height, width] bool or None.
    """
    prediction = output.last if isinstance(output, Output) else output
    if len(sizes) != prediction.logits.shape[0]:
        raise ValueError(f"{len(sizes)} image sizes for a batch of {prediction.logits.shape[0]}")
    logits, centred = finite(prediction.logits, prediction.boxes)
    scores, queries, labels = select(logits, top_k or logits.shape[1])
    scale = torch.tensor([[w, h, w, h] for h, w in sizes], device=scores.device, dtype=torch.float32)
    boxes = cxcywh_to_xyxy(centred.float().gather(1, queries[..., None].expand(-1, -1, 4))) * scale[:, None]
    results: list[dict[str, Tensor | None]] = []
    for i, size in enumerate(sizes):
        results.append(
            {
                "scores": scores[i],
                "labels": labels[i],
                "boxes": boxes[i],
                "masks": _masks(prediction, i, queries[i], size),
            }
        )
    return results


def _masks(prediction: Prediction, image: int, queries: Tensor, size: tuple[int, int]) -> Tensor | None:
    if prediction.mask_features is None or prediction.mask_queries is None or prediction.mask_bias is None:
        return None
    # A query selected for two classes has one mask: compute it once.
    unique, inverse = queries.unique(return_inverse=True)
    logits = torch.einsum(
        "qc,chw->qhw", prediction.mask_queries[image, unique], prediction.mask_features[image]
    )
    logits = (logits + prediction.mask_bias).float()[:, None]
    return (F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0)[inverse]
