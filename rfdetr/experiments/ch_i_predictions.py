"""Test pictures beside what three networks detect in them, chosen by rule.

Source: v2 Appendix M and Figure 8 (v1 I, Figure 6). On real pictures the detections are those of the kept
benchmark (`ch09_shown`), whose pictures are in `results/test-pictures`; on scenes they are made afresh with
the supernets of `ch09_fresh`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.experiments.base import kept
from rfdetr.experiments.ch09_data import Packed
from rfdetr.experiments.ch09_shown import LEAST, PICTURED, SHOWN
from rfdetr.model.detections import Detections

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

THRESHOLD = 0.4
"""Score from which a detection is drawn and counted."""
WORDS = {("nas", "N"): "searched, N", ("nas", "M"): "searched, M", ("fixed", "M"): "fixed, M"}
"""Networks in words; the last is a baseline: the architecture that the base would take."""
CONVOLUTION = "convolutional"
"""The other baseline in words, on real pictures (`ch09_convolution`)."""


@dataclass(frozen=True)
class Shown:
    """Pictures of one domain and what the networks found: label -> one `Detections` per picture, of scores
    from `LEAST` on; thresholds: label -> score from which a detection is drawn and counted, if another than
    `THRESHOLD`.
    """

    domain: str
    dataset: DetectionDataset
    found: "dict[str, list[Detections]]"
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def threshold(self, label: str) -> float:
        """Score from which a detection of this network is drawn and counted."""
        return self.thresholds.get(label, THRESHOLD)

    def drawn(self, image: int) -> "dict[str, Detections]":
        """What the networks found in one picture, as it is drawn."""
        return {
            label: every[image].filter(every[image].scores >= self.threshold(label))
            for label, every in self.found.items()
        }


def pictures(domain: str, root: Path | None = None) -> DetectionDataset | None:
    """The test pictures of a real domain that are in the repository, or None."""
    path = (root or kept.results_root()) / "test-pictures" / f"{domain}.zip"
    return Packed(path, "test") if path.is_file() else None


def real(result: "Kept | None", root: Path | None = None, baseline: "Kept | None" = None) -> Iterator[Shown]:
    """The real domains whose pictures and detections are both there.

    baseline: of `ch09_convolution`; where it has the domain, its detections stand beside the others.
    """
    table = None if result is None else result.tables.get("detections")
    for domain in PICTURED:
        dataset = pictures(domain, root)
        if table is None or dataset is None or domain not in set(table["domain"]):
            continue
        own = table[table["domain"] == domain]
        parts = {
            WORDS[kind, target]: own[(own["kind"] == kind) & (own["target"] == target)]
            for kind, target in SHOWN
        }
        if baseline is not None and domain in set(baseline.tables["tests"]["domain"]):
            beside = baseline.tables["detections"]
            parts[CONVOLUTION] = beside[beside["domain"] == domain]
        yield Shown(domain, dataset, {label: _all(dataset, part) for label, part in parts.items()})


def _all(dataset: DetectionDataset, part: "pd.DataFrame") -> list[Detections]:
    """The detections of every picture, from the rows of one network."""
    rows = dict(iter(part.groupby("image")))
    return [_detections(dataset, image, rows.get(image)) for image in range(len(dataset))]


def _detections(dataset: DetectionDataset, image: int, rows: "pd.DataFrame | None") -> Detections:
    height, width = dataset[image][0].shape[:2]
    corners = np.zeros((0, 4)) if rows is None else rows[["left", "top", "right", "bottom"]].to_numpy()
    scores = np.zeros(0) if rows is None else rows["score"].to_numpy()
    labels = np.zeros(0) if rows is None else rows["label"].to_numpy()
    return Detections(
        (corners * [width, height, width, height]).astype(np.float32),
        scores.astype(np.float32),
        labels.astype(np.int64),
        (height, width),
        categories=dataset.category_ids,
    )


def made(result: "Kept", domain: str, dataset: DetectionDataset) -> Shown:
    """Detections of the chosen networks of `ch09_fresh.searched` on scenes of one domain."""
    tests = result.tables["tests"]
    own = tests[tests["domain"] == domain].set_index(["kind", "target"])["arch"]
    model = kept.read_network(result.folder / f"{domain}.safetensors")
    pixels = [dataset[image][0] for image in range(len(dataset))]
    found = {WORDS[pair]: model.predict(pixels, Arch.parse(own[pair]), threshold=LEAST) for pair in SHOWN}
    return Shown(domain, dataset, found)


def per_picture(shown: Shown, label: str) -> np.ndarray:
    """AP of one network on every picture by itself, from all detections that are there; NaN where there is no
    object. Of masks where objects and detections have them.
    """
    matches = _matches(shown, label, 0.0)
    place = {image: i for i, image in enumerate(matches.image_ids)}
    own = np.eye(len(place))[[place[image["id"]] for image in shown.dataset.coco["images"]]]
    return np.array([matches.ap(weights[None])[0] for weights in own])


def chosen(shown: Shown, seed: int, label: str = WORDS["nas", "M"]) -> dict[str, int]:
    """Picture by rule: that with the median AP of one network (the larger searched one), the worst, and one
    at random.

    Pictures without objects take no part; of equals the first.
    """
    ap = per_picture(shown, label)
    valid = np.flatnonzero(~np.isnan(ap))
    if not len(valid):
        return {}
    order = valid[np.argsort(ap[valid], kind="stable")]
    drawn = int(valid[np.random.default_rng(seed).integers(len(valid))])
    return {"median": int(order[(len(order) - 1) // 2]), "worst": int(order[0]), "random": drawn}


def counts(every: Sequence[Shown]) -> "pd.DataFrame":
    """What the drawn detections are worth: domain, network, threshold, pictures, objects, found, missed,
    false (no object of that class there that is not yet found), false_per_picture.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for shown in every:
        for label in shown.found:
            threshold = shown.threshold(label)
            categories = _matches(shown, label, threshold).categories
            objects = int(sum(c.objects.sum() for c in categories))
            hits = int(sum(c.hit[0].sum() for c in categories))
            false = int(sum(c.counted[0].sum() for c in categories)) - hits
            pictures = len(shown.dataset)
            head = {"domain": shown.domain, "network": label, "threshold": threshold, "pictures": pictures}
            numbers = {"objects": objects, "found": hits, "missed": objects - hits, "false": false}
            rows.append({**head, **numbers, "false_per_picture": false / len(shown.dataset)})
    columns = ["domain", "network", "threshold", "pictures", "objects", "found", "missed", "false"]
    return pd.DataFrame(rows, columns=[*columns, "false_per_picture"])


def _matches(shown: Shown, label: str, least: float) -> Any:
    """The detections of one network against the objects, in pixels of the source pictures: masks where both
    have them (in pictures of the size in which they were detected), else boxes.
    """
    import torch

    from rfdetr.evaluation.bootstrap import Matches

    masks = shown.dataset.has_masks and all(found.masks is not None for found in shown.found[label])
    results = []
    for image, detections in enumerate(shown.found[label]):
        target = shown.dataset[image][1]
        keep = detections.scores >= least
        scale = np.array(target.size)[[1, 0, 1, 0]] / np.array(detections.size)[[1, 0, 1, 0]]
        results.append(
            {
                "image_id": target.image_id,
                "scores": torch.from_numpy(detections.scores[keep]),
                "labels": torch.from_numpy(detections.labels[keep]),
                "boxes": torch.from_numpy(detections.boxes[keep] * scale.astype(np.float32)),
            }
        )
        if masks and detections.masks is not None:
            results[-1]["masks"] = torch.from_numpy(detections.masks[keep])
    return Matches(shown.dataset, results, "segm" if masks else "bbox")
