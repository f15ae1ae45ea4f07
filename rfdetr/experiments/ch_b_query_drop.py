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
    import torch

    from rfdetr.model.detector import RFDETR
    from rfdetr.model.outputs import Output


def drop_space(arch: Arch, depths: tuple[int, ...], queries: tuple[int, ...]) -> SearchSpace:
    """One encoder setting with every decoder depth and query count."""
    return SearchSpace((arch.resolution,), (arch.patch_size,), (arch.windows,), depths, queries)


def drop_table(model: "RFDETR", dataset: DetectionDataset, space: SearchSpace) -> "pd.DataFrame":
    """AP and GFLOPs of every (decoder layers, queries) of one encoder setting."""
    return evaluate_grid(model, dataset, space, gflops=True)[[*Arch.KNOBS, "AP", "AP50", "gflops"]]


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


def company(
    model: "RFDETR",
    dataset: DetectionDataset,
    arch: Arch,
    depths: tuple[int, ...],
    queries: int,
    resamples: int = 300,
) -> "pd.DataFrame":
    """The first `queries` queries decoded alone, and decoded beside those of `arch` that are then thrown
    away.

    Both report the same number of detections from the same proposals, so a difference is what the other
    queries do to these in the decoder. Columns: decoder_layers, alone, beside (AP), difference (alone minus
    beside, paired by image), low, high (95 %).
    """
    import pandas as pd

    from rfdetr.evaluation.bootstrap import Matches, paired_difference
    from rfdetr.evaluation.coco import evaluate

    device = next(model.parameters()).device
    rows = []
    for depth in depths:
        full = arch.replace(decoder_layers=depth)
        few = full.replace(queries=queries)
        results = [
            evaluate(network, dataset, few, batch_size=32, device=device, masks=False)
            for network in (model, _Beside(model, full, queries))
        ]
        alone, beside = (Matches(dataset, result.detections) for result in results)
        found = paired_difference(alone, beside, resamples=resamples)
        aps = {"alone": results[0].ap, "beside": results[1].ap}
        rows.append(
            {"decoder_layers": depth, **aps, "difference": found.diff, "low": found.low, "high": found.high}
        )
    return pd.DataFrame(rows)


class _Beside:
    """A network that decodes all queries of an architecture and reports the first `queries` of them."""

    def __init__(self, model: "RFDETR", arch: Arch, queries: int) -> None:
        self.config = model.config
        self._model, self._arch, self._queries = model, arch, queries

    def __call__(self, images: "torch.Tensor") -> "Output":
        from rfdetr.model.outputs import Output, Prediction

        found = self._model(images, self._arch, every_layer=False)
        first = slice(self._queries)
        return Output(Prediction(found.logits[:, first], found.boxes[:, first]), found.projector)


def against_print(fewer: "pd.DataFrame", lower: "pd.DataFrame") -> "pd.DataFrame":
    """The steps of Appendix B: what the paper prints, what this miniature loses, what nano saves.

    fewer, lower: of `fewer_queries` and `fewer_layers`. Columns: step, printed, change, low, high (AP here),
    saved (% of the miniature's operations), nano_saved (% of nano's, by formula, of its two layers and 300
    queries).
    """
    import pandas as pd

    from rfdetr.arch import PRESETS
    from rfdetr.benchmark.flops import analytic
    from rfdetr.model.config import preset_config
    from rfdetr.paper.verdicts import claims

    before, after = claims()["C126"]["values"]["queries"]
    printed = claims()["C127"]["values"]
    nano, config = PRESETS["nano"].arch, preset_config("nano")
    deepest = fewer.sort_values("decoder_layers").iloc[-1]
    by_count = lower.sort_values("dropped")
    steps = [
        (f"{before - after} of {before} queries", "AP hardly changes", deepest, nano.replace(queries=after)),
        (
            "the last decoder layer",
            f"-{printed['map_drop'] / 100:.2f} AP, -{printed['latency_percent']} % latency",
            by_count.iloc[0],
            nano.replace(decoder_layers=nano.decoder_layers - 1),
        ),
        ("every decoder layer", "saves much run time", by_count.iloc[-1], nano.replace(decoder_layers=0)),
    ]
    full = analytic(config, nano).gflops
    return pd.DataFrame(
        {
            "step": step,
            "printed": words,
            **{name: row[name] for name in ("change", "low", "high")},
            "saved": 100 * (1 - row["gflops_ratio"]),
            "nano_saved": 100 * (1 - analytic(config, arch).gflops / full),
        }
        for step, words, row, arch in steps
    )
