"""Deployable files of sub-networks: `export_onnx(model, arch, path)` and what it is made of.

`onnx` writes and checks a file, `graph` is the deployed computation, `rewrite` shortens its graph, `variants`
makes many sub-networks' files from few traces, `artifact` is a written file with its identity. Nothing here
measures (`rfdetr.benchmark`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfdetr.export.artifact import Artifact, load_artifact
    from rfdetr.export.onnx import export_many, export_onnx

_LAZY = {
    "Artifact": "rfdetr.export.artifact",
    "load_artifact": "rfdetr.export.artifact",
    "export_many": "rfdetr.export.onnx",
    "export_onnx": "rfdetr.export.onnx",
}

__all__ = ["Artifact", "export_many", "export_onnx", "load_artifact"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rfdetr.export' has no attribute {name!r}")
