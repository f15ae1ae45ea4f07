"""Dropping queries and decoder layers at inference, and what non-maximum suppression would add.

Source: Appendix B and Figure 4 of the paper.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.nms import nms
from rfdetr.data.dataset import DetectionDataset
from rfdetr.search.grid import evaluate_grid

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


def drop_space(arch: Arch, depths: tuple[int, ...], queries: tuple[int, ...]) -> SearchSpace:
    """One encoder setting with every decoder depth and query count."""
    return SearchSpace((arch.resolution,), (arch.patch_size,), (arch.windows,), depths, queries)


def drop_table(
    model: "RFDETR", dataset: DetectionDataset, space: SearchSpace, latency: "pd.DataFrame | None" = None
) -> "pd.DataFrame":
    """AP, GFLOPs and, where `latency` has it, latency_ms of every (decoder layers, queries) of one encoder
    setting.
    """
    table = evaluate_grid(model, dataset, space, gflops=True)[[*Arch.KNOBS, "AP", "AP50", "gflops"]]
    return (
        table
        if latency is None
        else table.merge(latency[[*Arch.KNOBS, "latency_ms"]], on=list(Arch.KNOBS), how="left")
    )


def nms_table(
    model: "RFDETR",
    dataset: DetectionDataset,
    archs: dict[str, Arch],
    thresholds: tuple[float, ...] = (0.9, 0.7, 0.5),
) -> "pd.DataFrame":
    """AP without and with non-maximum suppression: sub_network, nms_iou (NaN without), AP, detections per
    image.
    """
    import pandas as pd

    from rfdetr.evaluation.coco import evaluate, evaluate_detections

    rows: list[dict[str, Any]] = []
    for label, arch in archs.items():
        result = evaluate(model, dataset, arch, batch_size=32, masks=False)
        count = np.mean([len(found["scores"]) for found in result.detections])
        rows.append({"sub_network": label, "nms_iou": np.nan, "AP": result.ap, "per_image": count})
        for iou in thresholds:
            thinned: list[Any] = []
            for found in result.detections:
                boxes, scores, labels = (np.asarray(found[key]) for key in ("boxes", "scores", "labels"))
                kept = nms(boxes, scores, labels, iou)
                thinned.append(
                    {**found, "boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
                )
            ap = evaluate_detections(dataset, thinned)["AP"]
            count = np.mean([len(found["scores"]) for found in thinned])
            rows.append({"sub_network": label, "nms_iou": iou, "AP": ap, "per_image": count})
    return pd.DataFrame(rows)
