"""What whole masks cost: a YOLO's prototypes against the masks that a user waits for, and RF-DETR's mask
head.
"""

from typing import TYPE_CHECKING

from rfdetr.benchmark.flops import analytic
from rfdetr.experiments.ch07_timed import both_ways
from rfdetr.model.config import preset_config
from rfdetr.paper.arithmetic.cells import SIMILAR
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

DETECTIONS, DEPTH = 300, 32
"""Detections that are kept, and prototypes, of a YOLO."""
OURS = ("seg-nano", "seg-small", "seg-medium", "seg-large", "seg-xlarge", "seg-2xlarge")
_STRIDE = 4
_BYTES = 4


def assembling(side: int, detections: int = DETECTIONS) -> tuple[float, float]:
    """(GFLOPs, MB in float32) of the masks of so many detections from `DEPTH` prototypes at a quarter of the
    side.
    """
    pixels = (side // _STRIDE) ** 2
    return 2 * detections * DEPTH * pixels / 1e9, detections * pixels * _BYTES / 1e6


def costs() -> "pd.DataFrame":
    """One row per segmentation model. Columns: model, gflops (deployed, as counted: of a YOLO up to its
    prototypes), masks_gflops (RF-DETR: of its mask head, in `gflops`; YOLO: assembling, not in `gflops`),
    added (% that the print leaves out), masks_mb (size of the whole masks), detections.
    """
    import pandas as pd

    rows = []
    for name in OURS:
        config = preset_config(name)
        counted, arch = analytic(config), config.default_arch
        assert arch is not None
        pixels = (arch.resolution // _STRIDE) ** 2
        size = arch.queries * pixels * _BYTES / 1e6
        rows.append((f"RF-DETR {name}", counted.gflops, counted.by_stage["masks"], 0.0, size, arch.queries))
    for entry in catalogue.entries():
        if catalogue.has_masks(entry):
            gflops, size = assembling(entry["input"][0])
            counted_gflops = catalogue.one_convention(entry)
            name = f"{entry['name']} {entry['size']}"
            rows.append((name, counted_gflops, gflops, 100 * gflops / counted_gflops, size, DETECTIONS))
    columns = ["model", "gflops", "masks_gflops", "added", "masks_mb", "detections"]
    return pd.DataFrame(rows, columns=columns)


def timed(result: "Kept | None", protocol: str = "sustained") -> "pd.DataFrame | None":
    """Whole masks against prototypes in the kept run; None without it.

    Columns: model, runtime, asked, threads, prototypes_ms, whole_ms, added (%).
    """
    if result is None:
        return None
    models = result.tables["models"]
    keys = ["runtime", "asked", "threads"]
    part = models[models.protocol == protocol]
    both = both_ways(part, "prototypes", keys)
    if both.empty:
        return None
    return both[["model", *keys]].assign(
        prototypes_ms=both.median_ms_other,
        whole_ms=both.median_ms,
        added=100 * (both.median_ms / both.median_ms_other - 1),
    )


def timed_said(found: "pd.DataFrame") -> str:
    """What assembling whole masks adds to the time, in a sentence. found: from `timed`."""
    added = found.added
    near = int((added.abs() <= 100 * SIMILAR).sum())
    return (
        f"Over {len(found)} timings of {found.model.nunique()} models whole masks add {added.median():+.1f} %"
        f" in the median, from {added.min():+.1f} to {added.max():+.1f}; {near} of them are within 10 %,"
        " which is not told from nothing here."
    )
