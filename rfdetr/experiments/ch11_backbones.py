"""Tables 6 and 19: four backbones in one detector, counted, and what their printed GFLOPs count.

Three of the four are in the record of peers, each with the sum of backbone and the rest of LW-DETR medium;
the one with DINOv2 is the third step of Table 5, counted here. Nothing is trained.
"""

from typing import TYPE_CHECKING, Any

from rfdetr.benchmark.flops import analytic
from rfdetr.experiments.ch10_ablation import ARCHS, step_counts
from rfdetr.model.config import ModelConfig
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.cells import SIMILAR
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

RECORDS = {"CAEv2": "caev2-vit-s", "SigLIPv2": "siglip2-vit-b", "SAM2 Hiera": "hiera-s"}
"""Backbone of the tables -> name in the record of peers."""
_DINO_STEP = 2
TOLERANCE = 2.0
"""Per cent within which a count is that of the print."""
_WIDER = {"embed_dim": 768, "heads": 12}


def detectors() -> "pd.DataFrame":
    """One row per backbone of Table 6.

    Columns: backbone, architecture, params_printed, params_m, gflops_printed, gflops (attention counted),
    gflops_no_attention, printed_counts (which of the two the print is within `TOLERANCE` of, or neither),
    difference (% of the print, of the nearer one), latency_ms, ap, ap_small (Table 19), source.
    """
    import pandas as pd

    small = tables.table(19).set_index("backbone")["ap"]
    rows = []
    for row in tables.rows(6):
        name, printed = row["backbone"], float(row["gflops"])
        params, full, bare, source = _counted(name)
        off = {"with attention": 100 * (full / printed - 1), "without attention": 100 * (bare / printed - 1)}
        nearer = min(off, key=lambda way: abs(off[way]))
        rows.append(
            {
                "backbone": name,
                "architecture": row["architecture"],
                "params_printed": float(row["params_m"]),
                "params_m": params,
                "gflops_printed": printed,
                "gflops": full,
                "gflops_no_attention": bare,
                "printed_counts": nearer if abs(off[nearer]) <= TOLERANCE else "neither",
                "difference": off[nearer],
                "latency_ms": float(row["latency_ms"]),
                "ap": float(row["ap"]),
                "ap_small": float(small[name]),
                "source": source,
            }
        )
    return pd.DataFrame(rows)


def _counted(backbone: str) -> tuple[float, float, float, str]:
    """Million parameters, GFLOPs with and without attention, and where they come from."""
    if backbone in RECORDS:
        found = catalogue.named(RECORDS[backbone])["estimated_detector"]
        counts = (found["params_m"], found["gflops_with_attention"], found["gflops_no_attention"])
        return *counts, "record: backbone, and the rest of LW-DETR M"
    step: Any = step_counts().set_index("step").loc[_DINO_STEP]
    values = [float(step[column]) for column in ("params_m", "gflops", "gflops_no_attention")]
    return values[0], values[1], values[2], "counted here: Table 5, third row"


