"""Claims about Table 5, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, cell
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

_ONE_RUN = " One run each; no spread over trainings is printed."


def _step(t5: "pd.DataFrame", step: int, column: str = "ap") -> float:
    """Change of a column at one step of Table 5."""
    return round(cell(t5, column, step=step) - cell(t5, column, step=step - 1), 3)


def _gain(t5: "pd.DataFrame", step: int, printed: float, why: str) -> Verdict:
    found = _step(t5, step)
    return Verdict(agree(abs(found - printed) < HALF_DIGIT), {"AP": round(found, 1)}, why + _ONE_RUN)


def _change(values: dict[str, Any]) -> float:
    return float(values["after"]) - float(values["before"])


def c029(t5: "pd.DataFrame") -> Verdict:
    """The step to DINOv2 in Table 5 makes the network slower."""
    slower = _step(t5, 2, "latency_ms")
    return Verdict(agree(slower > 0), {"ms": slower}, "The two backbones also differ in depth and tokens.")


def c036(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """The step that only turns weight sharing on gains AP."""
    gain = _step(t5, 4)
    return Verdict(
        agree(abs(gain - values["table5_gain_ap"]) < HALF_DIGIT),
        {"AP": round(gain, 1)},
        "The architecture stays, so the gain is the training's; longer training and augmentation by scale"
        " come with it, so regularisation is one reading." + _ONE_RUN,
    )


def c043(t5: "pd.DataFrame") -> Verdict:
    """Lower resolution costs small objects more than it costs large ones."""
    small, large = _step(t5, 6, "ap_s"), _step(t5, 6, "ap_l")
    return Verdict(
        agree(small < 0 and small < large),
        {"AP small": round(small, 1), "AP large": round(large, 1)},
        "The step from 640 to 576 px; the number of tokens falls with it." + _ONE_RUN,
    )


def c090(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Gentler hyper-parameters."""
    return _gain(t5, 1, values["gentler"] - values["lw_detr_m"], "From LW-DETR M to the gentler setting.")


def c092(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """CAEv2 to DINOv2."""
    return _gain(t5, 2, _change(values), "From CAEv2 to DINOv2.")


def c093(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """More pre-training."""
    return _gain(t5, 3, _change(values), "More pre-training on Objects-365.")


def c094(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Weight sharing at the same architecture."""
    return _gain(t5, 4, _change(values), "Weight sharing, the same architecture.")


def c095(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Patch 14 to 16 at constant tokens: the printed loss, no latency."""
    found, slower = _step(t5, 5), _step(t5, 5, "latency_ms")
    printed = values["ap"][1] - values["ap"][0]
    return Verdict(
        agree(abs(found - printed) < HALF_DIGIT and abs(slower) < HALF_DIGIT),
        {"AP": round(found, 1), "ms": slower},
        "Both have 40 tokens a side." + _ONE_RUN,
    )


def c096(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """640 to 576 px: the printed loss and gain."""
    found, faster = _step(t5, 6), _step(t5, 6, "latency_ms")
    holds = abs(found - (values["ap"][1] - values["ap"][0])) < HALF_DIGIT
    holds &= abs(faster - (values["latency_ms"][1] - values["latency_ms"][0])) < HALF_DIGIT
    return Verdict(agree(holds), {"AP": round(found, 1), "ms": faster}, "From 640 to 576 px." + _ONE_RUN)


def c097(t5: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """Four windows to two: the printed gain and price."""
    found, slower = _step(t5, 7), _step(t5, 7, "latency_ms")
    holds = abs(found - (values["ap"][1] - values["ap"][0])) < HALF_DIGIT
    holds &= abs(slower - (values["latency_ms"][1] - values["latency_ms"][0])) < HALF_DIGIT
    return Verdict(
        agree(holds),
        {"AP": round(found, 1), "ms": slower},
        "The printed GFLOPs fall at this step because attention is not counted; chapter 10 counts it."
        + _ONE_RUN,
    )


def c099(t5: "pd.DataFrame") -> Verdict:
    """From the first row to the last: two points at equal latency."""
    last = int(t5["step"].max())
    gain = cell(t5, "ap", step=last) - cell(t5, "ap", step=0)
    slower = cell(t5, "latency_ms", step=last) - cell(t5, "latency_ms", step=0)
    return Verdict(
        agree(gain >= 2 - HALF_DIGIT and abs(slower) < HALF_DIGIT),
        {"AP": round(gain, 1), "ms": round(slower, 1)},
        "The step from 300 to 300 queries adds nothing, as it must." + _ONE_RUN,
    )


def c100(t5: "pd.DataFrame", search_grid: dict[str, Any]) -> Verdict:
    """The base gains, and its patch size is in no printed grid."""
    gain = _step(t5, 4)
    where = [part for part in ("training", "inference") if 14 in search_grid[part]["patch_sizes_px"]]
    return Verdict(
        agree(gain > 0 and not where),
        {"AP": round(gain, 1), "grids that list patch 14": where},
        "The gain is printed; "
        + (f"but the {' and '.join(where)} grid lists patch 14." if where else "no grid lists patch 14."),
    )
