"""One stored patch kernel for every patch size: how exact is the resize, on real photographs?

Source: Section 3 of the paper; FlexiViT (Beyer et al. 2023) for the pseudo-inverse resize. The question is
always the
same: the embedding of a patch is <kernel, patch>; resize the patch, resize the kernel, and see how far the
embedding moves.
"""

import math
from typing import TYPE_CHECKING

import pandas as pd

from rfdetr.arch import PRESETS, TRAINING_GRID
from rfdetr.experiments.base.photographs import patches as photograph_patches

if TYPE_CHECKING:
    from torch import Tensor

BASE = 16
"""Side of the stored kernel, px."""
SIZES = (8, 10, 12, 14, 16, 18, 20, 24, 27, 32)
"""Patch sizes to try: the trained ones and unseen ones."""
METHODS = ("PI-resize", "bicubic, rescaled", "bicubic", "bilinear")
EXACT = 1e-9
"""An error below this is rounding of double precision."""


def photograph_kernels(count: int = 32, seed: int = 0) -> "Tensor":
    """Kernels as a network might learn them: the leading principal components of photograph patches, [count,
    3, BASE, BASE].
    """
    import torch

    patches = photograph_patches(BASE, 4000, seed + 1).flatten(1)
    patches = patches - patches.mean(0)
    # Eigenvalues come in ascending order.
    directions = torch.linalg.eigh(patches.T @ patches).eigenvectors.T.flip(0)
    return directions[:count].reshape(count, 3, BASE, BASE)


