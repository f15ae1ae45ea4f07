"""Table 5: the parameters and GFLOPs of each step from LW-DETR M to RF-DETR M."""

from typing import Any

import pandas as pd

from rfdetr.arch import PRESETS, Arch
from rfdetr.benchmark.flops import analytic
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.paper import tables
from rfdetr.peers import catalogue as peers

ARCHS = {
    2: Arch(560, 14, 4, 3, 300),
    3: Arch(560, 14, 4, 3, 300),
    4: Arch(560, 14, 4, 3, 300),
    5: Arch(640, 16, 4, 3, 300),
    6: Arch(576, 16, 4, 3, 300),
    7: Arch(576, 16, 2, 3, 300),
    8: Arch(576, 16, 2, 4, 300),
    9: Arch(576, 16, 2, 4, 300),
}
"""Sub-network of each printed step that has the DINOv2 backbone; steps 0 and 1 are LW-DETR M."""
_PATCH = 16  # the default of the class that builds LW-DETR's backbone


def step_counts() -> pd.DataFrame:
    """One row per printed step.

    Columns: step, label, arch (id, or the model's name), params_printed and params_m, gflops_printed,
    gflops_no_attention and gflops (the plain call that the print fits), difference (% of the print without
    attention for our steps; for LW-DETR, whose print counts attention, with it), deployed and
    deployed_no_attention (GFLOPs of the exported graph), latency_ms and ap as printed. Which blocks are
    global the table does not say, and without attention it makes no difference: those of RF-DETR medium are
    taken for all steps (see `base_blocks`).
    """
    rows = []
    for row in tables.rows(5):
        step = int(row["step"])
        printed = float(row["gflops"])
        if step in ARCHS:
            arch = ARCHS[step]
            config = _config(arch)
            counted, exported = analytic(config, arch, "published"), analytic(config, arch)
            name, params = arch.id, counted.params / 1e6
            bare, full, compared = counted.gflops_no_attention, counted.gflops, counted.gflops_no_attention
            deployed, deployed_bare = exported.gflops, exported.gflops_no_attention
        else:
            entry = peers.find("LW-DETR", "M")
            name, params = "LW-DETR M", entry["params_m"]
            bare, full = entry["gflops_no_attention"], entry["gflops_with_attention"]
            compared = full
            deployed, deployed_bare = full, bare
        rows.append(
            {
                "step": step,
                "label": row["label_printed"],
                "arch": name,
                "params_printed": float(row["params_m"]),
                "params_m": params,
                "gflops_printed": printed,
                "gflops_no_attention": bare,
                "gflops": full,
                "difference": 100 * (compared / printed - 1),
                "deployed": deployed,
                "deployed_no_attention": deployed_bare,
                "latency_ms": float(row["latency_ms"]),
                "ap": float(row["ap"]),
            }
        )
    return pd.DataFrame(rows)


def _config(arch: Arch, **changes: Any) -> ModelConfig:
    sizes = {
        "base_patch": arch.patch_size,
        "position_grid": arch.grid,
        "decoder_layers": arch.decoder_layers,
    }
    return preset_config("medium", default_arch=arch, **sizes, **changes)


def base_blocks(step: int = 4) -> pd.DataFrame:
    """One step with the global blocks of RF-DETR medium and with those of the released base model.

    Columns: blocks (0-based), gflops_no_attention, gflops (the plain call that the print fits).
    """
    arch = ARCHS[step]
    rows = []
    for name in ("medium", "base"):
        config = _config(arch, feature_layers=PRESETS[name].feature_layers)
        counted = analytic(config, arch, "published")
        blocks = tuple(block for block in config.feature_layers if block < config.depth)
        rows.append((blocks, counted.gflops_no_attention, counted.gflops))
    return pd.DataFrame(rows, columns=["blocks", "gflops_no_attention", "gflops"])


def changes(df: pd.DataFrame) -> pd.DataFrame:
    """What each step adds. df: from `step_counts`. Columns: step, label, ap, latency_ms, gflops_printed,
    gflops, params_m (differences).
    """
    columns = ["ap", "latency_ms", "gflops_printed", "gflops_no_attention", "gflops", "params_m"]
    return pd.concat([df[["step", "label"]], df[columns].diff()], axis=1).iloc[1:].reset_index(drop=True)


def query_row() -> pd.DataFrame:
    """The last printed step keeps 300 queries; what fewer would save. Columns: queries, params_m, gflops
    (deployed).
    """
    rows = []
    for queries in (300, 200, 100, 50):
        arch = ARCHS[9].replace(queries=queries)
        counted = analytic(preset_config("medium"), arch)
        rows.append((queries, counted.params / 1e6, counted.gflops))
    return pd.DataFrame(rows, columns=["queries", "params_m", "gflops"])


def backbone_depths() -> pd.DataFrame:
    """The two backbones of Table 5 as built. Columns: backbone, layers, patch_size, params_m, printed,
    difference (millions).
    """
    light = peers.find("LW-DETR", "M")
    sizes = light["config"]["backbone_config"]["kwargs"]
    base = _config(ARCHS[2])
    built = analytic(base, ARCHS[2], "published").params / 1e6
    printed = {int(row["step"]): float(row["params_m"]) for row in tables.rows(5)}
    rows = [
        ("CAEv2", sizes["num_hidden_layers"], sizes.get("patch_size", _PATCH), light["params_m"], printed[0]),
        ("DINOv2", base.depth, base.base_patch, built, printed[2]),
    ]
    df = pd.DataFrame(rows, columns=["backbone", "layers", "patch_size", "params_m", "printed"])
    return df.assign(difference=df.params_m - df.printed)
