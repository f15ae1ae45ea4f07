"""Small dataset folders in every format, made from one truth."""

import csv
import json
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40
NAMES = ("cat", "dog")
TRUTH = {
    "train": {
        "p 0": [("dog", 3, 4, 20, 10), ("cat", 30, 8, 12, 30)],
        "p1": [],
        "p2": [("cat", 0, 0, 60, 40)],
    },
    "val": {"p3": [("dog", 10, 10, 6, 6)]},
    "test": {"p4": [("cat", 5, 6, 7, 8), ("dog", 1, 2, 40, 30)]},
}
ONE = {None: {stem: objects for pictures in TRUTH.values() for stem, objects in pictures.items()}}
"""The same pictures without splits."""


def noise(path, seed, width=WIDTH, height=HEIGHT):
    """A picture that resembles no other of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def seed_of(stem):
    return zlib.crc32(stem.encode())


def objects_of(dataset):
    """Stem -> sorted (class, box) of what was read."""
    names = {c["id"]: c["name"] for c in dataset.coco["categories"]}
    found = {image["file_name"].rsplit("/", 1)[-1].rpartition(".")[0]: [] for image in dataset.coco["images"]}
    stems = {image["id"]: stem for image, stem in zip(dataset.coco["images"], found, strict=True)}
    for entry in dataset.coco["annotations"]:
        box = tuple(round(float(value), 4) for value in entry["bbox"])
        found[stems[entry["image_id"]]].append((names[entry["category_id"]], *box))
    return {stem: sorted(objects) for stem, objects in found.items()}


def expected(pictures):
    return {stem: sorted((n, *map(float, box)) for n, *box in objects) for stem, objects in pictures.items()}


def outline(x, y, w, h):
    """A polygon whose extent is the box, but not its rectangle."""
    return [x, y, x + w, y, x + w, y + h, x + w / 2, y + h, x, y + h / 2]


def coco_content(
    pictures, first_id=0, folder="", masks=False, keys=("annotations", "file_name"), numbers=(7, 3)
):
    """Almost any COCO file: category ids from `numbers`, other names of the keys."""
    images, annotations = [], []
    for stem, objects in pictures.items():
        number = first_id + len(images)
        images.append({"id": number, keys[1]: f"{folder}{stem}.png", "width": WIDTH, "height": HEIGHT})
        for name, x, y, w, h in objects:
            entry = {
                "id": len(annotations),
                "image_id": number,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
            }
            entry["category_id"] = numbers[NAMES.index(name)]
            entry["segmentation"] = [outline(x, y, w, h)] if masks else []
            annotations.append(entry)
    categories = [{"id": i, "name": n} for i, n in zip(numbers, NAMES, strict=True)]
    return {"images": images, keys[0]: annotations, "categories": categories}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def pictures_to(folder, pictures, suffix=".png"):
    for stem in pictures:
        noise(folder / f"{stem}{suffix}", seed_of(stem))


def roboflow(root, truth=TRUTH, **options):
    for split, pictures in truth.items():
        folder = root / {"val": "valid"}.get(split, split)
        pictures_to(folder, pictures)
        write_json(folder / "_annotations.coco.json", coco_content(pictures, **options))


def coco_2017(root, truth=TRUTH):
    for split, pictures in truth.items():
        pictures_to(root / f"{split}2017", pictures)
        write_json(root / "annotations" / f"instances_{split}2017.json", coco_content(pictures))


def almost_coco(root, truth=TRUTH):
    for split, pictures in truth.items():
        pictures_to(root / "normal" / split, pictures)
        content = coco_content(pictures, keys=("annotation", "filename"))
        for entry in content["annotation"]:
            x, y, w, h = entry["bbox"]
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        write_json(root / "normal" / "annotations" / f"{split}.json", content)


def one_coco_file(root, pictures, masks=False):
    pictures_to(root / "images", pictures)
    write_json(root / "result.json", coco_content(pictures, folder="images\\", masks=masks))


def voc_object(name, *corners, polygon=None):
    keys = ("xmin", "xmax", "ymin", "ymax")  # some tools write this order
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    body = "".join(f"<{key}>{box[key]}</{key}>" for key in keys)
    points = ""
    if polygon:
        pairs = zip(polygon[0::2], polygon[1::2], strict=True)
        points = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(pairs, start=1))
        points = f"<polygon>{points}</polygon>"
    return f"<object><name>{name}</name><bndbox>{body}</bndbox>{points}</object>"


def voc_xml(path, objects, file_name="", size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"<filename>{file_name or path.stem + '.png'}</filename>"
    head += f"<path>C:\\photos\\{path.stem}.png</path>"
    head += f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation>{head}{''.join(objects)}</annotation>")


def voc_objects(objects, masks=False):
    return [
        voc_object(n, x + 1, y + 1, x + w, y + h, polygon=outline(x, y, w, h) if masks else None)
        for n, x, y, w, h in objects
    ]


def voc(root, truth=TRUTH, line="{}"):
    """The usual layout, with split lists where the truth has splits."""
    for split, pictures in truth.items():
        pictures_to(root / "JPEGImages", pictures)
        for stem, objects in pictures.items():
            voc_xml(root / "Annotations" / f"{stem}.xml", voc_objects(objects))
        if split:
            path = root / "ImageSets" / "Main" / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(line.format(stem) + "\n" for stem in pictures))


def voc_beside(root, truth=TRUTH, masks=False):
    for split, pictures in truth.items():
        folder = root / "images" / split if split else root / "labeled"
        pictures_to(folder, pictures)
        for stem, objects in pictures.items():
            voc_xml(folder / f"{stem}.xml", voc_objects(objects, masks))


def yolo_line(name, x, y, w, h, masks=False):
    index = NAMES.index(name)
    if masks:
        points = outline(x, y, w, h)
        values = [v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(points)]
    else:
        values = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
    return " ".join([str(index), *(f"{value:.10f}" for value in values)])


def yolo(root, truth=TRUTH, masks=False, setup="names: [cat, dog]\nnc: 2\n", prefix="../"):
    """Roboflow's layout, whose data.yaml names folders one level too high."""
    for split, pictures in truth.items():
        folder = root / {"val": "valid"}.get(split, split)
        pictures_to(folder / "images", pictures)
        (folder / "labels").mkdir(parents=True)
        for stem, objects in pictures.items():
            lines = [yolo_line(*item, masks=masks) for item in objects]
            (folder / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    if setup:
        places = f"train: {prefix}train/images\nval: {prefix}valid/images\ntest: {prefix}test/images\n"
        (root / "data.yaml").write_text(places + setup)


def csv_rows(path, rows, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)


def csv_tables(root, truth=TRUTH, header=True):
    for split, pictures in truth.items():
        pictures_to(root / "images" / (split or ""), pictures)
        boxes = [(stem, n, x, y, x + w, y + h) for stem, found in pictures.items() for n, x, y, w, h in found]
        if header:
            rows = [(f"{s}.png", WIDTH, HEIGHT, n, *corners) for s, n, *corners in boxes]
            names = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
            csv_rows(root / "images" / f"{split or 'all'}_labels.csv", rows, names)
        else:
            rows = [(f"{s}.png", *corners, n) for s, n, *corners in boxes]
            rows += [(f"{stem}.png", "", "", "", "", "") for stem, found in pictures.items() if not found]
            csv_rows(root / f"{split or 'labels'}.csv", rows)


def custom_vision(root, pictures=ONE[None]):
    pictures_to(root / "model" / "images", pictures)
    entries = []
    for stem, objects in pictures.items():
        regions = [
            {"tagName": n, "left": x / WIDTH, "top": y / HEIGHT, "width": w / WIDTH, "height": h / HEIGHT}
            for n, x, y, w, h in objects
        ]
        entries.append({"id": stem, "imageUri": None, "regions": regions})
    write_json(root / "model" / "dataset.json", entries)


def pair_lists(root, truth=TRUTH):
    for split, pictures in truth.items():
        lines = []
        for stem, objects in pictures.items():
            noise(root / "PCB" / "g1" / "1" / f"{stem}_test.png", seed_of(stem))
            text = root / "PCB" / "g1" / "1_not" / f"{stem}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            numbers = {"cat": 3, "dog": 1}
            text.write_text("".join(f"{x} {y} {x + w} {y + h} {numbers[n]}\n" for n, x, y, w, h in objects))
            lines.append(f"g1/1/{stem}.png g1/1_not/{stem}.txt")
        name = {"train": "trainval"}.get(split, split)
        (root / "PCB" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def png_masks(root, pictures=ONE[None]):
    for stem, objects in pictures.items():
        noise(root / "stage1" / stem / "images" / f"{stem}.png", seed_of(stem))
        for number, (_, x, y, w, h) in enumerate(objects):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[y : y + h, x : x + w] = 255
            path = root / "stage1" / stem / "masks" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
