"""Runtimes behind one small interface (`rfdetr.benchmark.runtimes.base`), by name."""

from typing import Any

from rfdetr.benchmark.devices import visible, with_torch
from rfdetr.benchmark.runtimes.base import Runtime
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact
from rfdetr.provenance import cpu_name, versions

FILE_RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino", "tensorrt")
TORCH_RUNTIMES = ("torch", "torch-compile", "torch-cudagraph")
PRECISIONS = {
    **dict.fromkeys(FILE_RUNTIMES[:3], ("fp32", "fp16")),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8", "int8+bf16"),
    "tensorrt": ("fp16", "fp32", "tf32", "int8"),
    **dict.fromkeys(TORCH_RUNTIMES, ("fp32", "bf16", "fp16")),
}
"""What each runtime can be asked for; the first is its default."""


def check_runtime(name: str, precision: str = "", device: int = 0) -> str:
    """The precision asked for, or the runtime's default one.

    Raises UserError for a name or precision that is not known, and when a package, provider or GPU that it
    needs is missing here. Quick: call it before hours of other work.
    """
    if name not in PRECISIONS:
        raise UserError(f"unknown runtime {name!r}; choose one of {', '.join(PRECISIONS)}")
    precision = precision or PRECISIONS[name][0]
    if precision not in PRECISIONS[name]:
        able = [other for other, known in PRECISIONS.items() if precision in known]
        hint = f"; {precision} runs in {', '.join(able)}" if able else ""
        raise UserError(f"{name} runs {', '.join(PRECISIONS[name])}, not {precision}{hint}")
    if name.startswith("onnxruntime"):
        from rfdetr.benchmark.runtimes.onnxruntime import load_onnxruntime

        load_onnxruntime(name.partition("-")[2] or "cpu")
    elif name == "openvino":
        from rfdetr.benchmark.runtimes.openvino import load_openvino
        from rfdetr.export.int8 import load_nncf

        load_openvino()
        if precision.startswith("int8"):
            load_nncf()
    elif name == "tensorrt":
        from rfdetr.benchmark.runtimes.cuda import Cuda
        from rfdetr.benchmark.runtimes.tensorrt import load_tensorrt

        load_tensorrt()
        Cuda(device).close()
    else:
        from rfdetr.benchmark.runtimes.torch import check_torch

        check_torch(name.partition("-")[2] or "eager", device)
    return precision


def check_executes(name: str, precision: str = "", device: int = 0) -> str:
    """`check_runtime`, and that products really run in the precision here: for what is chosen by its latency.

    A processor without a type computes in another one and says nothing. Raises UserError naming what it has.
    """
    precision = check_runtime(name, precision, device)
    if name == "openvino":
        from rfdetr.benchmark.runtimes.openvino import check_processor

        check_processor(precision)
    return precision


def device_name(name: str, device: int = 0) -> str:
    """What a runtime computes on here, in the words of its `RuntimeInfo.device`."""
    if name in ("onnxruntime", "openvino"):
        return cpu_name()
    if name in TORCH_RUNTIMES:
        import torch

        return with_torch(device).name if torch.cuda.is_available() else cpu_name()
    return visible(device).name


def library_version(name: str) -> str:
    """The installed version of what a runtime runs on."""
    known = versions()
    packages = [name.partition("-")[0], "onnxruntime-gpu" if name.startswith("onnxruntime") else ""]
    return next((known[package] for package in packages if package in known), "unknown")


def load_runtime(name: str, artifact: Artifact, precision: str = "", **options: Any) -> Runtime:
    """Load a file in one of `FILE_RUNTIMES`.

    precision  one of the runtime's, where the runtime decides it and not the file (openvino,
               onnxruntime-tensorrt)
    options    threads (processors), device (index of the GPU, as CUDA counts), and the runtime's own

    PyTorch runs networks, not files: `rfdetr.benchmark.runtimes.torch.TorchRuntime.of` takes those.
    """
    if name.startswith("onnxruntime"):
        from rfdetr.benchmark.runtimes.onnxruntime import OnnxRuntime

        provider = name.partition("-")[2] or "cpu"
        if provider == "tensorrt" and artifact.precision != "fp16":
            options.setdefault("fp16", precision == "fp16")
        return OnnxRuntime.load(artifact, provider=provider, **options)
    if name == "openvino":
        from rfdetr.benchmark.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime.load(artifact, precision=precision, **options)
    if name == "tensorrt":
        from rfdetr.benchmark.runtimes.tensorrt import TensorRTRuntime

        return TensorRTRuntime.load(artifact, **options)
    raise UserError(f"unknown runtime {name!r} for a file; choose one of {', '.join(FILE_RUNTIMES)}")
