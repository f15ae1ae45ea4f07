"""Resampling of shared weights: patch kernels of any size, position grids of any side, window partition.

Source: Section 3 of the paper; FlexiViT (Beyer et al. 2023) for the pseudo-inverse resize of patch kernels.
All resizing is written as small matrices that are cached, so changing the architecture between two calls
costs two small matrix products per weight. The weights are resized in their own precision, also under
autocast.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rfdetr.model.linear import own_precision


# Cached matrices are shared by all later calls, so they must not become inference tensors, which no training
# can use.
@lru_cache(maxsize=512)
@torch.inference_mode(False)
def resize_matrix(
    source: int, target: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Tensor:
    """[target, source] matrix of a one-dimensional bicubic resize (antialias on, align_corners off).

    A resize of a square image x is M x M^T. Equal sizes give the identity.
    """
    # One impulse per channel, resized along the width (torch's vertical antialiased pass is wrong at width
    # 1).
    impulses = torch.eye(source, dtype=torch.float64, device="cpu").reshape(1, source, 1, source)
    rows = F.interpolate(impulses, size=(1, target), mode="bicubic", antialias=True, align_corners=False)
    return rows[0, :, 0].T.contiguous().to(device=device, dtype=dtype)


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def kernel_matrix(
    source: int, target: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Tensor:
    """[source, target] pseudo-inverse of `resize_matrix(source, target)`, computed in float64."""
    return torch.linalg.pinv(resize_matrix(source, target)).to(device=device, dtype=dtype)


def resize_kernel(kernel: Tensor, patch_size: int) -> Tensor:
    """Patch-embedding kernel for another patch size: [out, in, p, p] -> [out, in, patch_size, patch_size].

    With B the linear map that resizes a patch, the new kernel is pinv(B)^T w: the embedding of an enlarged
    patch is exactly the embedding of the patch; when shrinking it is the least-squares solution. B is
    separable, so the pseudo-inverse is applied to rows and columns. Always call it on the stored base kernel;
    resizes must not be chained.
    """
    source = kernel.shape[-1]
    if source == patch_size:
        return kernel
    matrix = kernel_matrix(source, patch_size, kernel.dtype, str(kernel.device))
    with own_precision(kernel):
        return matrix.T @ kernel @ matrix


def resize_positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings for a grid of another side: [1, 1 + N*N, C] -> [1, 1 + grid*grid, C].

    The class token's position (index 0) is left alone; the grid is resized bicubically with antialias.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == grid:
        return positions
    matrix = resize_matrix(side, grid, positions.dtype, str(positions.device))
    table = positions[0, 1:].unflatten(0, (side, side))
    # Columns first: every product is then one plain matrix product on contiguous rows.
    with own_precision(positions):
        table = matrix @ (matrix @ table).flatten(1)
    return torch.cat([positions[:, :1], table.reshape(1, grid * grid, -1)], dim=1)


def partition_windows(tokens: Tensor, windows: int) -> Tensor:
    """[B, h, w, C] -> [B * windows^2, (h/windows) * (w/windows), C], windows in row-major order."""
    if windows == 1:
        return tokens.flatten(1, 2)
    batch, height, width, channels = tokens.shape
    tokens = tokens.reshape(batch, windows, height // windows, windows, width // windows, channels)
    return tokens.permute(0, 1, 3, 2, 4, 5).reshape(batch * windows**2, -1, channels)


def merge_windows(sequences: Tensor, windows: int, height: int, width: int) -> Tensor:
    """Inverse of `partition_windows`: [B * windows^2, t, C] -> [B, height, width, C]."""
    channels = sequences.shape[-1]
    if windows == 1:
        return sequences.reshape(-1, height, width, channels)
    grid = sequences.reshape(-1, windows, windows, height // windows, width // windows, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)
