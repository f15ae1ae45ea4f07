"""Paints one scene: digits over a background, and which pixel of ink belongs to which digit (see
`scenes`).
"""

import importlib.util
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

BASE_CANVAS = 96
"""Canvas side in pixels at which the sizes of a `Domain` are stated; other canvases scale them."""
SPLITS = ("train", "val", "test")

_SPLIT_DIGITS = {"train": (0, 1200), "val": (1200, 1497), "test": (1497, 1797)}
_SPLIT_COLUMNS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
_CROP = (56, 128)  # side of a photograph crop in its own pixels; 128 is the width of the narrowest region
_TRIES = 16  # positions tried for an object before it is left out
_MAX_COVER = 0.2  # largest part of a new object's frame that may lie over frames placed before
_MIN_VISIBLE = 0.65  # smallest part of an object's ink that must stay visible


@dataclass(frozen=True)
class Domain:
    """One kind of scene.

    classes: names. labels: class index per digit 0..9, -1 for a digit that is painted but is no object.
    objects: least and most per image. size: side of a digit's frame in pixels on a 96 px canvas. background:
    "photo", "plain" or "gradient". contrast: range of the difference in luminance (0..1) between ink and its
    surroundings. texture: how much of the photograph's own contrast is kept. ink: "any" (lighter or darker
    than its surroundings) or "light" (always lighter, on a background at half its brightness). strokes,
    patches: how many distractors of each kind. flip: probability of a horizontal flip in training (only where
    a mirrored object keeps its class).
    """

    title: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    objects: tuple[int, int] = (1, 6)
    size: tuple[int, int] = (16, 44)
    background: str = "photo"
    contrast: tuple[float, float] = (0.4, 0.75)
    texture: float = 0.7
    ink: str = "any"
    strokes: tuple[int, int] = (0, 0)
    patches: tuple[int, int] = (0, 0)
    flip: float = 0.0


def _read_sources() -> tuple[np.ndarray, np.ndarray, list[Image.Image]]:
    """Digits [1797, 8, 8] in 0..16, their values [1797] and the two photographs, as scikit-learn ships
    them.
    """
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.origin).parent / "datasets" if spec is not None and spec.origin else Path()
    table, photos = (
        folder / "data" / "digits.csv.gz",
        [folder / "images" / f"{n}.jpg" for n in ("china", "flower")],
    )
    if table.is_file() and all(photo.is_file() for photo in photos):
        # Importing scikit-learn takes two seconds, reading its files a few milliseconds.
        values = np.loadtxt(table, delimiter=",")
        return (
            values[:, :-1].reshape(-1, 8, 8),
            values[:, -1].astype(np.int64),
            [_open_photo(photo) for photo in photos],
        )
    return _load_sources()


def _open_photo(path: Path) -> Image.Image:
    """A photograph, decoded at once so that no file stays open."""
    with Image.open(path) as image:
        return image.convert("RGB")


