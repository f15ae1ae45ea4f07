"""Claims about the fixed architectures on RF100-VL: Table 18 (v1 17), from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import ap, joined
from rfdetr.paper.arithmetic.rf100vl import SPECIALISTS, YOLO, difference, ours
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd


def c154(t18: "pd.DataFrame") -> Verdict:
    """The COCO architectures stay within one point of the searched ones."""
    apart = difference(ours(t18, "fixed_architecture"), ours(t18, "nas"))
    return Verdict(
        agree(min(apart.values()) >= -1),
        apart,
        "Fixed minus searched, without fine-tuning; “well” is taken as within one point.",
    )


def c155(t4: "pd.DataFrame", t14: "pd.DataFrame", t18: "pd.DataFrame") -> Verdict:
    """Fixed L strictly above every earlier real-time row."""
    fixed = ours(t18, "fixed_architecture")["L"]
    every = joined(t4, t14)
    earlier = every[every["model"].isin((*YOLO, *SPECIALISTS))]
    best = float(earlier["ap"].max())
    return Verdict(
        agree(fixed > best),
        {"fixed L": fixed, "best earlier": best},
        "It is above them." if fixed > best else "It ties with the best of them, at a lower latency.",
    )


def c156(t18: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Searched above fixed at every size, without fine-tuning."""
    gain = difference(ours(t18, "nas"), ours(t18, "fixed_architecture"))
    return Verdict(
        agree(min(gain.values()) > 0),
        gain,
        "Searched minus fixed, before fine-tuning. The XL pair differs in backbone too.",
    )


def c157(t4: "pd.DataFrame", t18: "pd.DataFrame") -> Verdict:
    """The two steps of N, S and M within a factor of two of each other."""
    fixed, searched = ours(t18, "fixed_architecture"), ours(t18, "nas_fine_tuned")
    first = {s: fixed[s] - ap(t4, "LW-DETR", s) for s in ("N", "S", "M")}
    second = {s: searched[s] - fixed[s] for s in first}
    alike = all(0.5 <= second[s] / first[s] <= 2 for s in first if first[s])
    return Verdict(
        agree(alike),
        {f"{s}, LW-DETR to fixed and fixed to searched": [round(first[s], 1), round(second[s], 1)]
         for s in first},
        "“As large” is taken as within a factor of two at every size, fine-tuning included in the second.",
    )  # fmt: skip


def c158(t4: "pd.DataFrame", t14: "pd.DataFrame", t18: "pd.DataFrame") -> Verdict:
    """Fixed above LW-DETR at every size that both have."""
    fixed, every = ours(t18, "fixed_architecture"), joined(t4, t14)
    light = every[every["model"] == "LW-DETR"]
    over = difference(fixed, dict(zip(light["size"], light["ap"].tolist(), strict=True)))
    return Verdict(agree(over and min(over.values()) > 0), over, "Printed AP.")


def c159(t18: "pd.DataFrame") -> Verdict:
    """Fine-tuning gains at every size, most at N."""
    gain = difference(ours(t18, "nas_fine_tuned"), ours(t18, "nas"))
    return Verdict(
        agree(min(gain.values()) > 0 and max(gain, key=lambda s: gain[s]) == "N"), gain, "Printed AP."
    )
