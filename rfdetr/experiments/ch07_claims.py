"""Chapter 07: the verdict that needs the counted rows. The tables are in `paper.arithmetic.coco`."""

from typing import TYPE_CHECKING

from rfdetr.experiments.ch07_families import TOLERANCE
from rfdetr.paper.verdicts import Verdict, computed

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL = ("YOLOv8", "YOLOv11", "D-FINE", "RT-DETR")


def c132(families: "pd.DataFrame") -> Verdict:
    """Printed GFLOPs of four families within 2 % of some way of counting their public models.

    families: from `ch07_families.family_table`.
    """
    rows = families[families.family.isin(OFFICIAL)].dropna(subset=["difference"])
    off = rows[rows.difference.abs() > TOLERANCE]
    names = [f"{family} {size}" for family, size in zip(off.family, off["size"], strict=True)]
    return Verdict(
        computed(len(rows) and off.empty),
        {"rows counted": len(rows), "largest difference, %": round(float(rows.difference.abs().max()), 1),
         "off": names},
        "The public models, built with random weights and counted in the way that comes closest. "
        + ("Every row is reached within 2 %." if off.empty
           else f"{', '.join(names)} is reached by none: its printed cost is that of another model."),
    )  # fmt: skip
