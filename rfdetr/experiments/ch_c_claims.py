"""Chapter C: verdicts on Appendix C and Table 9 from measured counts, and checks of our counting."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Check, Verdict, computed

if TYPE_CHECKING:
    import pandas as pd

AGREE = 0.02
"""Relative difference within which two counts agree."""


def _counts(nine: "pd.DataFrame", column: str) -> "pd.Series":
    return nine.set_index(["model", "counter"])[column].dropna()


def c129(nine: "pd.DataFrame") -> Verdict:
    """Our count with FlopCounterMode against the printed custom one. nine: from `ch_c_counting.table_9`."""
    measured, printed = _counts(nine, "measured"), _counts(nine, "printed")
    ratio = {
        model: float(measured[model, "flopcountermode"] / printed[model, "reported"])
        for model in ("D-FINE", "YOLOv11")
    }
    return Verdict(
        computed(all(abs(v - 1) <= AGREE for v in ratio.values())),
        {f"{model}, counted over printed custom count": round(v, 3) for model, v in ratio.items()},
        "D-FINE as deployed, YOLO11 with fused batch norm; as built, before merging, D-FINE counts several"
        " per cent more.",
    )


def c130(nine: "pd.DataFrame") -> Verdict:
    """Our count of LW-DETR over the number that its authors report."""
    ratio = float(
        _counts(nine, "measured")["LW-DETR", "flopcountermode"]
        / _counts(nine, "printed")["LW-DETR", "reported"]
    )
    return Verdict(
        computed(1.8 <= ratio <= 2.2),
        {"ratio": round(ratio, 2)},
        "The reported number is multiply-accumulates with a few element-wise operations; one of them is two"
        " operations.",
    )


def c131(nine: "pd.DataFrame") -> Verdict:
    """CalFLOPs away from FlopCounterMode by more than 5 %, on both sides of it."""
    measured = _counts(nine, "measured")
    models = sorted(set(nine.model))
    ratio = {m: float(measured[m, "calflops"] / measured[m, "flopcountermode"]) for m in models}
    above, below = max(ratio.values()) > 1.05, min(ratio.values()) < 0.95
    return Verdict(
        computed(above and below),
        {f"{model}, CalFLOPs over FlopCounterMode": round(v, 2) for model, v in ratio.items()},
        "It is off in both directions, with reasons: it leaves fused attention out, which on a processor the"
        " default FlopCounterMode does too, and counts what norms and activations do.",
    )


def check_formula(checks: "pd.DataFrame") -> Check:
    """checks: from `ch_c_counting.formula_check`."""
    return Check(
        "The closed formula agrees with torch's counter",
        bool((checks.difference.abs() < 0.1).all()),
        {"largest difference, %": float(checks.difference.abs().max()), "configurations": len(checks)},
        "Attention written out as matrix products.",
    )


def check_attention(default: "pd.DataFrame") -> Check:
    """default: from `ch_c_counting.default_counter`."""
    fused, written = default.missing.iloc[0], default.missing.iloc[1]
    return Check(
        "With attention written out torch's counter misses nothing; with fused attention on a processor it"
        " does",
        bool(abs(written) < 1 < fused),
        {"fused, missing %": round(float(fused), 1), "written out, missing %": round(float(written), 2)},
    )
