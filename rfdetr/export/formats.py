"""The forms in which a sub-network leaves this package."""

import json
from pathlib import Path
from typing import Any

from rfdetr.arch import Arch
from rfdetr.export import openvino_files
from rfdetr.export.onnx import export_onnx
from rfdetr.export.published import export_published_io, write_published, write_transformers
from rfdetr.files import sha256_file
from rfdetr.model.detector import RFDETR

ENDINGS = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".engine",
    "published": ".pth",
    "transformers": "",
}
"""Format -> ending of its file; a Transformers folder has none."""


def write(model: RFDETR, arch: Arch, path: Path, form: str, io: str = "own", **options: Any) -> str:
    """Write one sub-network and say what was written, for the terminal.

    form     a key of `ENDINGS`; engines are built by `rfdetr.benchmark.runtimes.tensorrt_build`
    io       names of an ONNX file's tensors: "own" or "published"
    options  dynamic_batch, batch: of `export_onnx`
    """
    if form == "published":
        arguments = write_published(model, path, arch)
        return f"{path}\nthe published package opens it with {json.dumps(arguments)}"
    if form == "transformers":
        folder = write_transformers(model, path, arch)
        kind = "RfDetrForInstanceSegmentation" if model.config.segmentation else "RfDetrForObjectDetection"
        return f"{folder}\nopen it with transformers.{kind}.from_pretrained({str(folder)!r})"
    if form == "openvino":
        return _openvino(model, arch, path, **options)
    if io == "published":
        artifact = export_published_io(model, arch, path, **options)
    else:
        artifact = export_onnx(model, arch, path, **options)
    return f"{artifact.path}\nsha256 {artifact.sha256}"


def _openvino(model: RFDETR, arch: Arch, path: Path, **options: Any) -> str:
    """An OpenVINO model (.xml and .bin) in FP32 with the metadata; the ONNX file it is made from stays beside
    it.
    """
    openvino = openvino_files.load_openvino()
    artifact = export_onnx(model, arch, path.with_suffix(".onnx"), **options)
    openvino_files.save(openvino.convert_model(str(artifact.file)), path, artifact.metadata)
    return f"{path}\nsha256 {sha256_file(path)}\nmade from {artifact.path}"
