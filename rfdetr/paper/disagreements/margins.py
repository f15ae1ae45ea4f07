"""Disagreements about margins and rankings of detectors (I29 to I45, I47 to I56, I64)."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import HALF_DIGIT, SIZES, ap, cell, joined, ms, rows, unbeaten
from rfdetr.paper.arithmetic.rf100vl import YOLO, difference, ours
from rfdetr.paper.disagreements.recount import Recount, listed, numbers, side, signed

if TYPE_CHECKING:
    import pandas as pd

_PAIRS = {"M": "M", "L": "R50", "XL": "R101"}


def i29(t1: "pd.DataFrame", t2: "pd.DataFrame", t11: "pd.DataFrame", t20: "pd.DataFrame") -> Recount:
    """COCO AP of D-FINE M."""
    found = {
        "Table 11": cell(t11, "ap_m_size", method="D-FINE"),
        "Table 2": ap(t2, "D-FINE", "M"),
        "Table 1, reported": cell(t1, "ap", model="D-FINE", setting="reported"),
        "Table 1, FP16": cell(t1, "ap", model="D-FINE", setting="buffering_fp16"),
        "Table 20": ap(t20, "D-FINE", "M"),
    }
    return Recount(len(set(found.values())) > 1, ", ".join(f"{k} {v:g}" for k, v in found.items()))


def i30(t2: "pd.DataFrame", t5: "pd.DataFrame") -> Recount:
    """The end of Table 5 against Table 2."""
    columns = ("ap", "ap75", "ap_s", "ap_m", "ap_l")
    two = [cell(t2, c, model="RF-DETR", size="M") for c in columns]
    five = [cell(t5, c, step=int(t5["step"].max())) for c in columns]
    return Recount(two != five, f"AP, AP75, small, medium, large: {listed(five)} and {listed(two)}")


def i31(t6: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """DINOv2 over CAEv2."""
    margin = round(ap_of(t6, "DINOv2") - ap_of(t6, "CAEv2"), 1)
    caption, text = (numbers(side(sides, place))[0] for place in ("caption", "Section 4"))
    return Recount(caption != margin, f"table {margin:g}, caption {caption:g}, text {text:g}")


def ap_of(table: "pd.DataFrame", backbone: str) -> float:
    """AP of one backbone in Table 6 or 19."""
    return cell(table, "ap", backbone=backbone)


def i32(t14: "pd.DataFrame", t14_v1: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """XL over D-FINE XL in both versions."""
    v1, v2 = (round(ours(t, "nas")["XL"] - ap(t, "D-FINE", "XL"), 1) for t in (t14_v1, t14))
    caption = numbers(side(sides, "caption"))[0]
    return Recount(v2 != caption == v1, f"v1 {v1:+.1f}, v2 {v2:+.1f}, caption {caption:+.1f}")


def i33(t14: "pd.DataFrame") -> Recount:
    """Sizes of RF-DETR in Table 14."""
    sizes = list(dict.fromkeys(rows(t14, model="RF-DETR")["size"]))
    return Recount("Max" not in sizes, f"RF-DETR rows of Table 14: {listed(sizes)}")


def i35(t14: "pd.DataFrame", t18: "pd.DataFrame") -> Recount:
    """Fixed L against D-FINE XL."""
    fixed = rows(t18, variant="fixed_architecture", size="L").iloc[0]
    fine, slow = ap(t14, "D-FINE", "XL"), ms(t14, "D-FINE", "XL")
    return Recount(
        float(fixed["ap"]) == fine, f"{fixed['ap']:g} at {fixed['latency_ms']:g} ms, {fine:g} at {slow:g} ms"
    )


def i36(t18: "pd.DataFrame", t17_v1: "pd.DataFrame") -> Recount:
    """Searched minus fixed, in both versions."""
    v2, v1 = (difference(ours(t, "nas"), ours(t, "fixed_architecture")) for t in (t18, t17_v1))
    return Recount(min(v2.values()) < 0, f"v2: {signed(v2)}; v1: {signed(v1)}")


def i37(t4: "pd.DataFrame", t18: "pd.DataFrame") -> Recount:
    """LW-DETR to fixed, and fixed to searched."""
    fixed = ours(t18, "fixed_architecture")
    sizes = ("N", "S", "M")
    first = {s: fixed[s] - ap(t4, "LW-DETR", s) for s in sizes}
    second = {s: ours(t18, "nas")[s] - fixed[s] for s in sizes}
    tuned = {s: ours(t18, "nas_fine_tuned")[s] - fixed[s] for s in sizes}
    return Recount(
        any(first[s] > 2 * second[s] for s in sizes),
        f"LW-DETR to fixed {signed(first)}; fixed to searched {signed(second)}; fine-tuned {signed(tuned)}",
    )


def i38(t16: "pd.DataFrame", t18: "pd.DataFrame") -> Recount:
    """Gains of fine-tuning on RF100-VL, and sizes without any on COCO."""
    gains = difference(ours(t18, "nas_fine_tuned"), ours(t18, "nas"))
    tuned = t16[t16["variant"] == "nas_fine_tuned"]
    none = tuned.loc[tuned["ap"].isna(), "size"].tolist()
    return Recount(
        min(gains.values()) > 0 and bool(none),
        f"RF100-VL: {signed(gains)}; COCO masks: {listed(none)} did not improve",
    )


def _deltas(t15: "pd.DataFrame") -> dict[str, float]:
    tuned = t15[t15["variant"] == "nas_fine_tuned"]
    return dict(zip(tuned["size"], tuned["ap"].astype(float).tolist(), strict=True))


def i39(t15: "pd.DataFrame") -> Recount:
    """Differences in AP of Table 15."""
    found = _deltas(t15)
    return Recount(min(found.values()) >= 0, signed(found))


def i40(t15: "pd.DataFrame") -> Recount:
    """Does the gain shrink with the size?"""
    found = _deltas(t15)
    return Recount(
        found["XL"] > max(found[s] for s in ("S", "M", "L")),
        f"{signed(found)}: XL gains more than S, M and L",
    )


def i41(t2: "pd.DataFrame") -> Recount:
    """S and M over D-FINE and LW-DETR."""
    found = {
        f"{s} over {m}": ap(t2, "RF-DETR", s) - ap(t2, m, s)
        for s in ("N", "S", "M")
        for m in ("D-FINE", "LW-DETR")
        if not (s == "N" and m == "LW-DETR")
    }
    return Recount(found["M over D-FINE"] < 0 < 5 < found["N over D-FINE"], signed(found))


def i42(t2: "pd.DataFrame", t12: "pd.DataFrame") -> Recount:
    """Rows above every RF-DETR of similar latency, up to 40 ms."""
    better = unbeaten(joined(t2, t12), 40)
    return Recount(bool(better), f"no RF-DETR up to 10 % slower reaches: {listed(better) or 'all reached'}")


def i43(t4: "pd.DataFrame", t4_v1: "pd.DataFrame") -> Recount:
    """Nano without and with fine-tuning against D-FINE nano."""
    fine = ap(t4, "D-FINE", "N")
    parts = {
        f"{version}, {label}": ours(t, variant)["N"] - fine
        for version, t in (("v1", t4_v1), ("v2", t4))
        for label, variant in (("searched", "nas"), ("fine-tuned", "nas_fine_tuned"))
    }
    return Recount(
        parts["v2, searched"] < 0 < parts["v2, fine-tuned"], f"minus D-FINE N ({fine:g}): {signed(parts)}"
    )


def i44(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Recount:
    """D-FINE minus RT-DETR, in AP and AP50."""
    every = joined(t4, t14)
    found = {}
    for column in ("ap", "ap50"):
        found[column] = {
            size: cell(every, column, model="D-FINE", size=size)
            - cell(every, column, model="RT-DETR", size=other)
            for size, other in _PAIRS.items()
        }
    return Recount(
        max(found["ap"].values()) > 0 > max(found["ap50"].values()),
        f"D-FINE minus RT-DETR: AP {signed(found['ap'])}; AP50 {signed(found['ap50'])}",
    )


def i45(t3: "pd.DataFrame") -> Recount:
    """FastInst: latency ratio and margin."""
    ratio = ms(t3, "FastInst", "R50") / ms(t3, "RF-DETR-Seg", "N")
    margin = ap(t3, "RF-DETR-Seg", "N") - ap(t3, "FastInst", "R50")
    runtimes = {rows(t3, model=m)["latency_runtime"].iloc[0] for m in ("FastInst", "RF-DETR-Seg")}
    return Recount(
        ratio > 10 or len(runtimes) > 1,
        f"ratio {ratio:.1f}, runtimes {listed(sorted(runtimes))}; AP {margin:+.1f} points",
    )


def i46(t3: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """The margin over FastInst, in the caption and in the text of v1."""
    margin = round(ap(t3, "RF-DETR-Seg", "N") - ap(t3, "FastInst", "R50"), 1)
    caption, text = (numbers(side(sides, place))[0] for place in ("caption", "Section 4"))
    return Recount(caption != margin == text, f"table {margin:g}, v1 caption {caption:g}, v1 text {text:g}")


def i47(t4: "pd.DataFrame") -> Recount:
    """2XL against GroundingDINO: margins with and without fine-tuning, ratio, runtimes."""
    other = ap(t4, "GroundingDINO", "T")
    tuned, plain = (ours(t4, v)["2XL"] - other for v in ("nas_fine_tuned", "nas"))
    ratio = ms(t4, "GroundingDINO", "T") / rows(t4, model="RF-DETR", size="2XL")["latency_ms"].iloc[0]
    mixed = rows(t4, model="GroundingDINO")["latency_runtime"].iloc[0] != "tensorrt"
    return Recount(
        bool(mixed) and abs(tuned - plain) > HALF_DIGIT,
        f"{tuned:+.1f} fine-tuned, {plain:+.1f} without; {ratio:.1f} times, PyTorch against TensorRT",
    )


def i48(t4: "pd.DataFrame") -> Recount:
    """AP of small objects."""
    others = {m: cell(t4, "ap_s", model=m) for m in ("GroundingDINO", "LLMDet")}
    own = [float(v) for v in rows(t4, model="RF-DETR", size="2XL")["ap_s"]]
    return Recount(
        max(own) < min(others.values()),
        f"small objects: {', '.join(f'{m} {v:g}' for m, v in others.items())}; 2XL {listed(own)}",
    )


def i49(t2: "pd.DataFrame") -> Recount:
    """Nano against D-FINE nano."""
    margin = ap(t2, "RF-DETR", "N") - ap(t2, "D-FINE", "N")
    slower = ms(t2, "RF-DETR", "N") / ms(t2, "D-FINE", "N")
    return Recount(
        slower > 1 and abs(margin - 5) > HALF_DIGIT, f"{margin:.1f} points at {slower:.2f} times the latency"
    )


def i50(t2: "pd.DataFrame", t11: "pd.DataFrame") -> Recount:
    """The sizes of D-FINE that Table 11 compares with."""
    columns = [c for c in t11.columns if c.endswith("_size")]
    sizes = [c.removeprefix("ap_").removesuffix("_size").upper() for c in columns]
    has = not rows(t2, model="D-FINE", size="N").empty
    return Recount("N" not in sizes and has, f"Table 11 compares {listed(sizes)}; Table 2 has D-FINE N")


def i51(t2: "pd.DataFrame", t11: "pd.DataFrame", t12: "pd.DataFrame") -> Recount:
    """AP that Table 11 implies, found among the published models."""
    base = rows(t11, method="D-FINE").iloc[0]
    same = []
    for backbone, size, table in (("DINOv2-S", "S", t2), ("DINOv2-B", "XL", t12)):
        column = f"ap_{size.lower()}_size"
        implied = float(base[column]) + float(rows(t11, backbone=backbone).iloc[0][column])
        printed = ap(table, "RF-DETR", size)
        same.append((size, implied, printed))
    return Recount(
        all(abs(implied - printed) < HALF_DIGIT for _, implied, printed in same),
        "; ".join(f"{size}: {implied:.1f}, published {printed:g}" for size, implied, printed in same),
    )


def i52(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Recount:
    """Rows whose AP is above all of their size-specific APs."""
    every = joined(t4, t14).dropna(subset=["ap_s"])
    above = every[every["ap"] > every[["ap_s", "ap_m", "ap_l"]].max(axis=1)]
    yolo = int(above["model"].isin(YOLO).sum())
    return Recount(
        0 < yolo == len(above) == int(every["model"].isin(YOLO).sum()),
        f"{yolo} of {int(every['model'].isin(YOLO).sum())} YOLO rows, {len(above) - yolo} of the other"
        f" {int((~every['model'].isin(YOLO)).sum())}",
    )


def i53(t4: "pd.DataFrame", t14: "pd.DataFrame") -> Recount:
    """YOLO from N to XL on RF100-VL."""
    every = joined(t4, t14)
    found = {m: [ap(every, m, s) for s in ("N", "S", "M", "L", "XL")] for m in YOLO}
    return Recount(
        any(v[2] - v[0] > 1 for v in found.values()), "; ".join(f"{m} {listed(v)}" for m, v in found.items())
    )


def i54(t3: "pd.DataFrame", t13: "pd.DataFrame") -> Recount:
    """YOLO segmentation from N to XL on COCO."""
    every = joined(t3, t13)
    found = {m: [ap(every, m, s) for s in ("N", "S", "M", "L", "XL")] for m in YOLO}
    return Recount(
        all(v[-1] - v[0] > 5 for v in found.values()), "; ".join(f"{m} {listed(v)}" for m, v in found.items())
    )


def i55(t6: "pd.DataFrame", t19: "pd.DataFrame") -> Recount:
    """Margins of DINOv2 in Tables 6 and 19, and the order of latencies."""
    margins = {
        other: [round(ap_of(t, "DINOv2") - ap_of(t, other), 1) for t in (t6, t19)]
        for other in ("SAM2 Hiera", "CAEv2")
    }
    slower = [
        cell(t, "latency_ms", backbone="SigLIPv2") - cell(t, "latency_ms", backbone="DINOv2")
        for t in (t6, t19)
    ]
    return Recount(
        margins["SAM2 Hiera"][1] <= 0 < margins["SAM2 Hiera"][0] or slower[0] * slower[1] < 0,
        "; ".join(f"over {other} {a:+.1f} becomes {b:+.1f}" for other, (a, b) in margins.items())
        + f"; SigLIPv2 minus DINOv2 {slower[0]:+.1f} and {slower[1]:+.1f} ms",
    )


def i56(t6: "pd.DataFrame", t19: "pd.DataFrame") -> Recount:
    """DINOv2 over CAEv2 on the large and on the small data."""
    large, small = (round(ap_of(t, "DINOv2") - ap_of(t, "CAEv2"), 1) for t in (t6, t19))
    return Recount(small < large, f"{large:+.1f} on COCO, {small:+.1f} on RF20-VL")


def i64(t18: "pd.DataFrame", sides: list[dict[str, Any]]) -> Recount:
    """Searched against fixed latency, size by size."""
    wide = t18[t18["variant"].isin(["nas", "fixed_architecture"])]
    times = wide.pivot(index="size", columns="variant", values="latency_ms")
    apart = (100 * (times["nas"] / times["fixed_architecture"] - 1)).round().reindex(SIZES)
    limit = numbers(side(sides, "Figure 1"))[0]
    return Recount(
        bool((apart.abs() > limit).any()),
        ", ".join(f"{size} {value:+.0f} %" for size, value in apart.items()) + f"; stated {limit:g} %",
    )
