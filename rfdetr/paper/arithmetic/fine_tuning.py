"""Claims of Appendix G (v1 F): Tables 15 and 16, from the printed numbers."""

from typing import TYPE_CHECKING

from rfdetr.paper.arithmetic.cells import HALF_DIGIT
from rfdetr.paper.verdicts import Remark, Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

LITTLE = 0.5
"""Points of AP below which a gain counts as little (the paper gives no number)."""


def _gains(table: "pd.DataFrame") -> dict[str, float]:
    """Printed differences in AP by size; "did not improve" has none."""
    tuned = table[table["variant"] == "nas_fine_tuned"]
    found = dict(zip(tuned["size"], tuned["ap"].tolist(), strict=True))
    return {size: float(gain) for size, gain in found.items() if gain == gain}


def _not_improved(table: "pd.DataFrame") -> list[str]:
    tuned = table[table["variant"] == "nas_fine_tuned"]
    return tuned.loc[tuned["ap"].isna(), "size"].tolist()


def c012(t15: "pd.DataFrame", t16: "pd.DataFrame") -> Remark:
    """“Well” has no number; what fine-tuning adds has."""
    return Remark(
        "“Well” has no number. By Tables 15 and 16 fine-tuning adds little to the published sub-networks,"
        " which are those of the front; chapter 05 shows what the others of a miniature are worth.",
        _gains(t15) | {f"{size}, masks": v for size, v in _gains(t16).items()},
    )


def c047(t15: "pd.DataFrame", t16: "pd.DataFrame") -> Verdict:
    """No printed gain on COCO reaches half a point, and some sizes gain nothing."""
    most = max(*_gains(t15).values(), *_gains(t16).values())
    return Verdict(
        agree(most < LITTLE),
        {"largest gain, AP": most, "did not improve, masks": len(_not_improved(t16))},
        "“Little” is taken as below half a point.",
    )


def c146(t16: "pd.DataFrame", values: dict) -> Verdict:
    """Nano alone improves, by the printed tenth."""
    gains = _gains(t16)
    return Verdict(
        agree(list(gains) == ["N"] and abs(gains.get("N", 0) - values["n"]) < HALF_DIGIT),
        gains | {"did not improve": _not_improved(t16)},
        "Table 16.",
    )


def c147(t15: "pd.DataFrame", t16: "pd.DataFrame") -> Verdict:
    """Overfitting would show as a loss: in the detection table none is printed."""
    lower = [size for size, gain in _gains(t15).items() if gain < 0]
    return Verdict(
        agree(lower),
        {"detection sizes that lose AP": lower, "mask sizes that did not improve": _not_improved(t16)},
        "The appendix says that performance degrades; "
        + ("some detection sizes lose AP." if lower else "no detection size loses AP in Table 15."),
    )
