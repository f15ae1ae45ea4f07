"""The one reader of pictures, for training, evaluation and prediction: from wherever users keep them to uint8
RGB arrays.

How values become 8 bits is the same everywhere, and refused where there is no agreed range:

- 8 bits (grey, palette, CMYK, ...) are converted to RGB; transparency is dropped;
- 16 bits are divided by 257 and rounded, so that 65535 becomes 255. A picture whose largest value lies in
  1..4095 is refused: it holds 12 bits or fewer, and would be all but black;
- floating-point values in 0..1 are multiplied by 255 and rounded; any other range is refused;
- 32-bit integers are refused.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rfdetr.errors import UserError

MAX_PIXELS = 178_956_970
"""Pictures of more pixels are refused (Pillow's own limit: 512 MiB of RGB)."""
TWELVE_BITS = 4095
_ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 5 to 8 exchange height and width
_TABLE_16 = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)
_CONVERTED = {
    "L": "grey pictures (copied to three channels)",
    "1": "black-and-white pictures (copied to three channels)",
    "P": "palette pictures (converted to RGB)",
    "RGBA": "pictures with transparency (dropped)",
    "LA": "pictures with transparency (dropped)",
    "PA": "pictures with transparency (dropped)",
}


@dataclass(frozen=True)
class Header:
    """What a file's header tells, without decoding.

    height, width: as stored, px. orientation: EXIF's 1..8. mode: Pillow's. depth: "8", "16", "16 of a colour"
    (which Pillow cuts to 8), "float" or "32".
    """

    height: int
    width: int
    orientation: int
    mode: str
    depth: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self.height, self.width

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of the picture as viewers show it, the orientation applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size

    def turned(self, told: tuple[int, int] | None) -> bool | None:
        """Whether annotations that tell this (height, width) refer to the picture as shown.

        None when the size cannot tell: none is told, it is neither, or both are equal.
        """
        if self.orientation == 1:
            return True
        if self.shown == self.size or told not in (self.size, self.shown):
            return None
        return told == self.shown

    @property
    def rule(self) -> str:
        """How the values become 8-bit RGB, in words; "" for pictures that are 8-bit RGB already."""
        if self.depth == "16":
            return "16-bit pictures (divided by 257)"
        if self.depth == "16 of a colour":
            return "16-bit colour pictures (the upper 8 bits are read)"
        if self.depth == "float":
            return "floating-point pictures (0..1, times 255)"
        if self.depth == "32":
            return "32-bit integer pictures (refused)"
        return (
            ""
            if self.mode == "RGB"
            else _CONVERTED.get(self.mode, f"{self.mode} pictures (converted to RGB)")
        )


def read_header(path: str | os.PathLike[str]) -> Header:
    """Size, orientation and kind of values of a picture file. Raises UserError as `read_image`."""
    with _opened(path) as image:
        return _header(image)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) as stored, from the file's header. Raises UserError as `read_image`."""
    return read_header(path).size


def read_image(
    source: Any, *, oriented: bool | tuple[int, int] = True, max_side: int | None = None
) -> np.ndarray:
    """One picture as uint8 [H, W, 3] RGB, its values converted as the module's text says.

    source: a path, a Pillow image, an array [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA, or a torch
    tensor with the channels first, [1, H, W], [3, H, W] or [4, H, W]. Arrays and tensors: uint8, uint16 or
    floating point. oriented: apply the orientation tag of EXIF, so that the picture is read as it is shown;
    False reads it as stored; a (height, width) that annotations tell decides, and "as shown" if it cannot.
    max_side: reduce a file or Pillow image (antialiased, aspect ratio kept) so that no side is longer.
    Raises UserError naming the picture and the remedy when it is missing, damaged, too large or of another
    kind.
    """
    if isinstance(source, str | os.PathLike):
        with _opened(source) as image:
            return _from_pillow(image, str(source), oriented, max_side)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if hasattr(source, "getexif"):
        name = str(getattr(source, "filename", "") or "the Pillow image")
        return _from_pillow(source, name, oriented, max_side)
    if hasattr(source, "detach"):
        return _from_tensor(source)
    raise UserError(
        f"cannot read a picture from {type(source).__name__}: give a path, a Pillow image, a uint8 array "
        "[height, width, 3] or a tensor [3, height, width]"
    )


def iterate_images(sources: Any) -> Iterator[Any]:
    """The single pictures in one picture, an array [B, H, W, 3], a tensor [B, 3, H, W], or any iterable of
    pictures.
    """
    if isinstance(sources, np.ndarray) or hasattr(sources, "detach"):
        yield from sources if sources.ndim == 4 else [sources]
    elif (
        isinstance(sources, str | os.PathLike)
        or hasattr(sources, "getexif")
        or not isinstance(sources, Iterable)
    ):
        yield sources
    else:
        yield from sources


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, f" ({pixels[0]} pixels)" if pixels else "") from error
    except Exception as error:
        raise _unreadable(path, error) from error


