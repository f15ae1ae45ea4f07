"""Tables 7 and 8: every published configuration built, counted, and compared with Tables 2, 3, 12 and 13."""

from typing import TYPE_CHECKING

import pandas as pd

from rfdetr.arch import PRESETS, TRAINING_GRID, Arch
from rfdetr.benchmark.flops import STAGES, analytic, count, params_by_part
from rfdetr.experiments.ch02_search_space import rounding_table
from rfdetr.model.config import preset_config

if TYPE_CHECKING:
    from collections.abc import Iterable

PARAMS_TOLERANCE = 0.1
"""Millions; tables print one digit."""
GFLOPS_TOLERANCE = 1.0
"""Per cent."""
_TABLES = {
    name: "Table 3/13" if preset.segmentation else "Table 2/12" for name, preset in PRESETS.items()
} | {"base": "Table 5"}


def knob_table() -> pd.DataFrame:
    """One row per published configuration.

    Columns: configuration, backbone, the five knobs, grid and tokens, window_tokens (class token included),
    from_grid (grid resolution it is rounded from), global_blocks (0-based, of twelve).
    """
    rounding = rounding_table().set_index("configuration")
    rows = []
    for name, preset in PRESETS.items():
        arch = preset.arch
        rows.append(
            {
                "configuration": name,
                "backbone": preset.backbone,
                **arch.to_dict(),
                "grid": arch.grid,
                "tokens": arch.tokens,
                "window_tokens": 1 + (arch.grid // arch.windows) ** 2,
                "from_grid": rounding.from_grid[name],
                "global_blocks": tuple(
                    b for b in range(preset_config(name).depth) if b in preset.feature_layers
                ),
            }
        )
    return pd.DataFrame(rows)


def count_table(names: "Iterable[str]" = tuple(PRESETS)) -> pd.DataFrame:
    """Parameters and GFLOPs of published configurations against the print, counted by torch without any
    weights.

    Columns: configuration, table, params_printed and params_m (millions, all query groups), params_deployed;
    gflops_printed, gflops (a plain call of the training code), gflops_no_attention (the same without
    attention products), deployed (the exported graph, attention counted), matches (which convention the print
    follows, or none), difference (% of that convention, or of the nearest).
    """
    return pd.DataFrame([_count_row(name) for name in names])


def _count_row(name: str) -> dict[str, object]:
    preset = PRESETS[name]
    config = preset_config(name)
    published = count(config, convention="published")
    # The deployed graph differs by formula alone; counting it again would only take time.
    deployed = analytic(config)
    conventions = {"attention counted": published.gflops, "attention left out": published.gflops_no_attention}
    assert preset.gflops is not None
    printed = preset.gflops
    nearest = min(conventions, key=lambda c: abs(conventions[c] / printed - 1))
    difference = 100 * (conventions[nearest] / printed - 1)
    return {
        "configuration": name,
        "table": _TABLES[name],
        "params_printed": preset.params_m,
        "params_m": built_parameters(name) / 1e6,
        "params_deployed": published.params_deployed / 1e6,
        "gflops_printed": printed,
        "gflops": published.gflops,
        "gflops_no_attention": published.gflops_no_attention,
        "deployed": deployed.gflops,
        "matches": nearest if abs(difference) <= GFLOPS_TOLERANCE else "none",
        "difference": difference,
    }


def built_parameters(name: str, **changes: int) -> int:
    """Parameters of a configuration, with some sizes changed, read from the built network (on torch's meta
    device, so without memory).
    """
    import torch

    import rfdetr

    with torch.device("meta"):
        return sum(p.numel() for p in rfdetr.build(name, **changes).parameters())


def stage_shares(names: "Iterable[str]" = tuple(PRESETS)) -> pd.DataFrame:
    """Share (%) of every stage in the GFLOPs of the deployed graph. Columns: configuration, stage, share,
    gflops.
    """
    rows = []
    for name in names:
        counted = analytic(preset_config(name))
        rows += [
            (name, stage, 100 * counted.by_stage[stage] / counted.gflops, counted.by_stage[stage])
            for stage in STAGES
        ]
    return pd.DataFrame(rows, columns=["configuration", "stage", "share", "gflops"])


def decoder_steps() -> pd.DataFrame:
    """What one more decoder layer adds, for detection and segmentation at the knobs of medium.

    Columns: task, decoder_layers, params_m (all groups), added_m, mask_head_m, gflops (deployed).
    """
    rows = []
    for task, name in (("detection", "medium"), ("segmentation", "seg-medium")):
        before = None
        config = preset_config(name, decoder_layers=6)
        arch = PRESETS[name].arch
        for depth in range(7):
            parts = params_by_part(config, arch.replace(decoder_layers=depth))
            total = sum(parts.values()) / 1e6
            rows.append(
                {
                    "task": task,
                    "decoder_layers": depth,
                    "params_m": total,
                    "added_m": None if before is None else total - before,
                    "mask_head_m": parts["mask head"] / 1e6,
                    "gflops": analytic(config, arch.replace(decoder_layers=depth)).gflops,
                }
            )
            before = total
    return pd.DataFrame(rows)


def mask_head_cost(name: str = "seg-medium") -> pd.DataFrame:
    """The same sub-network without and with a mask head. Columns: task, params_m, mask_head_m (of them),
    gflops (deployed).
    """
    arch: Arch = PRESETS[name].arch
    rows = []
    for task, masks in (("detection", False), ("segmentation", True)):
        config = preset_config(name, segmentation=masks)
        counted = analytic(config, arch)
        head = params_by_part(config, arch)["mask head"] / 1e6
        rows.append((task, counted.params / 1e6, head, counted.gflops))
    return pd.DataFrame(rows, columns=["task", "params_m", "mask_head_m", "gflops"])


def position_grids(name: str = "nano") -> pd.DataFrame:
    """Parameters of one size with its own position grid and with that of the whole search grid.

    Columns: grid (positions a side), params_m, printed.
    """
    own = preset_config(name)
    rows = []
    for grid in (own.position_grid, TRAINING_GRID.position_grid):
        params = built_parameters(name, position_grid=grid) / 1e6
        rows.append((grid, params, PRESETS[name].params_m))
    return pd.DataFrame(rows, columns=["grid", "params_m", "printed"])


def width_table(small: str = "medium", base: str = "xlarge") -> pd.DataFrame:
    """Widths of both backbones' sizes, with which the counts are the printed ones. Columns: width, small,
    base.
    """
    names = {
        "backbone": "embed_dim",
        "decoder": "hidden_dim",
        "decoder's feed-forward layers": "ffn_dim",
        "heads of the backbone": "heads",
    }
    a, b = preset_config(small), preset_config(base)
    return pd.DataFrame(
        [(label, getattr(a, field), getattr(b, field)) for label, field in names.items()],
        columns=["width", "small", "base"],
    )


def within(df: pd.DataFrame) -> pd.DataFrame:
    """Rows of `count_table` with two more columns: params_ok and gflops_ok, within the tolerances of this
    module.
    """
    # The print has one digit, so half a digit belongs to it.
    params = (df.params_m - df.params_printed).abs() <= PARAMS_TOLERANCE
    return df.assign(params_ok=params, gflops_ok=df.difference.abs() <= GFLOPS_TOLERANCE)
