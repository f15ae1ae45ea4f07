"""Chapter 03: checks of the two resizes. What they do for detection is a question of training."""

from typing import TYPE_CHECKING

from rfdetr.experiments.ch03_flexible_patches import BASE, EXACT
from rfdetr.paper.verdicts import Check

if TYPE_CHECKING:
    import pandas as pd

SLOW = 0.05
"""Largest relative error of slow position waves."""


def check_enlarging(errors: "pd.DataFrame") -> Check:
    """errors: from `ch03_flexible_patches.errors`."""
    pi = errors[(errors.method == "PI-resize") & (errors["size"] >= BASE)]
    return Check(
        "Enlarging a patch and its kernel by PI-resize leaves the embedding as it was",
        bool((pi.error < EXACT).all()),
        {"largest relative error": float(pi.error.max()), "sizes": int(pi["size"].nunique())},
        "Every size from 16 up, trained or not, on photographs and on noise.",
    )


def check_shrinking(errors: "pd.DataFrame") -> Check:
    """errors: from `ch03_flexible_patches.errors`."""
    noise = errors[(errors.content == "noise") & (errors.kernels == "photographs") & (errors["size"] < BASE)]
    wide = noise.pivot(index="size", columns="method", values="error")
    best = wide.drop(columns="PI-resize").min(axis=1)
    return Check(
        "Shrinking by PI-resize is the least-squares answer when all patches are equally likely",
        bool((wide["PI-resize"] <= best).all()),
        {"PI-resize, largest": float(wide["PI-resize"].max()), "best other, smallest": float(best.min())},
        "On noise no other resize of the kernel does better at any size. Photographs are smooth, and kernels"
        " fitted to them do better where much is lost.",
    )


def check_positions(positions: "pd.DataFrame") -> Check:
    """positions: from `ch03_flexible_patches.position_errors`."""
    slow = positions[positions.waves == positions.waves.min()]
    return Check(
        "Slow position waves survive the interpolation to every published grid; the class token's is kept",
        bool((slow.error < SLOW).all() and positions.class_token_kept.all()),
        {"largest relative error": float(slow.error.max()), "grids": int(positions.grid.nunique())},
    )
