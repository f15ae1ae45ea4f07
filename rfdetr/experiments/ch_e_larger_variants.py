"""Appendix E: Table 11 recomputed from Tables 2 and 12, and the ViT-B family counted."""

import pandas as pd

from rfdetr.arch import PRESETS
from rfdetr.benchmark.flops import analytic, params_by_part
from rfdetr.model.config import preset_config
from rfdetr.paper import tables

SIZES = ("S", "M", "L", "XL")
LARGE = ("xlarge", "2xlarge", "max")
_TOLERANCE = 0.051


def _printed_ap() -> dict[tuple[str, str], float]:
    return {
        (row["model"], row["size"]): float(row["ap"])
        for number in (2, 12)
        for row in tables.rows(number)
        if row["ap"]
    }


def table_11() -> pd.DataFrame:
    """Table 11 taken apart: one row per RF-DETR backbone and D-FINE size.

    Columns: backbone, size (of D-FINE), d_fine (Table 11), d_fine_elsewhere (Tables 2 and 12), delta
    (printed), implied (AP of the RF-DETR model that the delta implies), same_ap (sizes of Tables 2 and 12
    with exactly this AP), recomputed (AP of the same-named size minus D-FINE's, both from Tables 2 and 12;
    missing where the backbone differs).
    """
    ap = _printed_ap()
    baseline = tables.find_row(11, method="D-FINE")
    rows = []
    for backbone in ("DINOv2-S", "DINOv2-B"):
        deltas = tables.find_row(11, backbone=backbone)
        for size in SIZES:
            column = f"ap_{size.lower()}_size"
            reference, delta = float(baseline[column]), float(deltas[column])
            implied = round(reference + delta, 1)
            same = [
                s
                for (model, s), value in ap.items()
                if model == "RF-DETR" and abs(value - implied) < _TOLERANCE
            ]
            name = {"S": "small", "M": "medium", "L": "large", "XL": "xlarge"}[size]
            matching = PRESETS[name].backbone == backbone.lower()
            rows.append(
                {
                    "backbone": backbone,
                    "size": size,
                    "d_fine": reference,
                    "d_fine_elsewhere": ap["D-FINE", size],
                    "delta": delta,
                    "implied": implied,
                    "same_ap": ", ".join(dict.fromkeys(same)),
                    "recomputed": round(ap["RF-DETR", size] - ap["D-FINE", size], 1) if matching else None,
                }
            )
    return pd.DataFrame(rows)


def over_latency() -> pd.DataFrame:
    """Printed AP and latency of D-FINE and of RF-DETR by backbone (Tables 2 and 12). Columns: family, size,
    latency_ms, ap.
    """
    backbones = {row["size"]: row["backbone"] for row in tables.rows(7)}
    rows = []
    for number in (2, 12):
        for row in tables.rows(number):
            if row["model"] in ("RF-DETR", "D-FINE"):
                name = row["model"]
                family = name if name == "D-FINE" else f"{name} ({backbones[row['size']]})"
                rows.append((family, row["size"], float(row["latency_ms"]), float(row["ap"])))
    frame = pd.DataFrame(rows, columns=["family", "size", "latency_ms", "ap"])
    return frame.drop_duplicates(ignore_index=True)


def family_counts(names: tuple[str, ...] = ("large", *LARGE)) -> pd.DataFrame:
    """The ViT-B family beside the largest ViT-S size.

    Columns: configuration, backbone, tokens, windows, params_m (all groups), params_printed, backbone_m,
    rest_m, gflops (as printed: attention in, predictions of every decoder layer), gflops_printed, attention
    (share of attention products, %).
    """
    rows = []
    for name in names:
        preset = PRESETS[name]
        config = preset_config(name)
        counted = analytic(config, convention="published")
        parts = params_by_part(config)
        backbone = (
            sum(v for part, v in parts.items() if part.startswith(("backbone", "patch embedding"))) / 1e6
        )
        rows.append(
            {
                "configuration": name,
                "backbone": preset.backbone,
                "tokens": preset.arch.tokens,
                "windows": preset.arch.windows,
                "params_m": counted.params / 1e6,
                "params_printed": preset.params_m,
                "backbone_m": backbone,
                "rest_m": counted.params / 1e6 - backbone,
                "gflops": counted.gflops,
                "gflops_printed": preset.gflops,
                "attention": 100 * (1 - counted.gflops_no_attention / counted.gflops),
                "latency_ms": preset.latency_ms,
                "ap": preset.ap,
            }
        )
    return pd.DataFrame(rows)


def width_swap() -> pd.DataFrame:
    """Each backbone at each other's knobs: what doubling the width costs. Columns: knobs_of, backbone,
    params_m, gflops (deployed).
    """
    rows = []
    for name in ("large", "xlarge"):
        arch = PRESETS[name].arch
        for label, source in (("dinov2-s", "large"), ("dinov2-b", "xlarge")):
            config = preset_config(
                source,
                default_arch=arch,
                base_patch=arch.patch_size,
                position_grid=arch.grid,
                decoder_layers=arch.decoder_layers,
            )
            counted = analytic(config, arch)
            rows.append((name, label, counted.params / 1e6, counted.gflops))
    return pd.DataFrame(rows, columns=["knobs_of", "backbone", "params_m", "gflops"])
