"""Dropping queries and decoder layers at inference, and what non-maximum suppression would add.

Source: Appendix B and Figure 4 of the paper.
"""

from dataclasses import dataclass
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


def drop_table(model: "RFDETR", dataset: DetectionDataset, space: SearchSpace) -> "pd.DataFrame":
    """AP and GFLOPs of every (decoder layers, queries) of one encoder setting."""
    return evaluate_grid(model, dataset, space, gflops=True)[[*Arch.KNOBS, "AP", "AP50", "gflops"]]


def layers_in_words(depth: int) -> str:
    """E.g. "no decoder", "1 layer", "3 layers"."""
    return "no decoder" if not depth else f"{depth} layer{'s' if depth > 1 else ''}"


@dataclass(frozen=True)
class Scene:
    """A scene and the network, by its label, whose detections in it lose most by suppression."""

    index: int
    label: str
    removed: int


def most_duplicates(
    model: "RFDETR",
    dataset: DetectionDataset,
    archs: dict[str, Arch],
    threshold: float = 0.3,
    iou: float = 0.5,
) -> Scene:
    """Where suppression removes most of the detections whose score is at least `threshold`."""
    best = Scene(0, next(iter(archs)), -1)
    pictures = [dataset[index][0] for index in range(len(dataset))]
    for label, arch in archs.items():
        for index, found in enumerate(model.predict(pictures, arch, threshold, keep_images=False)):
            removed = len(found) - len(nms(found.boxes, found.scores, found.labels, iou))
            if removed > best.removed:
                best = Scene(index, label, removed)
    return best


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


def depth_table(
    model: "RFDETR", dataset: DetectionDataset, arch: Arch, depths: tuple[int, ...], resamples: int = 300
) -> "pd.DataFrame":
    """AP of every decoder depth with its interval over images, and its operations.

    Columns: decoder_layers, AP, low, high (95 %), gflops.
    """
    import pandas as pd

    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.experiments.ch04_learning import accuracy_table

    archs = [arch.replace(decoder_layers=depth) for depth in depths]
    found = accuracy_table(model, dataset, archs, resamples)
    return pd.DataFrame(
        {
            "decoder_layers": list(depths),
            **{name: found[name] for name in ("AP", "low", "high")},
            "gflops": analytic_table(model, archs)["gflops"].to_numpy(),
        }
    )


def changes(
    model: "RFDETR", dataset: DetectionDataset, pairs: "list[tuple[Arch, Arch]]", resamples: int = 300
) -> "pd.DataFrame":
    """From the first to the second of each pair: change of AP, paired by image, and ratio of operations.

    Columns: decoder_layers and queries (of the second), AP (of the second), change, low, high (95 %),
    gflops_ratio.
    """
    import pandas as pd

    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.evaluation.bootstrap import Matches, paired_difference
    from rfdetr.evaluation.coco import evaluate

    archs = list(dict.fromkeys(arch for pair in pairs for arch in pair))
    results = {arch: evaluate(model, dataset, arch, batch_size=32, masks=False) for arch in archs}
    matches = {arch: Matches(dataset, result.detections) for arch, result in results.items()}
    gflops = dict(zip(archs, analytic_table(model, archs)["gflops"], strict=True))
    rows = []
    for before, after in pairs:
        found = paired_difference(matches[after], matches[before], resamples=resamples)
        rows.append(
            {
                "decoder_layers": after.decoder_layers,
                "queries": after.queries,
                "AP": results[after].ap,
                "change": found.diff,
                "low": found.low,
                "high": found.high,
                "gflops_ratio": gflops[after] / gflops[before],
            }
        )
    return pd.DataFrame(rows)


def fewer_queries(
    model: "RFDETR", dataset: DetectionDataset, arch: Arch, depths: tuple[int, ...], resamples: int = 300
) -> "pd.DataFrame":
    """Two thirds of the queries at every depth, as 200 of 300. Columns as of `changes`."""
    fewer = arch.queries * 2 // 3
    pairs = [
        (arch.replace(decoder_layers=depth), arch.replace(decoder_layers=depth, queries=fewer))
        for depth in depths
    ]
    return changes(model, dataset, pairs, resamples)


def fewer_layers(
    model: "RFDETR", dataset: DetectionDataset, arch: Arch, resamples: int = 300
) -> "pd.DataFrame":
    """The last decoder layer dropped, and all of them. `dropped` and the columns of `changes`."""
    dropped = sorted({1, arch.decoder_layers})
    pairs = [(arch, arch.replace(decoder_layers=arch.decoder_layers - count)) for count in dropped]
    return changes(model, dataset, pairs, resamples).assign(dropped=dropped)
