"""Reading pictures from files."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rfdetr.errors import UserError


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding. Raises UserError naming the file."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _user_error(path, error) from error


def read_image(path: str | os.PathLike[str], max_side: int | None = None) -> np.ndarray:
    """Picture uint8 [H, W, 3] RGB; grey, palette, CMYK and 16-bit files are converted, transparency is
    dropped.

    max_side: reduce the picture (antialiased, aspect ratio kept) so that no side is longer. The orientation
    tag of EXIF is not applied: annotation files refer to the pixels as stored. Raises UserError naming the
    file and the remedy when it is missing, unreadable or truncated.
    """
    try:
        with Image.open(path) as image:
            if max_side is not None and max(image.size) > max_side:
                image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
            if image.mode.startswith("I"):  # 16-bit grey: PIL would clip it at 255 instead of scaling it
                grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _user_error(path, error) from error


def _user_error(path: str | os.PathLike[str], error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(
            f"image {path} does not exist: check the folder, or the file name in the annotations"
        )
    if isinstance(error, UnidentifiedImageError) or not Path(path).is_file():
        return UserError(f"image {path} is not a picture in a known format: replace or remove it")
    return UserError(f"image {path} is damaged or cut short ({error}): replace or remove it")
