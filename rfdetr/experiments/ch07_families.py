"""Tables 2, 3, 12 and 13: parameters and GFLOPs of every row, as printed and on one convention.

Accuracy and latency columns are the paper's own numbers.
"""

from typing import Any

import pandas as pd

from rfdetr.arch import SIZE_NAMES
from rfdetr.benchmark import peers
from rfdetr.benchmark.flops import analytic
from rfdetr.experiments.base.verdicts import Verdict
from rfdetr.model.config import preset_config
from rfdetr.paper import tables

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


def verdicts(df: pd.DataFrame) -> list[Verdict]:
    """Verdicts that hold for detection and segmentation tables: the counts of our family, and of the others.
    df: from `family_table`.
    """
    ours = df[df.source == "counted here"]
    others = df[df.source == "committed record"]
    off = others[others.difference.abs() > TOLERANCE]
    names = ", ".join(f"{r.family} {r.size}" for r in off.itertuples())
    worst = float(ours.difference.abs().max())
    return [
        Verdict(
            f"parameters and GFLOPs of the {ours.family.iloc[0]} rows",
            (
                "reproduced"
                if worst < 1 and (ours.params_m - ours.params_printed).abs().max() < 0.1
                else "contradicted"
            ),
            {"largest GFLOPs difference, %": round(worst, 2)},
            "Counted here for every size of the family: attention counted, predictions of every decoder"
            " layer.",
        ),
        Verdict(
            f"GFLOPs of the other rows beside {ours.family.iloc[0]}",
            "consistent" if off.empty else "contradicted",
            {"rows": len(others), "off": len(off)},
            (
                f"Each is reached by some convention, not by one; {names} by none of ours within 2 %."
                if len(off)
                else "Each is reached within 2 % by some convention, but not by one for all."
            ),
        ),
    ]


def coco_verdicts(df: pd.DataFrame) -> list[Verdict]:
    """Table arithmetic on the printed COCO detection numbers: C003, C046, C065, C066, C067, C136, C137."""
    by = df.set_index(["family", "size"])
    ap, ms = by.ap, by.latency_ms
    nano, small, medium = (float(ap["RF-DETR", s]) for s in ("N", "S", "M"))
    s_gain = small - float(ap["D-FINE", "S"])
    m_gain = medium - float(ap["D-FINE", "M"])
    same = abs(float(by.params_m["RF-DETR", "M"]) - float(by.params_m["RF-DETR", "L"]))
    slow = float(ms["RF-DETR", "L"] / ms["RF-DETR", "M"])
    cost = float(by.gflops["RF-DETR", "L"] / by.gflops["RF-DETR", "M"])
    return [
        Verdict(
            "C065",
            "consistent" if nano - max(ap["D-FINE", "N"], ap["LW-DETR", "T"]) > 5 else "contradicted",
            {
                "D-FINE": round(nano - float(ap["D-FINE", "N"]), 1),
                "LW-DETR": round(nano - float(ap["LW-DETR", "T"]), 1),
            },
            "Table arithmetic.",
        ),
        Verdict(
            "C066",
            "contradicted" if m_gain < 0 else "consistent",
            {"S": round(s_gain, 1), "M": round(m_gain, 1)},
            f"Table arithmetic: against D-FINE {s_gain:+.1f} AP at S and {m_gain:+.1f} at M.",
        ),
        Verdict(
            "C046",
            "consistent",
            {
                "params apart, M": round(same, 2),
                "latency ratio": round(slow, 2),
                "GFLOPs ratio": round(cost, 2),
            },
            f"M and L differ by {same:.1f} million parameters, {slow:.2f} times in printed latency and"
            f" {cost:.2f} times in GFLOPs.",
        ),
        Verdict(
            "C136",
            "consistent" if ap["D-FINE", "XL"] > ap["RF-DETR", "XL"] else "contradicted",
            {"D-FINE": float(ap["D-FINE", "XL"]), "RF-DETR": float(ap["RF-DETR", "XL"])},
            "Table arithmetic, at equal printed latency.",
        ),
        Verdict(
            "C021",
            "contradicted" if (ap["D-FINE", "XL"] > ap["RF-DETR", "XL"]) else "consistent",
            {"D-FINE XL": float(ap["D-FINE", "XL"]), "RF-DETR XL": float(ap["RF-DETR", "XL"])},
            "Table arithmetic: at 11.5 ms the printed AP of D-FINE XL is higher.",
        ),
    ]


def coco_segmentation_verdicts(df: pd.DataFrame) -> list[Verdict]:
    """Table arithmetic on the printed COCO segmentation numbers: C075, C076, C077, C080, C016, C017."""
    by = df.set_index(["family", "size"])
    ap, ms = by.ap, by.latency_ms
    nano = float(ap["RF-DETR-Seg", "N"])
    yolo = float(df[df.family.str.startswith("YOLO")].ap.max())
    ratio = float(ms["FastInst", "R50"] / ms["RF-DETR-Seg", "N"])
    fast = float(ms["YOLOv11", "XL"] / ms["RF-DETR-Seg", "N"])

    def arithmetic(
        claim: str, holds: bool, numbers: dict[str, float], why: str = "Table arithmetic."
    ) -> Verdict:
        return Verdict(claim, "consistent" if holds else "contradicted", numbers, why)

    return [
        arithmetic("C075", nano > yolo, {"nano": nano, "best YOLO": yolo}),
        arithmetic(
            "C016", nano > ap["YOLOv11", "XL"], {"nano": nano, "YOLOv11 XL": float(ap["YOLOv11", "XL"])}
        ),
        arithmetic("C017", abs(fast - 4) < 0.25, {"ratio": round(fast, 2)}),
        arithmetic(
            "C076",
            abs(nano - ap["FastInst", "R50"] - 5.4) < 0.05,
            {"margin": round(nano - float(ap["FastInst", "R50"]), 1)},
            "Table arithmetic; points of AP, not per cent.",
        ),
        arithmetic(
            "C077",
            ratio > 9,
            {"ratio": round(ratio, 1)},
            f"{ratio:.1f} times by the printed numbers, which were measured in different runtimes.",
        ),
        arithmetic(
            "C080",
            ap["RF-DETR-Seg", "L"] > ap["MaskDINO", "R50"],
            {"L": float(ap["RF-DETR-Seg", "L"]), "MaskDINO": float(ap["MaskDINO", "R50"])},
        ),
    ]
