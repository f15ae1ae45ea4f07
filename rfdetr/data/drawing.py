"""Boxes, masks and names drawn on pictures; one sheet of annotated pictures of a dataset."""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.files import atomic_path

_COLUMNS, _CELL, _MARGIN, _LINE = 4, 360, 8, 18
_CROWDED = 20
"""Objects from which a picture of a sheet shows no names, which would cover it."""


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour per class; neighbours in the class list are far apart (golden-angle steps in hue)."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
    pixels: np.ndarray,
    boxes: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    masks: np.ndarray | None = None,
) -> Image.Image:
    """A picture uint8 [H, W, 3] with objects on it, later ones on top of earlier ones.

    boxes: xyxy in pixels. labels: classes, which give the colours. texts: written at the boxes, "" for none.
    masks: bool [M, H, W].
    """
    pixels = pixels.copy()
    for mask, label in zip(masks if masks is not None else (), labels, strict=masks is not None):
        pixels[mask] = (0.55 * pixels[mask] + 0.45 * np.array(class_colour(label))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size)
    width, font = max(1, unit // 320), ImageFont.load_default(size=max(9, unit // 50))
    for box, label, text in zip(boxes, labels, texts, strict=True):
        colour = class_colour(label)
        left, top, right, bottom = map(float, box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
        if text:
            high = draw.textbbox((0, 0), text, font=font)[3] + 2
            place = (left, top - high if top >= high else top)
            draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
            draw.text(place, text, fill="black", font=font)
    return picture


def contact_sheet(splits: Mapping[str, DetectionDataset], title: str, count: int = 12) -> Image.Image:
    """One picture with `count` annotated images, chosen by rule, and the classes' colours.

    Of each split in turn, images from few to many objects, the fullest among them; the same every time.
    """
    drawn = [(split, index, *_annotated(splits[split], index)) for split, index in _chosen(splits, count)]
    rows = [drawn[start : start + _COLUMNS] for start in range(0, len(drawn), _COLUMNS)]
    heights = [max(picture.height for *_, picture, _ in row) + _LINE + _MARGIN for row in rows]
    width = _COLUMNS * (_CELL + _MARGIN) + _MARGIN
    legend = _legend(title, next(iter(splits.values())).class_names, width - 2 * _MARGIN)
    sheet = Image.new("RGB", (width, legend.height + 2 * _MARGIN + sum(heights)), "white")
    sheet.paste(legend, (_MARGIN, _MARGIN))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    top = legend.height + 2 * _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (split, index, picture, objects) in enumerate(row):
            left = _MARGIN + column * (_CELL + _MARGIN)
            sheet.paste(picture, (left + (_CELL - picture.width) // 2, top))
            file = str(splits[split].coco["images"][index].get("file_name", index)).rsplit("/", 1)[-1]
            text = f"{split}, {objects} objects, {_short(file)}"
            draw.text((left, top + height - _LINE - _MARGIN + 1), text, "black", font)
        top += height
    return sheet


def _chosen(splits: Mapping[str, DetectionDataset], count: int) -> list[tuple[str, int]]:
    """(split, index) of the shown images: of each split about as many, at even steps of object number."""
    shares = {split: count // len(splits) + (i < count % len(splits)) for i, split in enumerate(splits)}
    found = []
    for split, dataset in splits.items():
        objects: dict[object, int] = {}
        for entry in dataset.coco["annotations"]:
            objects[entry["image_id"]] = objects.get(entry["image_id"], 0) + 1
        ids = [image["id"] for image in dataset.coco["images"]]
        order = sorted(range(len(dataset)), key=lambda i: (objects.get(ids[i], 0), i))
        steps = np.linspace(0, len(order) - 1, min(shares[split], len(order))).round().astype(int)
        found += [(split, order[step]) for step in dict.fromkeys(steps.tolist())]
    return found


def _annotated(dataset: DetectionDataset, index: int) -> tuple[Image.Image, int]:
    image, target = dataset[index]
    height, width = image.shape[:2]
    scale = _CELL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX if scale < 1 else None))
    centre, extent = target.boxes.numpy()[:, :2], target.boxes.numpy()[:, 2:]
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1) * [*size, *size]
    masks = None
    if target.masks is not None:
        rows = ((np.arange(size[1]) + 0.5) / size[1] * target.masks.shape[1]).astype(int)
        columns = ((np.arange(size[0]) + 0.5) / size[0] * target.masks.shape[2]).astype(int)
        masks = target.masks.numpy()[:, rows[:, None], columns]
    labels = target.labels.tolist()
    shown = len(labels) < _CROWDED
    texts = [dataset.class_names[label] if shown else "" for label in labels]
    return draw_objects(pixels, boxes, labels, texts, masks), len(labels)


def _legend(title: str, names: Sequence[str], width: int) -> Image.Image:
    """The title and the classes' names on their colours, wrapped to the width."""
    font = ImageFont.load_default(size=14)
    places, left, line = [], 0, 1
    for name in names:
        long = round(font.getlength(name)) + 10
        if left and left + long > width:
            left, line = 0, line + 1
        places.append((left, line))
        left += long + 4
    legend = Image.new("RGB", (width, (line + 1) * (_LINE + 4)), "white")
    draw = ImageDraw.Draw(legend)
    draw.text((0, 0), title, "black", font)
    for label, (name, (left, line)) in enumerate(zip(names, places, strict=True)):
        top = line * (_LINE + 4)
        right = left + round(font.getlength(name)) + 8
        draw.rectangle((left, top, right, top + _LINE), fill=class_colour(label))
        draw.text((left + 4, top), name, "black", font)
    return legend


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all. Raises UserError for a name that is no picture's."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:  # some are only read
        raise UserError(f"cannot save a picture as {path}: use a name that ends in .png or .jpg")
    with atomic_path(path) as temporary:
        picture.save(temporary)


def _short(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else f"{name[: limit - 10]}...{name[-7:]}"
