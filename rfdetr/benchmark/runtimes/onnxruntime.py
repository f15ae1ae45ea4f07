"""ONNX Runtime: CPU, and the CUDA and TensorRT providers where an ONNX Runtime with them is installed."""

import json
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np

from rfdetr.benchmark.devices import visible
from rfdetr.benchmark.runtimes.base import Arrays, Runtime, RuntimeInfo
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact
from rfdetr.export.fp16 import emulated
from rfdetr.provenance import cpu_name

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


# Operators of an optimised graph that multiply, in INT8 and in floating point.
_QUANTISED = {"QLinearMatMul", "QLinearConv", "QGemm", "MatMulInteger", "MatMulIntegerToFloat"}
_QUANTISED |= {"ConvInteger", "DynamicQuantizeMatMul", "QAttention"}
_FLOATING = {"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "NhwcFusedConv"}
_FLOATING |= {"Attention", "MultiHeadAttention"}


def load_onnxruntime(provider: str = "cpu") -> Any:
    """The module `onnxruntime`. Raises UserError when it or the provider (cpu, cuda, tensorrt) is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("this needs ONNX Runtime: pip install onnxruntime") from error
    if provider not in _PROVIDERS:
        raise UserError(f"unknown provider {provider!r}; choose one of {', '.join(_PROVIDERS)}")
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[provider] not in available:
        raise UserError(
            f"this ONNX Runtime has no {_PROVIDERS[provider]} (it has {', '.join(available)}): "
            "pip install onnxruntime-gpu in place of onnxruntime, on a machine with an NVIDIA GPU"
        )
    return onnxruntime


def session_options(onnxruntime: Any, threads: int) -> Any:
    """Options of a session that runs its operators one after the other, each on `threads` threads, in
    silence.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return options


def _executed(written: str, provider: str, fp16: bool, emulated: bool) -> tuple[str, dict[str, Any]]:
    """Precision as executed of a file written at `written`, and what the record says about it."""
    if provider == "cpu":
        if written != "fp16":
            return written, {}
        return ("fp16" if emulated else "mixed"), {"emulated": emulated}
    return ("mixed" if provider == "tensorrt" and fp16 else written), {"fp16": fp16}


def _with_products(onnxruntime: Any, source: str | bytes, options: Any) -> tuple[Any, dict[str, int]]:
    """A session on the processor, and how many products of the graph that it executes run in which
    precision.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "executed.onnx")
        session = onnxruntime.InferenceSession(source, options, providers=[_PROVIDERS["cpu"]])
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    found = {"int8": sum(k in _QUANTISED for k in kinds), "fp32": sum(k in _FLOATING for k in kinds)}
    return session, {name: count for name, count in found.items() if count}


def as_built(products: dict[str, int]) -> str:
    """The precision of at least nine tenths of the products, else "mixed"; "unknown" without any."""
    total = sum(products.values())
    top = max(products, key=lambda name: products[name], default="unknown")
    return top if not total or 10 * products[top] >= 9 * total else "mixed"


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, artifact: Artifact, session: Any, info: RuntimeInfo, device: int | None) -> None:
        self.artifact, self.session, self.info = artifact, session, info
        self._names = [o.name for o in artifact.outputs]
        self._device = device or 0
        self._binding = session.io_binding() if device is not None else None
        self._inputs: dict[str, np.ndarray] = {}
        self._outputs: list[np.ndarray] = []

    @classmethod
    def load(
        cls,
        artifact: Artifact,
        provider: str = "cpu",
        threads: int = 1,
        fp16: bool = False,
        emulate_fp16: bool = False,
        device: int = 0,
        **_: Any,
    ) -> Self:
        """Load an ONNX file.

        provider      cpu, cuda or tensorrt
        threads       threads inside an operator (CPU); operators run one after the other
        fp16          let the TensorRT provider choose FP16 for an FP32 file
        emulate_fp16  round every FP16 tensor of an FP16 file to FP16 (`rfdetr.export.fp16.emulated`), for
                      its accuracy; such a runtime cannot be timed
        device        index of the GPU, as CUDA counts

        Otherwise the precision of an FP16 file on a processor is "mixed": most of it is computed in FP32.
        """
        onnxruntime = load_onnxruntime(provider)
        if artifact.format != "onnx":
            raise UserError(f"ONNX Runtime runs .onnx files, not {artifact.path} ({artifact.format})")
        if emulate_fp16 and (provider != "cpu" or artifact.precision != "fp16"):
            raise UserError(
                f"FP16 is emulated for FP16 files on the CPU, not for {artifact.precision} on {provider}"
            )
        if threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        settings: dict[str, Any] = {} if provider == "cpu" else {"device_id": device}
        if provider == "cuda":
            # TF32 would silently be another precision than the file's.
            settings["use_tf32"] = 0
        if provider == "tensorrt":
            settings["trt_fp16_enable"] = fp16
        source: str | bytes = str(artifact.path)
        if emulate_fp16:
            source = emulated(artifact)
        wanted = _PROVIDERS[provider]
        quantised = provider == "cpu" and artifact.precision == "int8"
        opened = session_options(onnxruntime, threads)
        try:
            if quantised:
                session, products = _with_products(onnxruntime, source, opened)
            else:
                session = onnxruntime.InferenceSession(source, opened, providers=[(wanted, settings)])
        except Exception as error:  # its errors have no class of their own
            detail = " ".join(str(error).split())[:300]
            raise UserError(f"ONNX Runtime cannot run {artifact.path}: {detail}") from error
        if wanted not in session.get_providers():
            raise UserError(f"{wanted} could not be started on this machine; is there an NVIDIA driver?")
        gpu = visible(device) if provider != "cpu" else None
        precision, details = _executed(artifact.precision, provider, fp16, emulate_fp16)
        if quantised:
            precision, details = as_built(products), {"products": json.dumps(products)}
        info = RuntimeInfo(
            runtime=f"onnxruntime-{provider}" if gpu else "onnxruntime",
            version=onnxruntime.__version__,
            device=gpu.name if gpu else cpu_name(),
            precision=precision,
            driver=gpu.driver if gpu else "",
            gpu=gpu.uuid if gpu else None,
            details=details if gpu else {"threads": threads, **details},
        )
        return cls(artifact, session, info, device if gpu else None)

    @property
    def has_copies(self) -> bool:
        """True on a GPU."""
        return self._binding is not None

    def bind(self, inputs: Arrays) -> None:
        """Keep the arrays (CPU) or copy them to the GPU."""
        self._inputs = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        if self._binding is not None:
            import onnxruntime

            self._binding.clear_binding_inputs()
            for name, value in self._inputs.items():
                there = onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", self._device)
                self._binding.bind_ortvalue_input(name, there)
            for name in self._names:
                self._binding.bind_output(name, "cuda", self._device)
            self._binding.synchronize_inputs()

    def infer(self) -> None:
        """One pass; on a GPU the outputs stay there."""
        if self._binding is None:
            self._outputs = self.session.run(self._names, self._inputs)
        else:
            self.session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()

    def fetch(self) -> dict[str, np.ndarray]:
        """Outputs by name."""
        values = self._outputs if self._binding is None else self._binding.copy_outputs_to_cpu()
        return dict(zip(self._names, values, strict=True))
