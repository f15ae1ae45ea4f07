"""Pictures that are the same or nearly the same: copies, neighbouring frames, cleaned scans.

Two signs together, because each alone is fooled. The difference hash says where the picture, reduced to 17 x
17, gets brighter to the right and downwards (512 bits): it survives another brightness and another size, but
large empty areas make unlike drawings agree. The correlation of the pictures reduced to 32 x 32 says whether
what little is there is in the same places. On fourteen public sets the two separate neighbouring frames and
copies from the rest: see `HASH_DISTANCE`.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rfdetr.progress import progress_bar

HASH_DISTANCE = 51
"""Bits of 512 in which near-identical pictures may differ. Unlike pictures differ in about 250; known copies
in up to 32 (a photograph and its cleaned scan), neighbouring video frames in up to about 50.
"""
CORRELATION = 0.8
"""Smallest correlation of the reduced pictures. Known copies have 0.86 or more; unlike line drawings on the
same empty page, which can come within the hash distance, at most about 0.75.
"""
_HASH, _SMALL = 16, 32
_BAR_FROM = 1000
"""Pictures from which a progress bar is shown."""
_CHUNK = 2048


@dataclass(frozen=True)
class Signatures:
    """What is compared, of N pictures. sha256: of the files' bytes. bits: int8 [N, 512] of -1 and 1. small:
    float32 [N, 1024], mean 0 and length 1 (all 0 for a picture of one tone, or one that cannot be read).
    """

    sha256: tuple[str, ...]
    bits: np.ndarray
    small: np.ndarray


def signatures(paths: Sequence[Path]) -> Signatures:
    """Signatures of pictures; one that cannot be read resembles none but its exact copies."""
    shas = []
    bits = np.zeros((len(paths), 2 * _HASH * _HASH), dtype=np.int8)
    small = np.zeros((len(paths), _SMALL * _SMALL), dtype=np.float32)
    with progress_bar(len(paths) >= _BAR_FROM, len(paths), "comparing pictures", leave=False) as report:
        for i, path in enumerate(paths):
            try:
                content = path.read_bytes()
                shas.append(hashlib.sha256(content).hexdigest())
                bits[i], small[i] = _signature(content)
            except OSError:  # missing, or no picture
                shas += [hashlib.sha256(path.name.encode()).hexdigest()] * (i + 1 - len(shas))
            except Exception:  # Pillow's decoders raise nearly anything on damaged files
                pass
            report(i + 1, len(paths))
    return Signatures(tuple(shas), bits, small)


def _signature(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (8 * _SMALL, 8 * _SMALL))
        grey = _stretched(image) if image.mode[0] in "IF" else image.convert("L")
    grey = grey.resize((8 * _SMALL, 8 * _SMALL), Image.Resampling.BOX)
    edge = np.asarray(grey.resize((_HASH + 1, _HASH + 1), Image.Resampling.LANCZOS), dtype=np.int16)
    across = edge[:-1, 1:] > edge[:-1, :-1]
    down = edge[1:, :-1] > edge[:-1, :-1]
    bits = np.where(np.concatenate([across.ravel(), down.ravel()]), 1, -1).astype(np.int8)
    small = np.asarray(grey.resize((_SMALL, _SMALL), Image.Resampling.BOX), dtype=np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return bits, small / length if length > 1.0 else np.zeros_like(small)


def _stretched(image: Image.Image) -> Image.Image:
    """A picture of more than 8 bits, its darkest value made 0 and its brightest 255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = values.min(), values.max()
    return Image.fromarray(np.rint((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))


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
        rows, columns = np.nonzero(bits[start : start + _CHUNK] @ bits.T >= least)
        rows += start
        keep = rows < columns
        rows, columns = rows[keep], columns[keep]
        alike = np.einsum("ij,ij->i", found.small[rows], found.small[columns]) >= CORRELATION
        pairs |= set(zip(rows[alike].tolist(), columns[alike].tolist(), strict=True))
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
