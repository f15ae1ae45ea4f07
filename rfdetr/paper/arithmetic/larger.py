"""Claims of Appendix E: Tables 11, 12 and 13, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, ap, joined, rows
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {"S": "ap_s_size", "M": "ap_m_size", "L": "ap_l_size", "XL": "ap_xl_size"}
_LIMIT_MS = 100


def _deltas(t11: "pd.DataFrame", backbone: str) -> dict[str, float]:
    row = rows(t11, backbone=backbone).iloc[0]
    return {size: float(row[column]) for size, column in _COLUMNS.items()}


def c134(t11: "pd.DataFrame") -> Verdict:
    """Positive at S and M, negative at L and XL."""
    found = _deltas(t11, "DINOv2-S")
    return Verdict(
        agree([v > 0 for v in found.values()] == [True, True, False, False]),
        found,
        "As Table 11 prints it. At M and L Tables 2 and 12 give other differences: Table 11 uses models that"
        " no table lists.",
    )


def c135(t11: "pd.DataFrame") -> Verdict:
    """The gap shrinks from size to size."""
    found = _deltas(t11, "DINOv2-B")
    values = list(found.values())
    return Verdict(
        agree(all(a < b for a, b in zip(values, values[1:], strict=False))), found, "As Table 11 prints it."
    )


def c136(t12: "pd.DataFrame") -> Verdict:
    """D-FINE XL above RF-DETR XL."""
    fine, ours = ap(t12, "D-FINE", "XL"), ap(t12, "RF-DETR", "XL")
    return Verdict(agree(fine > ours), {"D-FINE": fine, "RF-DETR": ours}, "At equal printed latency.")


def c137(t12: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The printed margin of 2XL over D-FINE XL."""
    ours, fine = ap(t12, "RF-DETR", "2XL"), ap(t12, "D-FINE", "XL")
    printed = values["rf_detr_2xl"] - values["d_fine_xl"]
    times = [float(rows(t12, model=m, size=s)["latency_ms"].iloc[0]) for m, s in _PAIR]
    return Verdict(
        agree(abs(ours - fine - printed) < HALF_DIGIT),
        {"difference, AP": round(ours - fine, 1)},
        f"2XL takes {times[0]:.1f} ms, D-FINE XL {times[1]:.1f} ms.",
    )


_PAIR = (("RF-DETR", "2XL"), ("D-FINE", "XL"))


def c138(t2: "pd.DataFrame", t11: "pd.DataFrame", t12: "pd.DataFrame") -> Verdict:
    """Different models: then no implied AP should be that of a row of Tables 2 and 12."""
    known = joined(t2, t12)
    known = known[known["model"] == "RF-DETR"]
    base = rows(t11, method="D-FINE").iloc[0]
    same = {}
    for backbone in ("DINOv2-S", "DINOv2-B"):
        for size, delta in _deltas(t11, backbone).items():
            implied = float(base[_COLUMNS[size]]) + delta
            sizes = known.loc[(known["ap"] - implied).abs() < HALF_DIGIT, "size"]
            if len(sizes):
                same[f"{backbone}, {size}"] = ", ".join(sizes)
    return Verdict(
        agree(not same),
        same,
        f"{len(same)} of {2 * len(_COLUMNS)} models that Table 11 implies have exactly the AP of a published"
        " one; the others have none's.",
    )


def c139(t7: "pd.DataFrame") -> Verdict:
    """No re-training over all sizes needs one set of weights, so one backbone."""
    backbones = sorted(set(t7["backbone"]))
    return Verdict(
        agree(len(backbones) == 1),
        {"backbones of Table 7": backbones},
        "Weights of different width cannot be shared: at least one training per backbone. Within one backbone"
        " the tables do not contradict it.",
    )


def c140(t12: "pd.DataFrame", t13: "pd.DataFrame", t14: "pd.DataFrame") -> Verdict:
    """A Max row below 100 ms that is the most accurate, on each of the three data sets."""
    found = {}
    tables = {"COCO": t12, "COCO, masks": t13, "RF100-VL": t14}
    for data, table in tables.items():
        ours = table[table["model"].str.startswith("RF-DETR") & (table["latency_ms"] < _LIMIT_MS)]
        found[data] = ours.sort_values("ap")["size"].tolist()[-1:] == ["Max"]
    return Verdict(
        agree(all(found.values())),
        {f"Max is the best row below 100 ms, {data}": holds for data, holds in found.items()},
        "The appendix names one Max variant for each data set; "
        + (
            "each table has it."
            if all(found.values())
            else f"there is none for {', '.join(data for data, holds in found.items() if not holds)}."
        ),
    )
