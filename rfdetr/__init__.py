"""RF-DETR with its neural architecture search (arXiv 2511.09554): detector, supernet training, search,
measurement.

Importing this package is light: torch and everything built on it are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rfdetr.arch import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch, ArchError, Preset, SearchSpace
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR, ModelConfig, build
    from rfdetr.model.dinov2 import load_dinov2
    from rfdetr.model.official import load_official
    from rfdetr.model.weights import with_classes

__version__ = "0.1.0"

_LAZY = {
    "RFDETR": "rfdetr.model.detector",
    "ModelConfig": "rfdetr.model.detector",
    "build": "rfdetr.model.detector",
    "load_dinov2": "rfdetr.model.dinov2",
    "load_official": "rfdetr.model.official",
    "with_classes": "rfdetr.model.weights",
}

__all__ = [
    "PRESETS",
    "RFDETR",
    "SEARCH_GRID",
    "TRAINING_GRID",
    "Arch",
    "ArchError",
    "ModelConfig",
    "Preset",
    "SearchSpace",
    "UserError",
    "build",
    "load_dinov2",
    "load_official",
    "with_classes",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rfdetr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
