"""The parts of the convolutional baseline (`ch09_convolution`): how long, by which recipe, trained, timed."""

import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.data.dataset import DetectionDataset
from rfdetr.errors import UserError
from rfdetr.experiments import ch09_convolution_network as convolution
from rfdetr.experiments.base import fitting, kept, per_image
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.ch09_data import facts
from rfdetr.experiments.ch09_domains import NAME as BENCHMARK
from rfdetr.experiments.ch09_domains import SIZES
from rfdetr.experiments.ch09_parts import open_domain
from rfdetr.experiments.ch09_shown import LEAST
from rfdetr.files import atomic_path

PACKAGE = "libreyolo"
MODES = ("evaluation", "deployed")
"""How boxes are chosen in the two files of a network (`rfdetr.peers.yolo`)."""


def pace_part(place: Place, profile: str, domain: str, seed: int, steps: int) -> dict[str, Any]:
    """Processor seconds that a step of the supernet's further training takes on a domain, here and now.

    The sub-networks and pictures are those of the first steps of the benchmark's training; the weights are
    random, since they have no part in the time.
    """
    sizes = SIZES[profile]
    train = open_domain(place, sizes, domain, "train")
    model = fitting.new_network(train, sizes.model, seed)
    changes = {"seed": seed, "steps": steps, "warmup_steps": 0, "batch_size": sizes.batch_size}
    config = {**PROFILES[profile].recipe.train, **changes, "augment": True}
    shutil.rmtree(place.work, ignore_errors=True)  # an interrupted count is begun anew
    started = time.process_time()
    fitting.fit(place, model, train, sizes.training, config)
    return {"domain": domain, "steps": steps, "step_s": (time.process_time() - started) / steps}


def recipe_part(
    place: Place, profile: str, domain: str, seed: int, recipe: Mapping[str, Any], side: int, share: float
) -> dict[str, Any]:
    """What a recipe reaches on the validation pictures of an embedded domain in a share of the time."""
    model, found = _trained(place, profile, domain, seed, recipe, side, share)
    val = open_domain(place, SIZES[profile], domain, "val")
    path = place.work / "val.onnx"
    convolution.export(model, side, val, MODES[0], path)
    row, _, _ = tested(path, val)
    return {"domain": domain, "recipe": dict(recipe), "val_AP": row["AP"], **found}


def train_part(
    place: Place, profile: str, domain: str, seed: int, side: int, recipes: list[str]
) -> dict[str, Any]:
    """The network trained on a domain by the recipe that was best on the embedded one, and tested."""
    sizes = SIZES[profile]
    tried = [place.value(name) for name in recipes]
    best = max(range(len(tried)), key=lambda i: tried[i]["val_AP"])
    model, found = _trained(place, profile, domain, seed, tried[best]["recipe"], side)
    splits = [open_domain(place, sizes, domain, split) for split in ("train", "val", "test")]
    rows: list[dict[str, Any]] = []
    arrays: list[dict[str, np.ndarray]] = []
    shown: list[dict[str, Any]] = []
    for mode in MODES:
        path = place.file(f".{mode}.onnx")
        artifact = convolution.export(model, side, splits[2], mode, path)
        row, packed, detections = tested(path, splits[2])
        rows.append({"nms": mode, "sha256": artifact.sha256, **row})
        arrays.append(packed)
        shown = shown or detections
    with atomic_path(place.file(".npz")) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **per_image.joined(arrays))
    package = f"{PACKAGE} {package_version()}"
    about = {"domain": domain, "package": package, "recipe": recipes[best], "side": side}
    about |= counts(model, side)
    epochs = found["steps"] * sizes.batch_size / len(splits[0])
    return {**about, **found, "epochs": epochs, **facts(splits), "tests": rows, "detections": shown}


def _trained(
    place: Place,
    profile: str,
    domain: str,
    seed: int,
    recipe: Mapping[str, Any],
    side: int,
    share: float = 1.0,
) -> tuple[Any, dict[str, Any]]:
    """The trained network, and what its training was. share: part of the time of the supernet's training."""
    sizes = SIZES[profile]
    train = open_domain(place, sizes, domain, "train")
    allowed = share * sizes.steps * place.value(f"pace-{domain}")["step_s"]
    model = network(train.num_classes, seed)
    whole = {**recipe, "batch_size": sizes.batch_size, "seed": seed}
    done = convolution.fit(model, train, whole, allowed, side, place.work)
    numbers = {"steps": done.steps, "loss": round(done.loss, 4), "skipped": done.skipped}
    return model, {"allowed_s": round(allowed, 1), "seconds": done.seconds, **numbers}


