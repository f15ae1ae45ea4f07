"""A folder in COCO format made of scenes, for tests of the command `train`."""

import json
from pathlib import Path

from PIL import Image

from rfdetr.data.scenes import scenes


def coco_scenes(root: Path, splits: dict[str, int], domain: str = "digits", masks: bool = True) -> Path:
    """Folder with `splits[name]` pictures of 64 px in every split, layout of a Roboflow export."""
    for split, size in splits.items():
        data = scenes(domain, split, size=size, canvas=64)
        folder = root / {"val": "valid"}.get(split, split)
        folder.mkdir(parents=True)
        content = json.loads(json.dumps(data.coco))
        if not masks:
            for annotation in content["annotations"]:
                del annotation["segmentation"]
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
        for index, image in enumerate(content["images"]):
            Image.fromarray(data[index][0]).save(folder / image["file_name"])
    return root