def random_kernels(count: int = 32, seed: int = 0) -> "Tensor":
    """Kernels before training: independent normal values, [count, 3, BASE, BASE]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, BASE, BASE, generator=generator, dtype=torch.float64)


def resize_patches(patches: "Tensor", size: int) -> "Tensor":
    """Bicubic resize of [N, 3, p, p] to [N, 3, size, size], antialias on: the map that PI-resize inverts."""
    from rfdetr.model.flex import resize_matrix

    matrix = resize_matrix(patches.shape[-1], size, patches.dtype)
    return matrix @ patches @ matrix.T


def resize_by(method: str, kernels: "Tensor", size: int) -> "Tensor":
    """Kernels [K, 3, p, p] for another patch size, by one of `METHODS`; ValueError for another name."""
    import torch.nn.functional as F

    from rfdetr.model.flex import resize_kernel

    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if method == "PI-resize":
        return resize_kernel(kernels, size)
    mode = "bilinear" if method == "bilinear" else "bicubic"
    resized = F.interpolate(kernels, size=(size, size), mode=mode, antialias=True, align_corners=False)
    # A larger patch has more pixels to sum over.
    return resized * (kernels.shape[-1] / size) ** 2 if method.endswith("rescaled") else resized


def optimal_kernels(kernels: "Tensor", patches: "Tensor", size: int) -> "Tensor":
    """The best kernels of a size for these very patches: least squares over their embeddings, not over all
    patches alike.
    """
    import torch

    resized = resize_patches(patches, size).flatten(1)
    target = patches.flatten(1) @ kernels.flatten(1).T
    covariance = resized.T @ resized
    # A trace of ridge: flat patches leave some directions without any evidence.
    covariance.diagonal().add_(1e-9 * covariance.diagonal().mean())
    solution = torch.linalg.solve(covariance, resized.T @ target)
    return solution.T.reshape(len(kernels), 3, size, size)


def embedding_error(kernels: "Tensor", patches: "Tensor", new_kernels: "Tensor", size: int) -> float:
    """Root-mean-square change of the embeddings, relative to their own root mean square."""
    before = patches.flatten(1) @ kernels.flatten(1).T
    after = resize_patches(patches, size).flatten(1) @ new_kernels.flatten(1).T
    return float((after - before).square().mean().sqrt() / before.square().mean().sqrt())


def errors(count: int = 2000, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> pd.DataFrame:
    """Error of every method at every size. Rows: content of the patches × kernels × size × method.

    Columns: content (photographs or noise), kernels (photographs or random), size, method, error (relative
    RMS). The method "fitted" is the least-squares optimum for photographs, fitted on the left half of the
    photographs and tested on the right one; only for sizes below `BASE`, where something is left to improve.
    """
    import torch

    generator = torch.Generator().manual_seed(seed + 2)
    contents = {
        "photographs": photograph_patches(BASE, count, seed, (0.5, 1.0)),
        "noise": torch.randn(count, 3, BASE, BASE, generator=generator, dtype=torch.float64),
    }
    families = {"photographs": photograph_kernels(seed=seed), "random": random_kernels(seed=seed)}
    training = photograph_patches(BASE, 8 * count, seed + 3, (0.0, 0.5))
    rows = []
    for size in sizes:
        for family, kernels in families.items():
            resized = {method: resize_by(method, kernels, size) for method in METHODS}
            if size < BASE:
                resized["fitted"] = optimal_kernels(kernels, training, size)
            for content, patches in contents.items():
                rows += [
                    (content, family, size, method, embedding_error(kernels, patches, new, size))
                    for method, new in resized.items()
                    if method != "fitted" or content == "photographs"
                ]
    return pd.DataFrame(rows, columns=["content", "kernels", "size", "method", "error"])


def identity_limits(count: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Cases at the edge of the identity, with photograph kernels and patches. Columns: case, expected (to
    hold), error.
    """
    kernels = photograph_kernels(seed=seed)
    patches = photograph_patches(BASE, count, seed)

    def pi(sizes: tuple[int, ...]) -> "Tensor":
        new = kernels
        for size in sizes:
            new = resize_by("PI-resize", new, size)
        return new

    smooth = resize_patches(photograph_patches(8, count, seed), BASE)
    single = embedding_error(
        kernels.float(), patches.float(), resize_by("PI-resize", kernels.float(), 24), 24
    )
    cases: list[tuple[str, bool, float]] = [
        ("enlarge: 16 to 24", True, embedding_error(kernels, patches, pi((24,)), 24)),
        (
            "enlarge by little, not a multiple: 16 to 18",
            True,
            embedding_error(kernels, patches, pi((18,)), 18),
        ),
        ("enlarge in single precision: 16 to 24", True, single),
        ("shrink: 16 to 12", False, embedding_error(kernels, patches, pi((12,)), 12)),
        ("shrink: 16 to 8", False, embedding_error(kernels, patches, pi((8,)), 8)),
        ("there and back, 16 to 24 to 16", False, _kernel_error(kernels, pi((24, 16)))),
        ("there and back, 16 to 8 to 16", False, _kernel_error(kernels, pi((8, 16)))),
        ("chained, 16 to 8 to 24, against 16 to 24", False, _kernel_error(pi((24,)), pi((8, 24)))),
        (
            "shrink patches that hold no fine detail: 16 to 12",
            False,
            embedding_error(kernels, smooth, pi((12,)), 12),
        ),
        ("resize the photograph as a whole, 16 to 24", False, _whole_image_error(kernels, 24)),
        ("keep the photograph's resolution, patch 16 to 24", False, _same_resolution_error(kernels, 24)),
    ]
    return pd.DataFrame(cases, columns=["case", "expected", "error"])


def _kernel_error(kernels: "Tensor", other: "Tensor") -> float:
    return float((other - kernels).norm() / kernels.norm())


def _image(side: int) -> "Tensor":
    from rfdetr.experiments.base.photographs import network_input

    return network_input("china.jpg", side).double()


def _whole_image_error(kernels: "Tensor", size: int) -> float:
    """The resize runs over the patch borders, so neighbours leak in."""
    import torch.nn.functional as F

    image = _image(BASE * 24)
    resized = F.interpolate(
        image, size=(size * 24, size * 24), mode="bicubic", antialias=True, align_corners=False
    )
    before = F.conv2d(image, kernels, stride=BASE)
    after = F.conv2d(resized, resize_by("PI-resize", kernels, size), stride=size)
    return float((after - before).norm() / before.norm())