def counts(model: Any, side: int) -> dict[str, float]:
    """Parameters (10^6) and GFLOPs of one picture, a multiplication and an addition counted as two, as for
    the supernet.
    """
    import torch

    from rfdetr.benchmark.flops import count_module

    gflops, _ = count_module(model.eval(), torch.zeros(1, 3, side, side))
    return {"params_m": sum(p.numel() for p in model.parameters()) / 1e6, "gflops": gflops}


def tested(
    path: Path, dataset: DetectionDataset
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[dict[str, Any]]]:
    """AP and `resampled` of a file (as `ch09_parts.tests`, on the same resamples), what it found per picture,
    and its detections of at least `LEAST` as rows of `ch09_shown`.
    """
    from rfdetr.benchmark.accuracy import load_exported
    from rfdetr.evaluation.bootstrap import Matches, image_weights
    from rfdetr.evaluation.coco import evaluate

    result = evaluate(load_exported(path), dataset, masks=False)
    # Pairs of a box and a class that were not chosen come with a score of 0.
    found = [
        {**one, **{name: one[name][one["scores"] > 0] for name in ("scores", "labels", "boxes")}}
        for one in result.detections
    ]
    matches = Matches(dataset, found)
    weights = image_weights(len(dataset), fitting.RESAMPLES, 0)
    ap = matches.ap(np.concatenate([np.ones((1, len(dataset))), weights]))
    row = {"AP": float(ap[0]), "resampled": [round(float(value), 5) for value in ap[1:]]}
    return row, per_image.packed(matches), _rows(dataset, found)


def _rows(dataset: DetectionDataset, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    images = {image["id"]: (i, image) for i, image in enumerate(dataset.coco["images"])}
    rows = []
    for one in found:
        number, image = images[one["image_id"]]
        size = [image["width"], image["height"]] * 2
        for box, score, label in zip(one["boxes"], one["scores"], one["labels"], strict=True):
            if score >= LEAST:
                corners = (round(float(value), 4) for value in box / size)
                left, top, right, bottom = corners
                place = {"left": left, "top": top, "right": right, "bottom": bottom}
                rows.append({"image": number, "label": int(label), "score": round(float(score), 3), **place})
    return rows


def time_part(
    place: Place, domain: str, trained: str, archs: Mapping[str, str], rounds: int, cell: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The network's two files and the benchmark's sub-networks of a domain, in turns on one thread: rows of
    `rfdetr.peers.timing.timed` with `network` and `round`.

    archs: name -> sub-network. They are exported with the base's weights, which have no part in the time.
    """
    from rfdetr.export.onnx import export_onnx
    from rfdetr.model.weights import with_classes
    from rfdetr.peers.timing import Cell, timed

    files = {f"convolution, {mode}": place.needed(trained, f".{mode}.onnx") for mode in MODES}
    if archs:
        classes = place.value(trained)["classes"]
        model, _ = with_classes(kept.load(BENCHMARK).network(), num_classes=classes)
        for name, arch in archs.items():
            files[name] = place.work / f"{arch}.onnx"
            if not files[name].is_file():
                export_onnx(model, Arch.parse(arch), files[name])
    rows = []
    for number in range(rounds):
        names = list(files)
        random.Random(f"{domain}-{number}").shuffle(names)
        for name in names:
            for row in timed(Cell(str(files[name]), "onnxruntime", "fp32", 1, **cell)):
                rows.append({"domain": domain, "network": name, "round": number, **row})
    return rows


def network(classes: int, seed: int, size: str = "n") -> Any:
    """YOLOX with random weights for so many classes. UserError without the package."""
    if find_spec(PACKAGE) is None:
        raise UserError(
            f"the baseline is built by the package {PACKAGE} (MIT): pip install --no-deps {PACKAGE}==1.6.0"
        )
    with _without_the_rest():
        nn_module = import_module(f"{PACKAGE}.models.yolox.nn")
    import torch

    torch.manual_seed(seed)
    model = nn_module.LibreYOLOXModel(config=size, nb_classes=classes)
    model.init_weights()
    return model


@contextmanager
def _without_the_rest() -> Iterator[None]:
    """In the block a network of the package can be imported by itself.

    The package's lists of models and trainers import every family, and with some of them torchvision, OpenCV
    and more. What was imported before stays as it is.
    """
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    bare = {f"{PACKAGE}.{name}": ModuleType(f"{PACKAGE}.{name}") for name in ("models", "training")}
    put = {name: module for name, module in bare.items() if name not in sys.modules}
    for name, module in put.items():
        module.__path__ = [str(root / name.rpartition(".")[2])]
    sys.modules.update(put)
    try:
        yield
    finally:
        # Whoever wants the whole package later gets it.
        for name in put:
            del sys.modules[name]


def package_version() -> str:
    """Of the package; "unknown" where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"
