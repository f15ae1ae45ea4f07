"""ONNX Runtime: CPU, and the CUDA and TensorRT providers where an ONNX Runtime with them is installed."""

from typing import Any, Self

import numpy as np

from rfdetr.benchmark.environment import cpu_name, gpu_driver
from rfdetr.benchmark.runtimes.base import Arrays, Runtime, RuntimeInfo
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, artifact: Artifact, session: Any, provider: str, info: RuntimeInfo) -> None:
        self.artifact, self.session, self.info = artifact, session, info
        self._provider = provider
        self._names = [o.name for o in artifact.outputs]
        self._binding = session.io_binding() if provider != "cpu" else None
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
        emulate_fp16  round every FP16 tensor of an FP16 file to FP16 (`rfdetr.benchmark.fp16.emulated`), for
                      its accuracy; such a runtime cannot be timed
        device        index of the GPU

        Otherwise the precision of an FP16 file on a processor is "mixed": most of it is computed in FP32.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("this needs ONNX Runtime: pip install onnxruntime") from error
        if artifact.format != "onnx":
            raise UserError(f"ONNX Runtime runs .onnx files, not {artifact.path} ({artifact.format})")
        if provider not in _PROVIDERS:
            raise UserError(f"unknown provider {provider!r}; choose one of {', '.join(_PROVIDERS)}")
        if emulate_fp16 and (provider != "cpu" or artifact.precision != "fp16"):
            raise UserError(
                f"FP16 is emulated for FP16 files on the CPU, not for {artifact.precision} on {provider}"
            )
        if threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        wanted = _PROVIDERS[provider]
        available = onnxruntime.get_available_providers()
        if wanted not in available:
            raise UserError(
                f"this ONNX Runtime has no {wanted} (it has {', '.join(available)}): "
                "pip install onnxruntime-gpu in place of onnxruntime, on a machine with an NVIDIA GPU"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        settings: dict[str, Any] = {} if provider == "cpu" else {"device_id": device}
        if provider == "cuda":
            # TF32 would silently be another precision than the file's.
            settings["use_tf32"] = 0
        if provider == "tensorrt":
            settings["trt_fp16_enable"] = fp16
        source: str | bytes = str(artifact.path)
        if emulate_fp16:
            from rfdetr.benchmark.fp16 import emulated

            source = emulated(artifact)
        session = onnxruntime.InferenceSession(source, options, providers=[(wanted, settings)])
        if wanted not in session.get_providers():
            raise UserError(f"{wanted} could not be started on this machine; is there an NVIDIA driver?")
        gpu = provider != "cpu"
        precision, details = artifact.precision, {"fp16": fp16} if gpu else {"threads": threads}
        if provider == "tensorrt" and fp16:
            precision = "mixed"
        elif not gpu and precision == "fp16":
            precision = "fp16" if emulate_fp16 else "mixed"
            details["emulated"] = emulate_fp16
        info = RuntimeInfo(
            runtime=f"onnxruntime-{provider}" if gpu else "onnxruntime",
            version=onnxruntime.__version__,
            device=gpu_driver(device)[0] if gpu else cpu_name(),
            precision=precision,
            driver=gpu_driver(device)[1] if gpu else "",
            details=details,
        )
        return cls(artifact, session, provider, info)

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
                self._binding.bind_ortvalue_input(
                    name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
                )
            for name in self._names:
                self._binding.bind_output(name, "cuda", 0)
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
