"""Runtimes behind one small interface (`rfdetr.benchmark.runtimes.base`), by name."""

from typing import Any

from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact

FILE_RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
TORCH_RUNTIMES = ("torch", "torch-compile", "torch-cudagraph")


def load_runtime(name: str, artifact: Artifact, **options: Any) -> Runtime:
    """The runtime of that name: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt.

    PyTorch runs networks, not files: `rfdetr.benchmark.runtimes.torch.TorchRuntime.of` takes those.
    """
    if name.startswith("onnxruntime"):
        from rfdetr.benchmark.runtimes.onnxruntime import OnnxRuntime

        provider = name.partition("-")[2] or "cpu"
        return OnnxRuntime.load(artifact, provider=provider, **options)
    if name == "tensorrt":
        from rfdetr.benchmark.runtimes.tensorrt import TensorRTRuntime

        return TensorRTRuntime.load(artifact, **options)
    raise UserError(f"unknown runtime {name!r} for a file; choose one of {', '.join(FILE_RUNTIMES)}")
