"""The cases of `fuzz_data.py`: annotation files and pictures, broken in the ways that real ones are."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
ODD = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        99,
        -5,
        0.5,
        1.0,
        2.5,
        1e-9,
        2e8,
        -2e8,
        1e19,
        1e308,
        2**31,
        2**63,
    ),
    *(
        2**70,
        10**400,
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "0",
        "1",
        "1.0",
        "01",
        "cat",
        "é猫",
        "\0",
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "a" * 5000,
        "a.png",
        ".",
        "\\",
        "NaN",
        [],
        {},
        [[]],
        [None],
        [1, 2, 3],
    ),
    *([0, 0, 10, 10], [0.1, 0.1, 0.2, 0.2], [1, 2, 3, 4, 5, 6], [[1, 2, 30, 4, 5, 36]], [[float("nan")] * 6]),
    *([[2e8, 1, 2, 3, 4, 5]], {"id": 1}, {"size": [HEIGHT, WIDTH], "counts": [5, 10, 2385]}),
    *({"size": [HEIGHT, WIDTH], "counts": "0123oooo"}, {"size": [HEIGHT, WIDTH], "counts": [2**31, 1]}),
    *({"size": [10**9, 10**9], "counts": "00"}, {"size": [HEIGHT, WIDTH], "counts": ""}, [[1e300] * 8]),
]
FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
CHARACTERS = [chr(code) for code in range(48, 112)]


class Pictures:
    """Sound pictures of several kinds in a folder, and their entries in an annotation file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("a.png", "b.jpg", "c.tif", "d.png", "e.tif", "f.webp")
        sizes = [(HEIGHT, WIDTH)] * 3 + [(WIDTH, HEIGHT)] + [(HEIGHT, WIDTH)] * 2
        if not (folder / "good.json").exists():
            self._write(names)
        self.entries = [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, (name, (height, width)) in enumerate(zip(names, sizes, strict=True), start=1)
        ]
        self.files = [folder / name for name in names]
        if not (folder / "good.json").exists():
            (folder / "good.json").write_text(json.dumps(content(self.entries)))

    def _write(self, names: tuple[str, ...]) -> None:
        ramp = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2).astype(np.uint8)
        colour = np.stack([ramp, ramp.T.repeat(2, 1)[:HEIGHT, :WIDTH], 255 - ramp][:3], axis=2)
        turned = Image.Exif()
        turned[0x0112] = 6
        pictures: list[tuple[np.ndarray, dict[str, Any]]] = [
            (colour, {}),
            (colour, {}),
            (ramp.astype(np.uint16) * 257, {}),
            (colour, {"exif": turned}),
            ((ramp / 255).astype(np.float32), {}),
            (colour, {}),
        ]
        for name, (pixels, options) in zip(names, pictures, strict=True):
            Image.fromarray(pixels).save(self.folder / name, **options)


