"""OpenVINO on a processor: float32, bfloat16 and float16 from an ONNX file, INT8 from a quantised model.

Which precision a product really runs in is the processor's and OpenVINO's choice: a request for float16 may
end in bfloat16, one for bfloat16 in float32. So the precision is read back from the executed graph.
"""

import json
from collections import Counter
from typing import Any, Self

import numpy as np

from rfdetr.benchmark.runtimes.base import Arrays, Runtime, RuntimeInfo
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact
from rfdetr.export.openvino_files import load_openvino
from rfdetr.provenance import cpu_name

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32", "int8+bf16": "bf16"}
"""Precision asked for -> OpenVINO's name of the type in which everything that is not quantised runs."""
_NEEDED = {"bf16": ("BF16",), "fp16": ("FP16",), "int8": ("INT8",), "int8+bf16": ("INT8", "BF16")}
# The layers whose precision is that of the network, and those that add and normalise; the others move.
_PRODUCTS = (
    "FullyConnected",
    "MatMul",
    "Convolution",
    "GroupConvolution",
    "ScaledDotProductAttention",
    "MHA",
)
_REST = ("MVN", "RMS", "Eltwise", "Softmax", "Reduce", "Subgraph", "Math")
_TYPES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}


def check_processor(precision: str) -> None:
    """UserError when products cannot run in this precision on this processor, by OpenVINO's own list."""
    able = set(load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    missing = [word for word in _NEEDED.get(precision, ()) if word not in able]
    if missing:
        known = [name for name in HINTS if able.issuperset(_NEEDED.get(name, ()))]
        raise UserError(
            f"OpenVINO does not compute in {', '.join(missing)} on this processor ({cpu_name()}): choose"
            f" --precision {', '.join(known)}"
        )


class OpenVinoRuntime(Runtime):
    """An ONNX file or an OpenVINO model, compiled for this processor."""

    def __init__(self, artifact: Artifact, request: Any, info: RuntimeInfo) -> None:
        self.artifact, self.info = artifact, info
        self._request = request
        self._names = [o.name for o in artifact.outputs]
        self._inputs: dict[str, Any] = {}

    @classmethod
    def load(cls, artifact: Artifact, precision: str = "", threads: int = 1, **_: Any) -> Self:
        """Compile a file.

        precision  fp32, bf16 or fp16 for a float32 file; int8 or int8+bf16 (what is not quantised in
                   bfloat16) for a quantised one; "": fp32, or int8 if the file is quantised
        threads    threads of one pass; passes run one after the other

        `info.precision` is what the products of the executed graph run in, `info.details` counts them.
        """
        openvino = load_openvino()
        quantised = artifact.precision == "int8"
        precision = precision or ("int8" if quantised else "fp32")
        if precision not in HINTS:
            raise UserError(f"unknown precision {precision!r}; OpenVINO takes {', '.join(HINTS)}")
        if artifact.format not in ("onnx", "openvino"):
            raise UserError(f"OpenVINO runs .onnx and .xml files, not {artifact.path} ({artifact.format})")
        if quantised != precision.startswith("int8"):
            raise UserError(
                f"{artifact.name} is a file of {artifact.precision}, which cannot run as {precision}: name"
                " the network or its float32 ONNX file, and it is converted"
            )
        if threads < 1:
            raise UserError(f"threads must be at least 1, not {threads}")
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(str(artifact.file)), "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot compile {artifact.path}: {reason}") from error
        executed = compiled.get_runtime_model()
        products = types_of(executed, _PRODUCTS)
        info = RuntimeInfo(
            runtime="openvino",
            version=openvino.__version__.partition("-")[0],
            device=cpu_name(),
            precision=as_built(products, types_of(executed, _REST)),
            details={"threads": threads, "asked": precision, "products": json.dumps(products)},
        )
        return cls(artifact, compiled.create_infer_request(), info)

    def bind(self, inputs: Arrays) -> None:
        """Keep the arrays; OpenVINO reads them where they are."""
        from openvino import Tensor

        self._inputs = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        for name, value in self._inputs.items():
            self._request.set_tensor(name, Tensor(value, shared_memory=True))

    def infer(self) -> None:
        """One pass."""
        self._request.infer()

    def fetch(self) -> dict[str, np.ndarray]:
        """Outputs by name."""
        return {name: self._request.get_tensor(name).data.copy() for name in self._names}

    def close(self) -> None:
        """Give the compiled model back."""
        self._request = None


def types_of(executed: Any, layers: tuple[str, ...] = _PRODUCTS) -> dict[str, int]:
    """How many layers of these kinds in an executed graph (`CompiledModel.get_runtime_model`) run in which
    precision.
    """
    found: Counter[str] = Counter()
    for layer in executed.get_ops():
        info = layer.get_rt_info()
        if info["layerType"].astype(str) in layers:
            kind = info["runtimePrecision"].astype(str)
            found[_TYPES.get(kind, kind)] += 1
    return dict(sorted(found.items()))


def as_built(products: dict[str, int], rest: dict[str, int]) -> str:
    """One word for what is executed: the precision of at least nine tenths of the products, else "mixed";
    "unknown" without any. int8+bf16: what is not INT8 runs in bfloat16, by the majority of `rest`.
    """
    total = sum(products.values())
    if not total:
        return "unknown"
    top = max(products, key=lambda name: products[name])
    lower = {name: count for name, count in rest.items() if name != "int8"}
    if top == "int8" and lower and max(lower, key=lambda name: lower[name]) == "bf16":
        return "int8+bf16" if set(products) <= {"int8", "bf16"} else "mixed"
    return top if 10 * products[top] >= 9 * total else "mixed"
