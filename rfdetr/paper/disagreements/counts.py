"""Disagreements about parameters, FLOPs and shifted cells (I17 to I28, I57, I71)."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import cell, rows
from rfdetr.paper.disagreements.recount import Recount, listed, numbers, side

if TYPE_CHECKING:
    import pandas as pd

_WIDTH, _DECODER, _BLOCKS, _GLOBAL = 384, 256, 12, 3
_GROUPS = 13


def _medium(t7: "pd.DataFrame", column: str) -> float:
    return cell(t7, column, size="M")


def i17(t2: "pd.DataFrame", t5: "pd.DataFrame", t7: "pd.DataFrame") -> Recount:
    """The difference between two tables, and the operations of attention that it equals."""
    two = cell(t2, "gflops", model="RF-DETR", size="M")
    five = cell(t5, "gflops", step=int(t5["step"].max()))
    tokens = (_medium(t7, "resolution") / _medium(t7, "patch_size")) ** 2
    windows = _medium(t7, "windows") ** 2
    wide = 4 * (tokens + windows) ** 2 * _WIDTH / 1e9
    inside = 4 * windows * (tokens / windows + 1) ** 2 * _WIDTH / 1e9
    decoder = _medium(t7, "decoder_layers") * 4 * _medium(t7, "queries") ** 2 * _DECODER / 1e9
    total = (_BLOCKS - _GLOBAL) * inside + _GLOBAL * wide + decoder
    return Recount(
        two != five,
        f"{two:g} − {five:g} = {two - five:.1f}; attention products: {_BLOCKS - _GLOBAL} · {inside:.3f} +"
        f" {_GLOBAL} · {wide:.3f} + {decoder:.2f} = {total:.1f} GFLOPs",
    )


def i18(t5: "pd.DataFrame") -> Recount:
    """GFLOPs and latency from four windows to two."""
    gflops = [cell(t5, "gflops", step=step) for step in (6, 7)]
    times = [cell(t5, "latency_ms", step=step) for step in (6, 7)]
    tokens = 4**2 - 2**2
    saved = tokens * _BLOCKS * 24 * _WIDTH**2 / 1e9
    return Recount(
        gflops[1] < gflops[0] and times[1] > times[0],
        f"{gflops[0]:g} to {gflops[1]:g} GFLOPs, {times[0]:g} to {times[1]:g} ms; {tokens} class tokens"
        f" fewer: {tokens} · {_BLOCKS} · 24 · {_WIDTH}² = {saved:.2f} GFLOPs",
    )


def i19(t2: "pd.DataFrame", t4: "pd.DataFrame", t5: "pd.DataFrame", t6: "pd.DataFrame") -> Recount:
    """LW-DETR M in four tables."""
    found = {
        "Table 2": cell(t2, "gflops", model="LW-DETR", size="M"),
        "Table 4": cell(t4, "gflops", model="LW-DETR", size="M"),
        "Table 5": cell(t5, "gflops", step=0),
        "Table 6": cell(t6, "gflops", backbone="CAEv2"),
    }
    return Recount(len(set(found.values())) > 1, ", ".join(f"{k} {v:g}" for k, v in found.items()))


def i20(t5: "pd.DataFrame", t6: "pd.DataFrame") -> Recount:
    """Parameters of the CAEv2 row."""
    five, six = cell(t5, "params_m", step=1), cell(t6, "params_m", backbone="CAEv2")
    return Recount(five != six, f"{five:g} and {six:g} million")


def i21(t2: "pd.DataFrame", t9: "pd.DataFrame") -> Recount:
    """The unit that Table 9 prints."""
    units, counter = sorted(set(t9["unit_printed"])), "flopcountermode"
    nine = cell(t9, counter, model="LW-DETR")
    two = cell(t2, "gflops", model="LW-DETR", size="S")
    return Recount(
        units == ["M"] and abs(nine - two) < 0.05,
        f"LW-DETR S: {nine:g} {listed(units)} in Table 9, {two:g} G in Table 2",
    )


def i22(t9: "pd.DataFrame") -> Recount:
    """FlopCounterMode over the reported count, model by model."""
    ratios = {row["model"]: row["flopcountermode"] / row["reported"] for row in t9.to_dict("records")}
    return Recount(
        ratios["LW-DETR"] > 1.5,
        ", ".join(f"{model} {ratio:.2f}" for model, ratio in ratios.items()) + " times the reported count",
    )


def i23(t4_v1: "pd.DataFrame", t4: "pd.DataFrame") -> Recount:
    """The models that Table 4 lists."""
    names = [sorted(set(table["model"])) for table in (t4_v1, t4)]
    return Recount(
        not any("YOLO-E" in name or "YOLOE" in name for name in names[0]),
        f"Table 4 of v1 has {listed(names[0])}, without YOLO-E",
    )


def i24(t12: "pd.DataFrame", t14: "pd.DataFrame") -> Recount:
    """The cells of D-FINE XL in Table 14 and the COCO accuracy of Table 12."""
    shifted = [cell(t14, c, model="D-FINE", size="XL") for c in ("params_m", "gflops")]
    coco = [cell(t12, c, model="D-FINE", size="XL") for c in ("ap", "ap50")]
    true = [cell(t12, c, model="D-FINE", size="XL") for c in ("params_m", "gflops")]
    return Recount(
        shifted == coco and shifted != true,
        f"Table 14 prints {listed(shifted)}; Table 12 has AP and AP50 {listed(coco)}, parameters and GFLOPs"
        f" {listed(true)}",
    )


def _both(a: "pd.DataFrame", b: "pd.DataFrame", sizes: tuple[str, ...]) -> dict[str, list[list[float]]]:
    found = {}
    for size in sizes:
        parts = [rows(t, model="RF-DETR", variant="nas", size=size).iloc[0] for t in (a, b)]
        found[size] = [[float(part["params_m"]), float(part["gflops"])] for part in parts]
    return found


def _apart(found: dict[str, list[list[float]]]) -> Recount:
    return Recount(
        any(a != b for a, b in found.values()),
        "; ".join(f"{size}: {listed(a)} and {listed(b)}" for size, (a, b) in found.items()),
    )


def i25(t4: "pd.DataFrame", t18: "pd.DataFrame") -> Recount:
    """M in Tables 4 and 18 of v2."""
    return _apart(_both(t4, t18, ("M",)))


def i26(t4_v1: "pd.DataFrame", t17_v1: "pd.DataFrame") -> Recount:
    """N, S and M in Tables 4 and 17 of v1."""
    return _apart(_both(t4_v1, t17_v1, ("N", "S", "M")))


def i27(t3: "pd.DataFrame", t13: "pd.DataFrame") -> Recount:
    """GFLOPs over parameters: a family whose numbers come from one source scales smoothly."""
    small = rows(t3, model="YOLOv11").set_index("size")
    large = rows(t13, model="YOLOv11").set_index("size")
    ratios = {s: float(t["gflops"][s] / t["params_m"][s]) for t, s in
              ((small, "N"), (small, "S"), (small, "M"), (large, "L"), (large, "XL"))}  # fmt: skip
    return Recount(
        ratios["L"] < ratios["M"] - 0.5 and ratios["XL"] < ratios["M"],
        "GFLOPs per million parameters: " + ", ".join(f"{s} {r:.2f}" for s, r in ratios.items()),
    )


def i28(t2: "pd.DataFrame", t4: "pd.DataFrame") -> Recount:
    """GroundingDINO: FLOPs and latency in Tables 2 and 4."""
    pairs = [
        (cell(t, "gflops", model="GroundingDINO"), cell(t, "latency_ms", model="GroundingDINO"))
        for t in (t2, t4)
    ]
    return Recount(
        pairs[0][0] == pairs[1][0] and pairs[0][1] != pairs[1][1],
        f"{pairs[0][0]:g} GFLOPs in both, {pairs[0][1]:g} and {pairs[1][1]:g} ms",
    )


def i57(t4_v1: "pd.DataFrame") -> Recount:
    """Cells of v1 Table 4 with two decimals."""
    from rfdetr.paper import tables

    odd = [
        f"{row['model']} {row['size']} {column} {row[column]}"
        for row in tables.rows(4, 1)
        for column in ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
        if len(row[column].partition(".")[2]) > 1
    ]
    return Recount(len(odd) == 1, f"{listed(odd)}; {len(t4_v1)} rows were looked at")


def i71(t3: "pd.DataFrame", t8: "pd.DataFrame", t13: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """What 300 or 200 queries add to the parameters from M to L."""
    printed = cell(t13, "params_m", model="RF-DETR-Seg", size="L")
    printed -= cell(t3, "params_m", model="RF-DETR-Seg", size="M")
    grids = [cell(t8, "resolution", size=s) / cell(t8, "patch_size", size=s) for s in ("L", "M")]
    layers = [cell(t8, "decoder_layers", size=s) for s in ("L", "M")]
    positions = (grids[0] ** 2 - grids[1] ** 2) * _WIDTH / 1e6
    table, code = cell(t8, "queries", size="L"), numbers(side(sides, "rf-detr"))[0]
    before = cell(t8, "queries", size="M")
    added = {q: positions + (q - before) * _GROUPS * (_DECODER + 4) / 1e6 for q in (table, code)}
    fits = min(added, key=lambda q: abs(added[q] - printed))
    return Recount(
        table != code and fits == table and layers[0] == layers[1],
        f"from M to L the print adds {printed:.1f} million; "
        + ", ".join(f"{q:g} queries add {v:.2f}" for q, v in added.items())
        + f": the print fits {fits:g}",
    )
