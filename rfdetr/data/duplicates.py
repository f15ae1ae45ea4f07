"""Pictures that are the same or nearly the same: copies, neighbouring frames, cleaned scans of one drawing.

Two signs, each enough:

- The picture as a whole. The difference hash says where the picture, reduced to 17 x 17, gets brighter to the
  right and downwards (512 bits); it survives another brightness and another size, but large empty areas make
  unlike drawings agree. So the correlation of the pictures reduced to 32 x 32 must be high, too.
- What is drawn. The relief is where a picture is darker than its surroundings, cut to its extent and reduced
  to 32 x 32: the same for a photograph of a drawing and its cleaned copy, whatever the light and the margins.

On fourteen public sets the thresholds below separate copies and neighbouring frames from the rest.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from rfdetr.progress import progress_bar

HASH_DISTANCE = 51
"""Bits of 512 in which near-identical pictures may differ. Unlike pictures differ in about 250; known copies
in up to 32 (a photograph and its cleaned scan), neighbouring video frames in up to about 50.
"""
CORRELATION = 0.8
"""Smallest correlation of the reduced pictures. Known copies have 0.86 or more; unlike line drawings on the
same empty page, which can come within the hash distance, at most about 0.75.
"""
RELIEF = 0.87
"""Smallest correlation of the reliefs. Copies of one drawing have 0.87 to 1; unlike pictures of sets without
copies at most 0.71.
"""
_HASH, _SMALL, _SIDE = 16, 32, 256
_CHUNK = 512
_BAR_FROM = 1000
"""Pictures from which a progress bar is shown."""


@dataclass(frozen=True)
class Signatures:
    """What is compared, of N pictures. sha256: of the files' bytes. bits: int8 [N, 512] of -1 and 1. small,
    relief: float32 [N, 1024], mean 0 and length 1; all 0 for a picture of one tone, one without a relief that
    fills at least half of it, and one that cannot be read.
    """

    sha256: tuple[str, ...]
    bits: np.ndarray
    small: np.ndarray
    relief: np.ndarray


def signatures(paths: Sequence[Path]) -> Signatures:
    """Signatures of pictures; one that cannot be read resembles none but its exact copies."""
    shas = []
    bits = np.zeros((len(paths), 2 * _HASH * _HASH), dtype=np.int8)
    small = np.zeros((len(paths), _SMALL * _SMALL), dtype=np.float32)
    relief = np.zeros_like(small)
    with progress_bar(len(paths) >= _BAR_FROM, len(paths), "comparing pictures", leave=False) as report:
        for i, path in enumerate(paths):
            try:
                content = path.read_bytes()
                shas.append(hashlib.sha256(content).hexdigest())
                grey = _grey(content)
                bits[i], small[i], relief[i] = _bits(grey), _unit(grey), _relief(grey)
            except OSError:  # missing, or no picture
                shas += [hashlib.sha256(path.name.encode()).hexdigest()] * (i + 1 - len(shas))
            except Exception:  # Pillow's decoders raise nearly anything on damaged files
                pass
            report(i + 1, len(paths))
    return Signatures(tuple(shas), bits, small, relief)


def _grey(content: bytes) -> Image.Image:
    """A picture of at most 256 px a side, 8-bit grey."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("L", (_SIDE, _SIDE))
        grey = _stretched(image) if image.mode[0] in "IF" else image.convert("L")
    grey.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=None)
    return grey


def _stretched(image: Image.Image) -> Image.Image:
    """A picture of more than 8 bits, its darkest value made 0 and its brightest 255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = values.min(), values.max()
    return Image.fromarray(np.rint((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))


def _bits(grey: Image.Image) -> np.ndarray:
    edge = np.asarray(grey.resize((_HASH + 1, _HASH + 1), Image.Resampling.LANCZOS), dtype=np.int16)
    across, down = edge[:-1, 1:] > edge[:-1, :-1], edge[1:, :-1] > edge[:-1, :-1]
    return np.where(np.concatenate([across.ravel(), down.ravel()]), 1, -1).astype(np.int8)


def _unit(grey: Image.Image) -> np.ndarray:
    """The picture reduced to 32 x 32, mean 0 and length 1; 0 of one tone."""
    values = np.asarray(grey.resize((_SMALL, _SMALL), Image.Resampling.BOX), dtype=np.float32).ravel()
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1.0 else np.zeros_like(values)


def _relief(grey: Image.Image) -> np.ndarray:
    around = np.asarray(grey.filter(ImageFilter.BoxBlur(_SIDE // 32)), dtype=np.float32)
    depth = around - np.asarray(grey, dtype=np.float32)
    dark = depth > max(0.35 * float(np.percentile(depth, 99)), 6.0)
    rows, columns = np.nonzero(dark)
    if len(rows) < _SMALL:
        return np.zeros(_SMALL * _SMALL, dtype=np.float32)
    # A few specks outside do not change the extent.
    top, bottom = np.percentile(rows, [0.5, 99.5]).astype(int)
    left, right = np.percentile(columns, [0.5, 99.5]).astype(int)
    if 2 * (bottom - top) < dark.shape[0] or 2 * (right - left) < dark.shape[1]:
        return np.zeros(_SMALL * _SMALL, dtype=np.float32)
    cut = Image.fromarray(dark[top : bottom + 1, left : right + 1].astype(np.uint8) * 255)
    return _unit(cut.filter(ImageFilter.GaussianBlur(_SIDE // 128)))


def near_pairs(found: Signatures) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of pictures that are equal in content or nearly so."""
    pairs: set[tuple[int, int]] = set()
    first: dict[str, int] = {}
    for i, sha in enumerate(found.sha256):
        if first.setdefault(sha, i) != i:
            pairs.add((first[sha], i))
    bits = found.bits.astype(np.float32)
    least = bits.shape[1] - 2 * HASH_DISTANCE  # the product of vectors of -1 and 1 is length - 2 * distance
    for start in range(0, len(bits), _CHUNK):
        part = slice(start, start + _CHUNK)
        rows, columns = np.nonzero(bits[part] @ bits.T >= least)
        alike = np.einsum("ij,ij->i", found.small[rows + start], found.small[columns]) >= CORRELATION
        drawn_rows, drawn_columns = np.nonzero(found.relief[part] @ found.relief.T >= RELIEF)
        rows = np.concatenate([rows[alike], drawn_rows]) + start
        columns = np.concatenate([columns[alike], drawn_columns])
        pairs |= {(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if i < j}
    return sorted(pairs)


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of 0..count-1 that the pairs connect, each sorted, by first member; most have one member."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(root(i), []).append(i)
    return list(members.values())