def alone() -> "pd.DataFrame":
    """Backbones without their detector. Columns: backbone, input (side, px), params_m, gflops,
    gflops_no_attention, attention (% of gflops).

    DINOv2 S and B are those of this package at the third step of Table 5: everything before the projector.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for name, key in RECORDS.items():
        entry = catalogue.named(key)
        full, bare = entry["gflops_with_attention"], entry["gflops_no_attention"]
        rows.append(_alone(f"{name} ({entry['name']})", entry["input"][0], entry["params_m"], full, bare))
    for size, changes in (("S", {}), ("B", _WIDER)):
        config = _dinov2(changes)
        arch = ARCHS[_DINO_STEP]
        counted = analytic(config, arch)
        stages = ("embedding", "windowed attention", "global attention", "backbone MLP")
        full = sum(counted.by_stage[stage] for stage in stages)
        bare = full - sum(counted.attention_by_stage.get(stage, 0.0) for stage in stages)
        params = _backbone_params(config, arch)
        rows.append(_alone(f"DINOv2 ViT-{size}/14", arch.resolution, params, full, bare))
    return pd.DataFrame(rows)


def _alone(name: str, side: int, params: float, full: float, bare: float) -> dict[str, Any]:
    return {
        "backbone": name,
        "input": side,
        "params_m": params,
        "gflops": full,
        "gflops_no_attention": bare,
        "attention": 100 * (1 - bare / full),
    }


def _dinov2(changes: dict[str, int]) -> ModelConfig:
    from rfdetr.model.config import preset_config

    arch = ARCHS[_DINO_STEP]
    sizes = {"base_patch": arch.patch_size, "position_grid": arch.grid, "decoder_layers": arch.decoder_layers}
    return preset_config("medium", default_arch=arch, **sizes, **changes)


def _backbone_params(config: ModelConfig, arch: Any) -> float:
    from rfdetr.benchmark.flops import params_by_part

    parts = params_by_part(config, arch)
    return sum(value for part, value in parts.items() if part.startswith(("backbone", "patch"))) / 1e6


def per_operation(df: "pd.DataFrame") -> "pd.DataFrame":
    """Printed latency per operation. df: from `detectors`.

    Columns: backbone, gflops, latency_ms, gflops_per_ms, relative (gflops_per_ms over that of DINOv2).
    """
    rate = df.gflops / df.latency_ms
    base = float(rate[df.backbone == "DINOv2"].iloc[0])
    found = df[["backbone", "gflops", "latency_ms"]].assign(gflops_per_ms=rate, relative=rate / base)
    return found.sort_values("gflops_per_ms", ascending=False, ignore_index=True)


def timed(result: "Kept", protocol: str = "sustained") -> "pd.DataFrame":
    """Hiera-S beside each plain transformer on a processor: one row per transformer, runtime, precision asked
    for and threads. result: the kept run of the backbones in turns.

    Columns: hiera_ms, vit_ms (medians over rounds), ratio (of times: median over rounds), least, most (of
    the rounds), cost_ratio (of GFLOPs, attention counted), per_operation (time per operation, Hiera-S over
    the transformer).
    """
    import pandas as pd

    rows = result.tables["rows"]
    setting = ["runtime", "asked", "threads"]
    wide = rows[rows.protocol == protocol].pivot_table(
        index=[*setting, "round"], columns="model", values="median_ms"
    )
    hiera = RECORDS["SAM2 Hiera"]
    found = []
    for name, model in RECORDS.items():
        if model == hiera or model not in wide:
            continue
        both = wide[[hiera, model]].dropna().set_axis(["hiera_ms", "vit_ms"], axis=1)
        ratios = (both.hiera_ms / both.vit_ms).groupby(setting, sort=False)
        part = both.groupby(setting, sort=False).median()
        part = part.assign(ratio=ratios.median(), least=ratios.min(), most=ratios.max())
        costs = [catalogue.named(key)["gflops_with_attention"] for key in (hiera, model)]
        part = part.assign(cost_ratio=costs[0] / costs[1]).reset_index()
        found.append(part.assign(per_operation=part.ratio / part.cost_ratio, backbone=name))
    return pd.concat(found, ignore_index=True)


def timed_said(found: "pd.DataFrame") -> str:
    """Whether Hiera-S is slower than plain transformers at equal cost on this processor. found: from
    `timed`.
    """
    least, most = found.per_operation.min(), found.per_operation.max()
    names = " or ".join(dict.fromkeys(found.backbone))
    times = f"An operation of Hiera-S takes {least:.2f} to {most:.2f} times as long as one of {names}"
    if least > 1 + SIMILAR:
        return f"{times}: the paper's surprise is seen on this processor as well, at equal cost."
    if most < 1 - SIMILAR:
        return f"{times}: on this processor the opposite of the paper's surprise is seen."
    if least >= 1 - SIMILAR and most <= 1 + SIMILAR:
        return f"{times}, which is within 10 %: on this processor operations explain it."
    return f"{times}: it depends on runtime, precision and threads whether Hiera-S is slower at equal cost."
