"""The search of the page "Search your own data": a small one, on real pictures where they can be had."""

import contextlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.data.registry import load_dataset
from rfdetr.data.scenes import scenes
from rfdetr.errors import UserError
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import Profile
from rfdetr.files import write_json
from rfdetr.nas.options import NasOptions
from rfdetr.nas.pipeline import search_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset

_SCENES = {"train": 120, "valid": 40, "test": 40}
_SIDE = 160
_STEPS, _SMOKE_STEPS = 240, 6


def data(wanted: str, root: Path) -> tuple[str, str]:
    """(data to search for, a sentence about them): what is wanted, or a COCO folder of embedded scenes below
    `root`.
    """
    try:
        splits = [load_dataset(wanted, split) for split in ("train", "val", "test")]
    except UserError as error:
        folder = scene_folder(root / "own-data-scenes")
        reason = str(error).split(":")[0]
        return str(folder), f"`{wanted}` cannot be had here ({reason}), so this page takes {_words(folder)}."
    counts = ", ".join(f"{len(split)} {split.split}" for split in splits)
    return wanted, f"`{wanted}`: {counts} pictures, classes {', '.join(splits[0].class_names)}."


def _words(folder: Path) -> str:
    return (
        f"scenes of its own in a folder of COCO format ({', '.join(f'{n} {s}' for s, n in _SCENES.items())})"
    )


def scene_folder(folder: Path) -> Path:
    """A folder in COCO format as people have them, with embedded scenes; made once."""
    from PIL import Image

    for name, count in _SCENES.items():
        target = folder / name / "_annotations.coco.json"
        if target.is_file():
            continue
        split: DetectionDataset = scenes("digits", {"valid": "val"}.get(name, name), size=count, canvas=_SIDE)
        target.parent.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(split.coco["images"]):
            Image.fromarray(split[index][0]).save(target.parent / image["file_name"])
        write_json(target, split.coco)
    return folder


def run(profile: Profile, seed: int, store: Store, chosen: str, steps: int = 0) -> Path:
    """Search in the store; the same profile, seed and data are never searched twice. Returns the run's
    folder. So that it takes minutes, pictures are small, windows are left out and training is short.
    """
    options = NasOptions(
        data=chosen,
        seed=seed,
        steps=steps or (_STEPS if profile.meaningful else _SMOKE_STEPS),
        resolutions=(96, 128, 160) if profile.meaningful else (48, 64),
        patch_sizes=(16,) if not profile.meaningful else (),
        windows=(1,),
        queries=None if profile.meaningful else 8,
        batch_size=8,
        measured=20 if profile.meaningful else 12,
    )
    key = {"options": asdict(options), "data": load_dataset(chosen, "train").fingerprint}
    folder = store.path("own-data", json.loads(json.dumps(key)), ("rfdetr.nas.pipeline",))
    # Bars are for a terminal; on a page they would be hundreds of lines.
    with contextlib.redirect_stderr(io.StringIO()):
        search_network(options, folder, say=lambda text: print(text.replace(f"{folder}/", ""), flush=True))
    return folder
