"""Pictures from wherever users keep them: paths, Pillow images, arrays, tensors; as uint8 RGB arrays."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfdetr.errors import UserError


def read_image(source: Any) -> np.ndarray:
    """One picture as uint8 [H, W, 3] RGB.

    source: a path, a Pillow image, an array [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA, or a torch
    tensor with the channels first, [1, H, W], [3, H, W] or [4, H, W]. Values: uint8 0..255, uint16 0..65535,
    or floating point 0..1; they are rounded to 8 bits. The EXIF orientation is applied, grey becomes RGB,
    transparency is dropped. Raises UserError naming the picture when it is missing, unreadable or of another
    kind.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, torch.Tensor):
        return _from_tensor(source)
    if hasattr(source, "getexif"):
        return _from_pillow(source, str(getattr(source, "filename", "") or "the Pillow image"))
    raise UserError(
        f"cannot read a picture from {type(source).__name__}: give a path, a Pillow image, a uint8 array "
        "[height, width, 3] or a tensor [3, height, width]"
    )


def iterate_images(sources: Any) -> Iterator[Any]:
    """The single pictures in one picture, an array [B, H, W, 3], a tensor [B, 3, H, W], or any iterable of
    pictures.
    """
    if isinstance(sources, np.ndarray | torch.Tensor):
        yield from sources if sources.ndim == 4 else [sources]
    elif (
        isinstance(sources, str | os.PathLike)
        or hasattr(sources, "getexif")
        or not isinstance(sources, Iterable)
    ):
        yield sources
    else:
        yield from sources


def _from_path(path: Path) -> np.ndarray:
    from PIL import Image

    if path.is_dir():
        raise UserError(
            f"{path} is a folder, not a picture: give the files in it, for example"
            " sorted(folder.glob('*.jpg'))"
        )
    try:
        with Image.open(path) as image:
            return _from_pillow(image, str(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no picture {path}: check the path") from error
    except PermissionError as error:
        raise UserError(f"cannot read the picture {path}: permission denied") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(str(path), error) from error


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"cannot read {name} as a picture: {error}; the file is damaged or of an unknown format")


def _from_pillow(image: Any, name: str) -> np.ndarray:
    from PIL import ImageOps

    try:
        image.load()  # Pillow reads the pixels of a file only now
        image = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise _damaged(name, error) from error
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise UserError(f"{name} has values outside 0..65535: scale them to 8 or 16 bits first")
        return _from_array(values.astype(np.uint16))
    if image.mode == "F":
        raise UserError(
            f"{name} holds floating-point values: scale them to 0..255 and convert to 8 bits first"
        )
    return np.array(image.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"floating-point values must be in 0..1, got {low:g}..{high:g}: divide by 255, or convert to"
                " uint8"
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(
            f"an array of {array.dtype} has no agreed range: give uint8 values 0..255, uint16 values 0..65535"
            " or floating-point values 0..1"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        hint = (
            "; move the channels last: array.transpose(1, 2, 0)"
            if array.ndim == 3 and array.shape[0] in (1, 3, 4)
            else ""
        )
        raise UserError(
            f"an array of shape {list(array.shape)} is no picture: expected [height, width], or [height,"
            f" width, channels] with 1, 3 (RGB) or 4 (RGBA) channels{hint}"
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def _from_tensor(tensor: torch.Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise UserError(
            f"a tensor of shape {list(tensor.shape)} is no picture: expected [channels, height, width] with"
            " 1, 3 (RGB) or 4 (RGBA) channels; give pictures with the channels last as arrays"
        )
    values = tensor.detach().cpu().permute(1, 2, 0)
    # NumPy has no bfloat16.
    return _from_array((values.float() if values.is_floating_point() else values).numpy())
