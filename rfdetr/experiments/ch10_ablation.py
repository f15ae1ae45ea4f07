"""Table 5: the parameters and GFLOPs of each step from LW-DETR M to RF-DETR M."""

from typing import Any

import pandas as pd

from rfdetr.arch import PRESETS, Arch
from rfdetr.benchmark import peers
from rfdetr.benchmark.flops import analytic
from rfdetr.experiments.base.verdicts import Verdict
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.paper import tables

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


def verdicts(df: pd.DataFrame) -> list[Verdict]:
    """Verdicts on the claims about Table 5. df: from `step_counts`. Accuracy and latency are the paper's own
    numbers.
    """
    by = df.set_index("step")
    step = changes(df).set_index("step")

    def arithmetic(claim: str, number: int, ap: float, why: str) -> Verdict:
        found = float(step.ap[number])
        return Verdict(
            claim,
            "consistent" if abs(found - ap) < 0.051 else "contradicted",
            {"AP": round(found, 1)},
            why + " Table arithmetic; the accuracy was not measured here.",
        )

    ours = df[df.step >= 2]
    exact = ours.difference.abs().max()
    return [
        Verdict(
            "Table 5 leaves attention out of the GFLOPs of the rows with DINOv2",
            "reproduced" if exact < 1 else "contradicted",
            {"largest difference, %": round(float(exact), 2)},
            "LW-DETR M in the first two rows has it counted, so the table's GFLOPs must not be compared from"
            " row to row.",
        ),
        arithmetic("C090", 1, -1.0, "From LW-DETR M to the gentler setting."),
        arithmetic("C092", 2, 2.0, "From CAEv2 to DINOv2."),
        arithmetic("C093", 3, 0.7, "More pre-training."),
        arithmetic("C094", 4, 0.3, "Weight sharing, the same architecture."),
        arithmetic(
            "C095",
            5,
            -0.2,
            f"Both have {ARCHS[4].grid} and {ARCHS[5].grid} tokens a side, and counted GFLOPs change by"
            f" {step.gflops[5]:+.1f}.",
        ),
        arithmetic(
            "C096",
            6,
            -0.8,
            f"Counted GFLOPs change by {step.gflops[6]:+.1f} with attention,"
            f" {step.gflops_no_attention[6]:+.1f} without.",
        ),
        arithmetic(
            "C097",
            7,
            0.7,
            "The printed GFLOPs fall by 0.5 because attention is not counted; with it they rise by"
            f" {step.gflops[7]:.1f}.",
        ),
        Verdict(
            "C098",
            "consistent" if abs(step.params_m[8] - 1.5) < 0.05 else "contradicted",
            {"params, M": round(float(step.params_m[8]), 2), "GFLOPs": round(float(step.gflops[8]), 1)},
            "The parameters are counted; AP and latency are the paper's.",
        ),
        Verdict(
            "C099",
            (
                "consistent"
                if by.ap[9] - by.ap[0] >= 1.95 and by.latency_ms[9] == by.latency_ms[0]
                else "contradicted"
            ),
            {"AP": round(float(by.ap[9] - by.ap[0]), 1)},
            "Table arithmetic. The step from 300 to 300 queries adds nothing, as it must.",
        ),
    ]