def _header(image: Image.Image) -> Header:
    height, width, orientation = image.height, image.width, _orientation(image)
    if orientation >= 5 and image.format == "TIFF":
        # Pillow gives the size of these as shown, that of other formats as stored.
        tags: Any = getattr(image, "tag_v2", {})
        height, width = sorted((height, width), reverse=tags.get(257, 0) > tags.get(256, 0))
    return Header(height, width, orientation, image.mode, _depth(image))


def _orientation(image: Image.Image) -> int:
    # A damaged EXIF block raises nearly anything; the picture beside it may be sound. The base class' method,
    # because that of PNG files decodes the whole picture.
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _depth(image: Image.Image) -> str:
    if image.mode.startswith("I"):
        # Pillow scales PGM files of any depth to 0..65535, and old versions open 16-bit PNG files as "I".
        return "16" if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else "32"
    if image.mode == "F":
        return "float"
    tiles: Any = getattr(image, "tile", None)
    raw = tiles[0][3] if tiles else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return "16 of a colour" if isinstance(raw, str) and ";16" in raw else "8"


def _from_pillow(
    image: Image.Image, name: str, oriented: bool | tuple[int, int], max_side: int | None
) -> np.ndarray:
    header = _header(image)
    if header.height * header.width > MAX_PIXELS:
        raise _too_large(name, f" ({header.width}x{header.height})")
    if header.depth == "32":
        raise UserError(
            f"{name} holds 32-bit integers, which have no agreed range: scale them to 0..255 or 0..65535 and"
            " save 8 or 16 bits"
        )
    try:
        if max_side is not None and header.depth in ("8", "16 of a colour") and header.mode in ("RGB", "L"):
            image.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)  # reads a JPEG reduced
        image.load()  # Pillow reads the pixels of a file only now
        if header.depth in ("16", "float"):
            array = _from_array(np.asarray(image, np.uint16 if header.depth == "16" else None), name)
        else:
            array = np.array(image.convert("RGB"))
        if max_side is not None and max(array.shape[:2]) > max_side:
            reduced = Image.fromarray(array)
            reduced.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
            array = np.array(reduced)
    except UserError:
        raise
    except Exception as error:
        # Pillow's decoders raise struct.error, IndexError, EOFError, ... on damaged files, not OSError alone.
        raise _unreadable(name, error) from error
    if header.depth == "16 of a colour":
        _refuse_few_bits(int(array.max(initial=0)) * 257, name)
    # A TIFF file is turned by Pillow, which then drops the tag; a PNG file's tag may come after its pixels.
    after = _orientation(image)
    if isinstance(oriented, tuple):
        header = replace(header, orientation=max(header.orientation, after))
        oriented = header.turned(oriented) is not False
    if header.orientation != 1 and after == 1:
        return array if oriented else _turn(array, {6: 8, 8: 6}.get(header.orientation, header.orientation))
    return _turn(array, after) if oriented else array


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _from_array(array: np.ndarray, name: str = "the array") -> np.ndarray:
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        _refuse_few_bits(int(array.max(initial=0)), name)
        array = _TABLE_16[array]
    if array.dtype.kind == "f":
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{name}: floating-point values must be in 0..1, got {low:g}..{high:g}: divide them by the"
                " largest value that they can have, or save 8 bits"
            )
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
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


def _refuse_few_bits(largest: int, name: str) -> None:
    if 0 < largest <= TWELVE_BITS:
        raise UserError(
            f"{name} holds 16-bit values of at most {largest} (a camera of 12 bits?), which would be all but"
            " black: scale all pictures alike to 0..65535 (12 bits: times 16), or to 0..255 and save 8 bits"
        )


def _from_tensor(tensor: Any) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise UserError(
            f"a tensor of shape {list(tensor.shape)} is no picture: expected [channels, height, width] with"
            " 1, 3 (RGB) or 4 (RGBA) channels; give pictures with the channels last as arrays"
        )
    values = tensor.detach().cpu().permute(1, 2, 0)
    # NumPy has no bfloat16.
    return _from_array((values.float() if values.is_floating_point() else values).numpy())


def _too_large(name: str | os.PathLike[str], found: str) -> UserError:
    return UserError(
        f"picture {name} is too large{found}; at most {MAX_PIXELS // 10**6} megapixels are read: cut it (and"
        " its annotations) into tiles, or reduce it"
    )


def _unreadable(name: str | os.PathLike[str], error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(
            f"picture {name} does not exist: check the path, or the file name in the annotations"
        )
    if isinstance(error, PermissionError):
        return UserError(f"cannot read picture {name}: permission denied")
    if isinstance(error, MemoryError):
        return UserError(f"picture {name} does not fit into memory: reduce it")
    if isinstance(error, IsADirectoryError) or Path(name).is_dir():
        return UserError(f"{name} is a folder, not a picture: give the files in it")
    if isinstance(error, UnidentifiedImageError):
        return UserError(f"{name} is not a picture in a known format, or damaged: replace or remove it")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"picture {name} is damaged or cut short ({reason}): replace or remove it")
