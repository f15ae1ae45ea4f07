"""RF-DETR with its neural architecture search (arXiv 2511.09554): detector, supernet training, search,
measurement.

Importing this package is light: torch and everything built on it are loaded on first use. The sub-packages
hold the rest: `rfdetr.data`, `model`, `training`, `evaluation`, `export`, `benchmark`, `search`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from rfdetr.arch import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch, ArchError, Preset, SearchSpace
from rfdetr.errors import UserError
from rfdetr.version import __version__

if _TYPE_CHECKING:
    from rfdetr.benchmark.accuracy import load_exported
    from rfdetr.data.categories import CategoryMap
    from rfdetr.data.registry import load_dataset
    from rfdetr.evaluation.coco import evaluate
    from rfdetr.export.onnx import export_onnx
    from rfdetr.model.config import ModelConfig
    from rfdetr.model.detections import Detections
    from rfdetr.model.detector import RFDETR, build
    from rfdetr.model.dinov2 import load_dinov2
    from rfdetr.model.official import load_official
    from rfdetr.model.weights import with_classes
    from rfdetr.networks import load
    from rfdetr.search.grid import evaluate_grid
    from rfdetr.training.config import TrainConfig
    from rfdetr.training.loop import train

_LAZY = {
    "RFDETR": "rfdetr.model.detector",
    "CategoryMap": "rfdetr.data.categories",
    "Detections": "rfdetr.model.detections",
    "ModelConfig": "rfdetr.model.config",
    "TrainConfig": "rfdetr.training.config",
    "build": "rfdetr.model.detector",
    "evaluate": "rfdetr.evaluation.coco",
    "evaluate_grid": "rfdetr.search.grid",
    "export_onnx": "rfdetr.export.onnx",
    "load": "rfdetr.networks",
    "load_dataset": "rfdetr.data.registry",
    "load_dinov2": "rfdetr.model.dinov2",
    "load_exported": "rfdetr.benchmark.accuracy",
    "load_official": "rfdetr.model.official",
    "train": "rfdetr.training.loop",
    "with_classes": "rfdetr.model.weights",
}

__all__ = [
    "PRESETS",
    "RFDETR",
    "SEARCH_GRID",
    "TRAINING_GRID",
    "Arch",
    "ArchError",
    "CategoryMap",
    "Detections",
    "ModelConfig",
    "Preset",
    "SearchSpace",
    "TrainConfig",
    "UserError",
    "__version__",
    "build",
    "evaluate",
    "evaluate_grid",
    "export_onnx",
    "load",
    "load_dataset",
    "load_dinov2",
    "load_exported",
    "load_official",
    "train",
    "with_classes",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(_import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rfdetr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