def content(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A sound annotation file with polygons, run-length codes of both kinds and a crowd region."""
    runs = [10 * HEIGHT + 5, *([10, 30] * 9), 10, HEIGHT * WIDTH - 19 * HEIGHT - 15]
    from pycocotools import mask as rle

    square = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    square[5:20, 20:40] = 1
    code = rle.encode(square)["counts"].decode("ascii")
    segmentations: list[Any] = [
        [[5, 10, 25, 10, 25, 25, 5, 25]],
        {"size": [HEIGHT, WIDTH], "counts": code},
        {"size": [HEIGHT, WIDTH], "counts": runs},
        [[5, 5, 9, 5, 9, 20, 5, 20], [12, 5, 20, 5, 16, 20.5]],
    ]
    annotations = []
    for number in range(12):
        image = entries[number % len(entries)]["id"]
        x, y = 2 + number, 3 + number % 5
        annotations.append(
            {
                "id": number + 1,
                "image_id": image,
                "category_id": 1 + number % 3,
                "bbox": [x, y, 15, 12.5],
                "area": 180,
                "iscrowd": int(number == 11),
                "segmentation": copy.deepcopy(segmentations[number % 4 if image != 4 else 0]),
            }
        )
    categories = [{"id": i, "name": name, "supercategory": "x"} for i, name in enumerate("abc", start=1)]
    return {"images": copy.deepcopy(entries), "annotations": annotations, "categories": categories}


def json_case(rng: np.random.Generator, entries: list[dict[str, Any]]) -> bytes:
    """One mutated annotation file."""
    value: Any = content(entries)
    for _ in range(int(rng.integers(1, 7))):
        value = _mutate(rng, value)
    text = json.dumps(value)
    chance = rng.random()
    if chance < 0.05:
        data = bytearray(text.encode())
        for _ in range(int(rng.integers(1, 20))):
            data[rng.integers(len(data))] = rng.integers(256)
        return bytes(data)
    if chance < 0.08:
        return text.encode()[: rng.integers(len(text))]
    encoding = "utf-8-sig" if chance < 0.1 else "utf-16" if chance < 0.11 else "utf-8"
    return text.encode(encoding)


def _odd(rng: np.random.Generator) -> Any:
    return copy.deepcopy(ODD[rng.integers(len(ODD))])


def _mutate(rng: np.random.Generator, value: Any) -> Any:
    if not isinstance(value, dict) or rng.random() < 0.02:
        return _odd(rng) if rng.random() < 0.1 else value
    annotations = value.get("annotations")
    if rng.random() < 0.35 and isinstance(annotations, list):
        _mutate_all(rng, [a for a in annotations if isinstance(a, dict)])
        return value
    places = list(_places(value))
    if not places:
        return value
    holder, key = places[rng.integers(len(places))]
    choice = rng.integers(6)
    if choice == 0:
        del holder[key]
    elif choice == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif choice == 2 and isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    elif choice == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        factor = [-1, 0, 0.01, 10, 1e9, float("nan")][rng.integers(6)]
        holder[key] = holder[key] * factor
    elif choice == 4 and isinstance(holder[key], list):
        holder[key] = {str(i): entry for i, entry in enumerate(holder[key])}
    elif choice == 4 and isinstance(holder[key], dict):
        holder[key] = list(holder[key].values())
    else:
        holder[key] = _odd(rng)
    return value


def _mutate_all(rng: np.random.Generator, annotations: list[dict[str, Any]]) -> None:
    """One field of all annotations, or of some of them, as an exporter gets it wrong."""
    field = FIELDS[rng.integers(len(FIELDS))]
    choice, share, value = rng.integers(7), rng.choice([0.3, 1.0]), _odd(rng)
    code = "".join(rng.choice(CHARACTERS, size=int(rng.integers(1, 25))))
    for annotation in annotations:
        box = annotation.get("bbox")
        if rng.random() > share:
            continue
        if choice == 0 and _is_plain(box):
            annotation["bbox"] = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        elif choice == 1 and _is_plain(box):
            annotation["bbox"] = [v / WIDTH for v in box]
        elif choice == 2:
            annotation.pop(field, None)
        elif choice == 3 and type(annotation.get(field)) in (int, float):
            annotation[field] = str(annotation[field])
        elif choice == 4:
            annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": code}
        elif choice == 5:
            points = rng.choice(
                [-1e9, -50.0, 5.0, 30.0, 90.0, 150.0, 1e5, np.nan], size=int(rng.integers(1, 12))
            )
            annotation["segmentation"] = [points.tolist()]
        else:
            annotation[field] = copy.deepcopy(value)


def _is_plain(box: Any) -> bool:
    """Four numbers that one can compute with."""
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(v) is float or v in range(-999, 999) for v in box)
    )


def _places(value: Any) -> Any:
    """(container, key) of every entry, however deep."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def picture_case(rng: np.random.Generator, files: list[Path]) -> bytes:
    """One mutated picture file."""
    data = bytearray(files[rng.integers(len(files))].read_bytes() if rng.random() < 0.5 else _made(rng))
    for _ in range(int(rng.integers(0, 4))):
        choice, place = rng.integers(6), int(rng.integers(len(data) or 1))
        length = int(rng.integers(1, 40))
        if choice == 0:
            del data[place:]
        elif choice == 1:
            del data[place : place + length]
        elif choice == 2:
            data[place:place] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        elif choice == 3:
            data[place : place + length] = bytes(len(data[place : place + length]))
        else:
            # Headers are where a byte changes sizes, depths and offsets.
            limit = min(len(data), 200) if rng.random() < 0.6 else len(data)
            for _ in range(int(rng.integers(1, 8))):
                if limit:
                    data[rng.integers(limit)] = rng.integers(256)
    return bytes(data)


_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA", "ICO", "JPEG2000")


def _made(rng: np.random.Generator) -> bytes:
    """A picture of a random mode, size, format and orientation; a PNG file where it cannot be one."""
    height, width = (int(side) for side in rng.integers(1, 50, 2))
    mode, kind = _MODES[rng.integers(len(_MODES))], _FORMATS[rng.integers(len(_FORMATS))]
    top = int(rng.choice([1, 255, 4095, 65535, 2**31 - 1]))
    if mode in ("I", "F", "I;16"):
        dtype = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        pixels = rng.integers(
            0, min(top, np.iinfo(np.uint16).max if mode == "I;16" else top), (height, width)
        )
        image = Image.fromarray(pixels.astype(dtype))
    else:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
    tags = Image.Exif()
    tags[0x0112] = int(rng.integers(0, 12))
    stream = io.BytesIO()
    try:
        image.save(stream, kind, exif=tags)
    except (OSError, ValueError, KeyError):
        stream = io.BytesIO()
        Image.new("RGB", (width, height)).save(stream, "PNG", exif=tags)
    return stream.getvalue()