def _same_resolution_error(kernels: "Tensor", size: int) -> float:
    """Changing the patch size alone: every token sees another piece of the picture. Compared at equal
    places.
    """
    import torch.nn.functional as F

    image = _image(math.lcm(BASE, size) * 8)
    before = F.conv2d(image, kernels, stride=BASE)
    after = F.conv2d(image, resize_by("PI-resize", kernels, size), stride=size)
    back = F.interpolate(after, size=before.shape[-2:], mode="nearest")
    return float((back - before).norm() / before.norm())


def position_errors(seed: int = 0) -> pd.DataFrame:
    """Position grids of the published sizes, interpolated from the stored 120 × 120 grid.

    A stored grid is made of sine waves; the same waves are also sampled directly on each smaller grid, and
    the two are compared. Columns: grid (tokens a side), configurations, waves (the number across the image),
    error (relative RMS), class_token_kept.
    """
    import torch

    from rfdetr.model.flex import resize_positions

    side = TRAINING_GRID.position_grid
    by_grid: dict[int, list[str]] = {}
    for name, preset in PRESETS.items():
        by_grid.setdefault(preset.arch.grid, []).append(name)
    rows = []
    for waves in (2, 8):
        stored = _waves(side, waves, seed)
        token = torch.full((1, 1, stored.shape[-1]), 7.0, dtype=torch.float64)
        for grid, names in sorted(by_grid.items()):
            resized = resize_positions(torch.cat([token, stored], dim=1), grid)
            expected = _waves(grid, waves, seed)
            error = (resized[:, 1:] - expected).square().mean().sqrt() / expected.square().mean().sqrt()
            kept = bool((resized[:, :1] == token).all())
            rows.append((grid, ", ".join(names), waves, float(error), kept))
    return pd.DataFrame(rows, columns=["grid", "configurations", "waves", "error", "class_token_kept"])


def _waves(side: int, waves: int, seed: int) -> "Tensor":
    """Sine waves of random direction and phase, sampled at token centres: [1, side^2, 16]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    angle, phase = (2 * math.pi * torch.rand(2, 16, generator=generator, dtype=torch.float64)).unbind(0)
    centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    along = x.reshape(-1, 1) * angle.cos() + y.reshape(-1, 1) * angle.sin()
    return (2 * math.pi * waves * along + phase).sin()[None]


def position_example(grids: tuple[int, ...], seed: int = 0) -> "dict[int, Tensor]":
    """One channel of a stored position grid and its interpolations: side -> [side, side]."""
    import torch

    from rfdetr.model.flex import resize_positions

    side = TRAINING_GRID.position_grid
    stored = torch.cat([torch.zeros(1, 1, 16, dtype=torch.float64), _waves(side, 3, seed)], dim=1)
    return {grid: resize_positions(stored, grid)[0, 1:, 0].reshape(grid, grid) for grid in (side, *grids)}


def kernel_example(sizes: tuple[int, ...], index: int = 6, seed: int = 0) -> "dict[str, dict[int, Tensor]]":
    """One kernel's green channel resized by PI-resize and by plain bicubic: method -> size -> [size,
    size].
    """
    kernels = photograph_kernels(seed=seed)
    return {
        method: {size: resize_by(method, kernels, size)[index, 1] for size in sizes}
        for method in ("PI-resize", "bicubic")
    }


def summary(df: pd.DataFrame) -> pd.DataFrame:
    """Errors on photographs with photograph kernels, one row per size, one column per method."""
    part = df[(df.content == "photographs") & (df.kernels == "photographs")]
    wide = part.pivot(index="size", columns="method", values="error")
    return wide[[*METHODS, "fitted"]].reset_index()
