"""What a supernet learned: losses per layer, updates per sub-network, accuracy knob by knob, cost of the
training.

Source: Section 3 of the paper (weight sharing), Appendix H (unseen patch sizes).
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch, SearchSpace, effective
from rfdetr.data.dataset import DetectionDataset
from rfdetr.experiments.base.profiles import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.evaluation.bootstrap import Interval
    from rfdetr.model.detector import RFDETR

KNOB_NAMES = {
    "resolution": "resolution (px)",
    "patch_size": "patch size (px)",
    "windows": "windows per side",
    "decoder_layers": "decoder layers",
    "queries": "queries",
}
_PARTS = {"loss_ce": "class", "loss_bbox": "box L1", "loss_giou": "GIoU"}
BACKWARD = 2  # a backward pass costs about twice a forward pass


def loss_table(log: "pd.DataFrame", window: int = 25) -> "pd.DataFrame":
    """Running mean of every unweighted loss: step, layer ("encoder", "decoder 1", ...), loss, value."""
    import pandas as pd

    depth = 1 + sum(bool(re.fullmatch(r"loss_ce_\d+", column)) for column in log.columns)
    suffixes = {
        "_enc": "encoder",
        **{f"_{i}": f"decoder {i + 1}" for i in range(depth - 1)},
        "": f"decoder {depth}",
    }
    frames = []
    for part, label in _PARTS.items():
        for suffix, layer in suffixes.items():
            smooth = log[part + suffix].rolling(window, min_periods=1).mean()
            frames.append(pd.DataFrame({"step": log["step"], "layer": layer, "loss": label, "value": smooth}))
    return pd.concat(frames, ignore_index=True)


def update_table(log: "pd.DataFrame", space: SearchSpace) -> "pd.DataFrame":
    """How often training drew each encoder setting of the nominal grid.

    Columns: resolution, patch_size, windows (nominal), setting (what it rounds to), updates (steps that drew
    that setting), fields (nominal settings that round to it and show the same number). Every step also moves
    the weights that all others share.
    """
    import pandas as pd

    drawn = log["arch"].str.extract(r"^(r\d+-p\d+-w\d+)")[0].value_counts()
    rows = []
    for r, p, w in ((r, p, w) for r in space.resolutions for p in space.patch_sizes for w in space.windows):
        arch = effective(r, p, w, space.decoder_layers[-1], space.queries[-1])
        name = f"r{arch.resolution}-p{p}-w{w}"
        rows.append({"resolution": r, "patch_size": p, "windows": w, "setting": name})
    table = pd.DataFrame(rows)
    table["updates"] = table["setting"].map(drawn).fillna(0).astype(int)
    table["fields"] = table.groupby("setting")["setting"].transform("size")
    return table


def knob_sweeps(recipe: Recipe) -> "pd.DataFrame":
    """The reference architecture with one knob changed at a time.

    Columns: knob, value (nominal), training (`drawn`, `supervised`: a decoder layer that training supervises
    without drawing it, or `never`), seen (not `never`), arch.
    """
    import pandas as pd

    rows = []
    reference = recipe.reference
    for knob in KNOB_NAMES:
        grid = {"resolution": "resolutions", "patch_size": "patch_sizes"}.get(knob, knob)
        for value in getattr(recipe.search, grid):
            arch = effective(**{**reference.to_dict(), "queries": recipe.search.queries[-1], knob: value})
            state = "drawn" if value in getattr(recipe.training, grid) else "never"
            if knob == "decoder_layers" and value < recipe.training.decoder_layers[-1]:
                state = "supervised"
            rows.append(
                {"knob": knob, "value": value, "training": state, "seen": state != "never", "arch": arch}
            )
    return pd.DataFrame(rows)


def intervals(
    model: "RFDETR", dataset: DetectionDataset, archs: Iterable[Arch], resamples: int = 500, seed: int = 0
) -> "dict[Arch, tuple[Interval, float]]":
    """AP of each different architecture with its bootstrap 95 % interval over images, and its AP50.

    One seed draws the same images for all of them, so their `samples` can be subtracted from each other.
    """
    from rfdetr.evaluation.bootstrap import bootstrap_ap
    from rfdetr.evaluation.coco import evaluate

    found = {}
    for arch in dict.fromkeys(archs):
        result = evaluate(model, dataset, arch, batch_size=32, masks=False)
        interval = bootstrap_ap(dataset, result.detections, resamples=resamples, seed=seed)
        found[arch] = (interval, result.boxes["AP50"])
    return found


def accuracy_table(
    model: "RFDETR", dataset: DetectionDataset, archs: Iterable[Arch], resamples: int = 500, seed: int = 0
) -> "pd.DataFrame":
    """`intervals` as a table: arch (`Arch`), AP, AP50, low, high; one row per different architecture."""
    import pandas as pd

    found = intervals(model, dataset, archs, resamples, seed)
    return pd.DataFrame(
        [
            {"arch": arch, "AP": one.ap, "AP50": ap50, "low": one.low, "high": one.high}
            for arch, (one, ap50) in found.items()
        ]
    )


def learning_curve(
    model: "RFDETR", weights: Mapping[int, Mapping], dataset: DetectionDataset, archs: Mapping[str, Arch]
) -> "pd.DataFrame":
    """AP of some sub-networks at saved steps of the training: step, sub_network, AP.

    model    a network of the right sizes; its weights are not touched
    weights  step -> state dict
    archs    label -> architecture
    """
    import copy

    import pandas as pd

    from rfdetr.evaluation.coco import evaluate

    network = copy.deepcopy(model)
    rows = []
    for step, state in sorted(weights.items()):
        network.load_state_dict(state)
        for label, arch in archs.items():
            ap = evaluate(network, dataset, arch, batch_size=32, masks=False).ap
            rows.append({"step": step, "sub_network": label, "AP": ap})
    return pd.DataFrame(rows)


def drawn_archs(log: "pd.DataFrame") -> list[list[Arch]]:
    """The architectures of every step of a training log; the sandwich rule draws several per step."""
    return [[Arch.parse(name) for name in text.split("+")] for text in log["arch"]]


def training_cost(model: "RFDETR", log: "pd.DataFrame", batch_size: int) -> np.ndarray:
    """Cumulated training cost in TFLOPs after every step: three forward passes' worth per image (analytic
    count).

    Counts one group of queries and leaves the losses out, so it is a measure for comparing runs, not a bill.
    """
    from rfdetr.benchmark.flops import analytic_table

    steps = drawn_archs(log)
    unique = list(dict.fromkeys(arch for archs in steps for arch in archs))
    counted = dict(zip(unique, analytic_table(model, unique)["gflops"], strict=True))
    gflops = np.array([sum(counted[arch] for arch in archs) for archs in steps])
    return np.cumsum(gflops) * batch_size * (1 + BACKWARD) / 1000
