"""Networks by name, as the command line and the recipes take them, and what a user says their classes are."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import PRESETS
from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

RANDOM = "random:"
EXPORTED = {".onnx": "onnxruntime", ".engine": "tensorrt", ".plan": "tensorrt", ".xml": "openvino"}
"""Endings of files that hold one sub-network -> the runtime that they are run with, if no other is named."""


def is_exported(target: str | Path) -> bool:
    """Whether this names an exported file, by its ending."""
    return Path(target).suffix.lower() in EXPORTED


def runtime_for(target: str | Path) -> str:
    """The runtime of an exported file by its ending; ONNX Runtime for whatever else there is."""
    return EXPORTED.get(Path(target).suffix.lower(), EXPORTED[".onnx"])


def load(source: str | Path, categories: str | None = None) -> "RFDETR":
    """The network that you trained, or a published one, in evaluation mode on the processor.

    source      the folder of a training or its checkpoint.pt; a published name such as "nano" (downloaded and
                checked); "nano:FILE" for published weights that are here, also fine-tuned ones
    categories  what its classes are, where the file does not say it: "coco", or a JSON file that lists them

    The network holds all its sub-networks: `model.predict(images, "r384-p16-w2-d2-q300")`,
    `model.subnet(...)`. `model.config` has its sizes, classes and default architecture. Raises UserError that
    says what can be given. Exported files are opened by `rfdetr.load_exported`.
    """
    return open_network(source, categories)


def open_network(target: str | Path, categories: str | None = None) -> "RFDETR":
    """A network from a checkpoint or the folder of a training, or a published one, in evaluation mode.

    Published ones: by name (downloaded), `<name>:<file or folder>` for weights that are here
    (`rfdetr.load_official`), or `random:<name>`. A path that exists goes before a name. Random weights (seed
    0) time like trained ones; only their accuracy means nothing. categories: what its classes are, where the
    weights do not say it or say it wrong (`named_categories`). Raises UserError that lists what can be given.
    """
    model = _open(target)
    if categories is not None:
        named = named_categories(categories, model.config.num_classes)
        model.config = model.config.replace(categories=named)
    return model


def _open(target: str | Path) -> "RFDETR":
    name, path = str(target), Path(target)
    if is_exported(path):
        raise UserError(
            f"{path} is an exported file, not a network: predict, evaluate and benchmark take it (in Python"
            " rfdetr.load_exported); for anything else give the network that it was exported from"
        )
    if path.exists():
        from rfdetr.training.checkpoint import model_from_checkpoint

        return model_from_checkpoint(path)
    if name.startswith(RANDOM):
        import torch

        from rfdetr.model.detector import build

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(name.removeprefix(RANDOM)).eval()
    preset, colon, file = name.partition(":")
    if preset in PRESETS:
        from rfdetr.model.official import load_official

        return load_official(preset, file if colon else None)
    raise UserError(
        f"there is no file {name} and no configuration of that name; give a checkpoint of `train` or its"
        f" folder, one of {', '.join(PRESETS)}, <one of them>:<file of published weights>, or {RANDOM}<one of"
        " them>"
    )


def named_categories(text: str, num_classes: int | None) -> CategoryMap:
    """The classes that a user names: "coco", or a JSON file with COCO's list `categories` or a list of names.

    num_classes: K of the network. COCO with K = 91 has its category ids as class indexes, with K = 80 it is
    contiguous. The ids of a file are the class indexes where the network has more classes than the file has
    categories, as in the published training; else classes are in the order of the ids. Raises UserError
    where they do not fit K.
    """
    known = [CategoryMap.official(), CategoryMap.coco80()] if text == "coco" else _from_file(Path(text))
    for categories in known:
        if num_classes in (None, categories.num_classes):
            return categories
        if categories.num_classes < num_classes and max(categories.ids) < num_classes:
            return CategoryMap(categories.ids, categories.names, categories.ids, num_classes)
    counts = " or ".join(str(categories.num_classes) for categories in known)
    raise UserError(f"--categories {text} names {counts} classes, the network has {num_classes}")


def _from_file(path: Path) -> list[CategoryMap]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        listed = content["categories"] if isinstance(content, dict) else content
        if all(isinstance(entry, str) for entry in listed):
            found = CategoryMap.from_names(listed)
        else:
            found = CategoryMap.from_coco(listed)
        if len(found):
            return [found]
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--categories takes coco, or a JSON file with a list `categories` of ids and names, not {path}"
            f" ({type(error).__name__}: {error})"
        ) from error
    raise UserError(f"--categories: {path} lists no category")