def _load_sources() -> tuple[np.ndarray, np.ndarray, list[Image.Image]]:
    """The same through scikit-learn's interface."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    return digits.images, digits.target.astype(np.int64), photos


@lru_cache(maxsize=1)
def _sources() -> tuple[list[Image.Image], np.ndarray, list[Image.Image]]:
    """Digits as 10 x 10 grey images (one empty pixel around each) in a fixed permutation, their values,
    photographs.
    """
    digits, values, photos = _read_sources()
    order = np.random.default_rng(20251112).permutation(len(values))
    grey = np.pad(np.round(digits * (255 / 16)).astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    return [Image.fromarray(grey[i]) for i in order], values[order], photos


def digit_ids(split: str) -> range:
    """Positions (in the fixed permutation of the 1,797 digits) that a split may paint."""
    return range(*_SPLIT_DIGITS[split])


def photo_columns(split: str) -> tuple[float, float]:
    """Left and right end, as fractions of the width, of the photograph region that a split may show."""
    return _SPLIT_COLUMNS[split]


@lru_cache(maxsize=8192)
def _ink(position: int, side: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Alpha float32 [h, w, 1] of a digit whose 8 x 8 frame becomes `side` pixels, its ink bool [h, w], ink
    pixels.
    """
    enlarged = _sources()[0][position].resize((round(side * 1.25),) * 2, Image.Resampling.BICUBIC)
    # A steeper ramp than the interpolation's own: the visible edge is then within a pixel or two of the
    # mask's edge.
    alpha = np.asarray(enlarged, dtype=np.float32) * (2.2 / 255) - 0.5
    np.clip(alpha, 0, 1, out=alpha)
    rows, columns = np.flatnonzero(alpha.max(1) > 0), np.flatnonzero(alpha.max(0) > 0)
    alpha = np.ascontiguousarray(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    ink = alpha > 0.5
    return alpha[:, :, None], ink, int(ink.sum())


def _crop_photo(rng: np.random.Generator, split: str, side: int) -> Image.Image:
    """A random square crop of the split's photograph region, flipped half of the time, `side` x `side`
    pixels.
    """
    photos = _sources()[2]
    which, extent, x, y, mirrored = rng.random(5)
    photo = photos[int(which * len(photos))]
    left, right = (edge * photo.width for edge in photo_columns(split))
    crop = _CROP[0] + extent * (min(_CROP[1], right - left) - _CROP[0])
    x, y = left + x * (right - left - crop), y * (photo.height - crop)
    piece = photo.resize((side, side), Image.Resampling.BILINEAR, box=(x, y, x + crop, y + crop))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored < 0.5 else piece


def _background(rng: np.random.Generator, domain: Domain, split: str, canvas: int) -> np.ndarray:
    """Float32 [canvas, canvas, 3] in 0..255, distractors included."""
    if domain.background == "photo":
        picture = _crop_photo(rng, split, canvas)
        if domain.texture < 1:
            grey = Image.new("RGB", picture.size, tuple(int(v) for v in np.asarray(picture).mean((0, 1))))
            picture = Image.blend(grey, picture, domain.texture)
    elif domain.background == "plain":
        picture = Image.new("RGB", (canvas, canvas), tuple(int(v) for v in rng.integers(0, 256, 3)))
    else:
        angle = rng.uniform(0, 2 * math.pi)
        steps = np.linspace(-0.5, 0.5, canvas, dtype=np.float32)
        ramp = steps[None, :] * math.cos(angle) + steps[:, None] * math.sin(angle) + 0.5
        first, second = rng.integers(0, 256, (2, 3)).astype(np.float32)
        pixels = first + np.clip(ramp, 0, 1)[:, :, None] * (second - first)
        picture = Image.fromarray(pixels.astype(np.uint8))
    if domain.ink == "light":
        picture = Image.blend(picture, Image.new("RGB", picture.size), 0.5)
    _add_distractors(rng, picture, domain, split)
    return np.array(picture, dtype=np.float32)


def _add_distractors(rng: np.random.Generator, picture: Image.Image, domain: Domain, split: str) -> None:
    canvas = picture.width
    scale = canvas / BASE_CANVAS
    for _ in range(rng.integers(domain.patches[0], domain.patches[1] + 1)):
        side = int(rng.uniform(12, 36) * scale)
        x, y = rng.integers(-side // 2, canvas - side // 2, 2)
        picture.paste(_crop_photo(rng, split, side), (int(x), int(y)))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(domain.strokes[0], domain.strokes[1] + 1)):
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        width = max(1, round(rng.uniform(1, 4) * scale))
        x, y, u, v = rng.uniform(-0.1, 1.1, 4) * canvas
        if rng.random() < 0.5:
            pen.line([(x, y), (u, v)], fill=colour, width=width)
        else:
            start = rng.uniform(0, 360)
            box = [min(x, u), min(y, v), max(x, u) + 1, max(y, v) + 1]
            pen.arc(box, start, start + rng.uniform(60, 200), fill=colour, width=width)


def _ink_colours(rng: np.random.Generator, domain: Domain, surroundings: np.ndarray) -> np.ndarray:
    """One random colour [N, 3] in 0..255 per object whose luminance differs from `surroundings` [N] by the
    contrast.
    """
    weights = np.array([0.299, 0.587, 0.114])
    count = len(surroundings)
    step = 255 * rng.uniform(*domain.contrast, count)
    brighter = rng.random(count) < 0.5
    if domain.ink == "light":
        brighter[:] = True
    else:
        brighter = np.where(
            surroundings + step > 250, False, np.where(surroundings - step < 5, True, brighter)
        )
    luminance = np.clip(surroundings + np.where(brighter, step, -step), 0, 255)
    hue = rng.uniform(-80, 80, (count, 3))
    hue -= (hue @ weights)[:, None]
    # Shrink the hue where it would leave the colour cube, so that the luminance stays what was asked for.
    room = np.where(hue > 0, 255 - luminance[:, None], luminance[:, None]) / np.maximum(np.abs(hue), 1e-6)
    return luminance[:, None] + hue * np.minimum(room.min(1), 1)[:, None]


def render(
    domain: Domain, split: str, seed: tuple[int, ...], canvas: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint one scene.

    Returns the image uint8 [canvas, canvas, 3], the owner of each pixel's ink int32 [canvas, canvas] (0 none,
    k for the k-th painted digit) and the class index of each painted digit [N] (-1: painted, but no object of
    this domain).
    """
    rng = np.random.default_rng(seed)
    image = _background(rng, domain, split, canvas)
    count = int(rng.integers(domain.objects[0], domain.objects[1] + 1))
    ids, values = digit_ids(split), _sources()[1]
    positions = rng.integers(ids.start, ids.stop, count)
    sides = np.round(rng.uniform(domain.size[0], domain.size[1], count) * (canvas / BASE_CANVAS)).astype(int)
    places = rng.random((count, _TRIES, 2))

    owner = np.zeros((canvas, canvas), dtype=np.int32)
    covered = np.zeros((canvas, canvas), dtype=bool)
    total, visible = [0], [0]
    placed: list[tuple[int, int, np.ndarray, int]] = []
    for position, side, tries in zip(positions.tolist(), sides.tolist(), places, strict=True):
        alpha, ink, pixels = _ink(position, side)
        height, width = ink.shape
        rows = (tries[:, 0] * (canvas - height + 1)).astype(int).tolist()
        columns = (tries[:, 1] * (canvas - width + 1)).astype(int).tolist()
        for y, x in zip(rows, columns, strict=True):
            frame = (slice(y, y + height), slice(x, x + width))
            hidden = int(np.count_nonzero(covered[frame]))
            if hidden > _MAX_COVER * height * width:
                continue
            if hidden:
                lost = Counter(owner[frame][ink].tolist())
                del lost[0]
                if any(visible[k] - n < _MIN_VISIBLE * total[k] for k, n in lost.items()):
                    continue
                for k, n in lost.items():
                    visible[k] -= n
            covered[frame] = True
            total.append(pixels)
            visible.append(pixels)
            owner[frame][ink] = len(placed) + 1
            placed.append((y, x, alpha, position))
            break
    _paint(rng, image, domain, placed)
    labels = np.array([domain.labels[values[position]] for *_, position in placed], dtype=np.int64)
    return (image + 0.5).astype(np.uint8), owner, labels


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    domain: Domain,
    placed: list[tuple[int, int, np.ndarray, int]],
) -> None:
    if not placed:
        return
    stride = max(1, image.shape[0] // 48)
    luminance = image[::stride, ::stride] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    table = np.pad(luminance, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    corners = np.array([(y, x, y + alpha.shape[0], x + alpha.shape[1]) for y, x, alpha, _ in placed])
    top, left, bottom, right = (corners // stride).T
    bottom, right = np.maximum(bottom, top + 1), np.maximum(right, left + 1)
    sums = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    colours = _ink_colours(rng, domain, sums / ((bottom - top) * (right - left))).astype(np.float32)
    for (y, x, alpha, _), colour in zip(placed, colours, strict=True):
        patch = image[y : y + alpha.shape[0], x : x + alpha.shape[1]]
        patch += alpha * (colour - patch)
