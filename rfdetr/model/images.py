"""Pictures from wherever users keep them: paths, Pillow images, arrays; as uint8 RGB arrays."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.errors import UserError


def read_image(source: Any) -> np.ndarray:
    """One picture as uint8 [H, W, 3] RGB.

    source: a path, a Pillow image, or an array uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA.
    The EXIF orientation is applied, grey becomes RGB, transparency is dropped, 16-bit values are scaled to 8 bits.
    Raises UserError naming the picture when it is missing, unreadable or of another kind.
    """
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "getexif"):
        return _from_pillow(source, "the Pillow image")
    raise UserError(
        f"cannot read a picture from {type(source).__name__}: give a path, a Pillow image or a uint8 array "
        "[height, width, 3]"
    )


def iterate_images(sources: Any) -> Iterator[Any]:
    """The single pictures in one picture, an array [B, H, W, 3], or any iterable of pictures."""
    if isinstance(sources, np.ndarray):
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
            f"{path} is a folder, not a picture: give the files in it, for example sorted(folder.glob('*.jpg'))"
        )
    try:
        with Image.open(path) as image:
            image.load()
            return _from_pillow(image, str(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no picture {path}: check the path") from error
    except PermissionError as error:
        raise UserError(f"cannot read the picture {path}: permission denied") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read {path} as a picture: {error}; the file is damaged or of an unknown format"
        ) from error


def _from_pillow(image: Any, name: str) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
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
    if array.dtype != np.uint8:
        raise UserError(
            f"an array of {array.dtype} has no agreed range: give uint8 values 0..255 (or uint16 values 0..65535)"
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
            f"an array of shape {list(array.shape)} is no picture: expected [height, width], or [height, width, channels] "
            f"with 1, 3 (RGB) or 4 (RGBA) channels{hint}"
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])
