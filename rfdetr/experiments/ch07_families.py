"""Tables 2, 3, 12 and 13: parameters and GFLOPs of every row, as printed and on one convention.

Accuracy and latency columns are the paper's own numbers.
"""

from typing import Any

import pandas as pd

from rfdetr.benchmark.flops import analytic
from rfdetr.model.config import preset_config
from rfdetr.paper import tables
from rfdetr.paper.published import SIZE_NAMES
from rfdetr.peers import catalogue as peers

DETECTION, SEGMENTATION = (2, 12), (3, 13)
_PEER_NAMES = {
    ("YOLOv8", False): "YOLOv8",
    ("YOLOv11", False): "YOLO11",
    ("YOLOv8", True): "YOLOv8-seg",
    ("YOLOv11", True): "YOLO11-seg",
}
# Conventions of the records in the words of the chapters.
_WAYS = {
    "exact": "exact count, batch norm fused",
    "plain model": "model as built, fused attention left out",
    "plain model, three decoder layers": "model as built, fused attention left out",
    "deploy, attention counted": "deployed graph, attention counted",
    "deploy, counted with calflops (fused attention left out)": (
        "deployed graph, attention left out (calflops)"
    ),
}
TOLERANCE = 2.0
"""Per cent within which a convention counts as that of the print."""
# Authors and tables name the largest sizes differently.
_PEER_SIZES = {"XL": "X"}


def family_table(numbers: tuple[int, int]) -> pd.DataFrame:
    """One row per printed model, doubles between the two tables left out.

    numbers: `DETECTION` or `SEGMENTATION`. Columns: family, size, params_printed, params_m, gflops_printed,
    gflops_printed_way (the convention closest to the print), way (that convention in words), difference (% of
    it), gflops (attention counted, graph as
    deployed: one convention for all), source (counted here, committed record, or not built), latency_ms, ap,
    runtime (printed).
    """
    rows = {}
    for number in numbers:
        for row in tables.rows(number):
            key = (row["model"], row["size"])
            if key not in rows:
                rows[key] = _row(row, numbers == SEGMENTATION)
    return pd.DataFrame(rows.values())


def _row(row: dict[str, str], masks: bool) -> dict[str, Any]:
    printed = float(row["gflops"])
    measured = _ours(row["size"], masks) if row["variant"] == "nas" else _peer(row, masks)
    way = measured["gflops_printed_way"]
    difference = None if way is None else 100 * (way / printed - 1)
    words = measured["way"]
    if difference is not None and abs(difference) > TOLERANCE:
        words = f"none of ours within {TOLERANCE:g} %"
    return {
        "family": row["model"],
        "size": row["size"],
        "params_printed": float(row["params_m"]),
        "params_m": measured["params_m"],
        "gflops_printed": printed,
        "gflops_printed_way": way,
        "way": words,
        "difference": difference,
        "gflops": measured["gflops"],
        "source": measured["source"],
        "latency_ms": float(row["latency_ms"]),
        "ap": float(row["ap"]),
        "runtime": row["latency_runtime"],
    }


def _ours(size: str, masks: bool) -> dict[str, Any]:
    name = ("seg-" if masks else "") + SIZE_NAMES[size]
    config = preset_config(name)
    counted = analytic(config, convention="published")
    return {
        "params_m": counted.params / 1e6,
        "gflops_printed_way": counted.gflops,
        "way": (
            "attention counted, "
            + ("heads and masks" if masks else "heads")
            + " of all decoder layers, boxes of all tokens"
        ),
        "gflops": analytic(config).gflops,
        "source": "counted here",
    }


def _peer(row: dict[str, str], masks: bool) -> dict[str, Any]:
    name = _PEER_NAMES.get((row["model"], masks), row["model"])
    try:
        entry = peers.find(name, _PEER_SIZES.get(row["size"], row["size"]))
    except KeyError:
        return {
            "params_m": None,
            "gflops_printed_way": None,
            "way": None,
            "gflops": None,
            "source": "not built",
        }
    return {
        "params_m": entry["closest"]["params_m"],
        "gflops_printed_way": entry["closest"]["gflops"],
        "way": _WAYS.get(entry["closest"]["gflops_convention"], entry["closest"]["gflops_convention"]),
        "gflops": peers.one_convention(entry),
        "source": "committed record",
    }


def ways(df: pd.DataFrame) -> pd.DataFrame:
    """Which convention each family's print follows. df: from `family_table`.

    Columns: family, sizes, way (in words), difference (largest, % of the print), one_convention (the change
    from the print to the one convention, %, of the size where it is largest).
    """
    built = df.dropna(subset=["way"]).sort_values("gflops_printed", kind="stable")
    rows = []
    for (family, way), part in built.groupby(["family", "way"], sort=False):
        moved = 100 * (part.gflops / part.gflops_printed - 1)
        rows.append(
            {
                "family": family,
                "sizes": ", ".join(part["size"]),
                "way": way,
                "difference": part.difference.abs().max(),
                "one_convention": moved.iloc[int(moved.abs().to_numpy().argmax())],
            }
        )
    return pd.DataFrame(rows).sort_values("family", kind="stable", ignore_index=True)


def reordered(df: pd.DataFrame) -> pd.DataFrame:
    """Pairs of neighbours in printed GFLOPs that change places on one convention.

    df: from `family_table`. Columns: cheaper_printed, dearer_printed (names), printed and counted (ratio of
    the GFLOPs, second over first).
    """
    built = df.dropna(subset=["gflops"]).sort_values("gflops_printed")
    names = built.family + " " + built["size"]
    rows = []
    for i in range(len(built)):
        for j in range(i + 1, len(built)):
            a, b = built.iloc[i], built.iloc[j]
            if a.gflops > b.gflops and a.family != b.family:
                rows.append(
                    (names.iloc[i], names.iloc[j], b.gflops_printed / a.gflops_printed, b.gflops / a.gflops)
                )
    return pd.DataFrame(rows, columns=["cheaper_printed", "dearer_printed", "printed", "counted"])


def at_equal_cost(df: pd.DataFrame, family: str, other: str) -> pd.DataFrame:
    """Printed AP of each size of `family` beside that of `other` at the same GFLOPs (one convention).

    The other's AP is interpolated between its sizes over the logarithm of GFLOPs; sizes outside its range are
    left out.
    Columns: size, gflops, ap, other_ap.
    """
    import numpy as np

    def of(name: str) -> pd.DataFrame:
        return df[df.family == name].dropna(subset=["gflops"]).sort_values("gflops")

    mine, theirs = of(family), of(other)
    if mine.empty or theirs.empty:
        raise ValueError(
            f"no counted rows of {family if mine.empty else other}; there are {sorted(set(df.family))}"
        )
    mine = mine[mine.gflops.between(theirs.gflops.min(), theirs.gflops.max())]
    other_ap = np.interp(np.log(mine.gflops), np.log(theirs.gflops), theirs.ap)
    return pd.DataFrame({"size": mine["size"], "gflops": mine.gflops, "ap": mine.ap, "other_ap": other_ap})


def causes(masks: bool) -> pd.DataFrame:
    """Peers whose count as built differs from the print by more than the limits of `catalogue.cause`.

    masks: the segmentation models, or the others. Columns: model, params and gflops (% from the print, as
    built), cause.
    """
    rows = []
    for entry in peers.entries():
        cause = peers.cause(entry)
        if cause and peers.has_masks(entry) == masks:
            off = peers.differences(entry)
            rows.append((f"{entry['name']} {entry['size']}", off["params"], off["gflops"], cause))
    return pd.DataFrame(rows, columns=["model", "params", "gflops", "cause"])
