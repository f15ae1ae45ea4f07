"""TensorRT: run an engine, by CUDA-graph replay, timed with device events. Free of PyTorch.

Keeps to what TensorRT 8.5 and 10 share: tensors by name, `execute_async_v3`. Engines are built by
`rfdetr.benchmark.runtimes.tensorrt_build`.
"""

from typing import Any, Self

import numpy as np

from rfdetr.benchmark.runtimes.base import Arrays, Runtime, RuntimeInfo
from rfdetr.benchmark.runtimes.cuda import Cuda, CudaError
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact


def load_tensorrt() -> Any:
    """The `tensorrt` module. Raises UserError naming the extra when it is missing."""
    try:
        import tensorrt
    except ImportError as error:
        raise UserError(
            "this needs TensorRT and an NVIDIA GPU: pip install 'rf-detr-nas-companion[tensorrt]'"
        ) from error
    return tensorrt


class TensorRTRuntime(Runtime):
    """An engine with its device buffers."""

    def __init__(self, artifact: Artifact, trt: Any, cuda: Cuda, cuda_graph: bool) -> None:
        self.artifact = artifact
        self._cuda = cuda
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(artifact.file.read_bytes())
        if self._engine is None:
            raise UserError(
                f"TensorRT {trt.__version__} cannot load {artifact.path}: an engine runs only on the GPU"
                " model and the TensorRT version that it was built with; build it again here"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise UserError(f"no execution context for {artifact.path}: the GPU has too little free memory")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = {n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self._inputs = [n for n in names if n in inputs]
        self._outputs = [n for n in names if n not in inputs]
        self._types = {n: np.dtype(trt.nptype(self._engine.get_tensor_dtype(n))) for n in names}
        self._memory: dict[str, tuple[int, int]] = {}
        self._host: dict[str, np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._events = (cuda.event(), cuda.event())
        self._want_graph, self._graph = cuda_graph, None
        self._details: dict[str, Any] = {"cuda_graph": False}
        self.info = RuntimeInfo(
            runtime="tensorrt",
            version=trt.__version__,
            device=cuda.gpu.name,
            precision=artifact.precision,
            driver=cuda.gpu.driver,
            gpu=cuda.gpu.uuid,
            details=self._details,
        )

    @classmethod
    def load(cls, artifact: Artifact, cuda_graph: bool = True, device: int = 0, **_: Any) -> Self:
        """Load an engine.

        cuda_graph  record the pass once and replay it; where recording fails, passes are launched and `info`
                    says so
        device      index of the GPU, as CUDA counts
        """
        trt = load_tensorrt()
        if artifact.format != "engine":
            raise UserError(
                f"TensorRT runs engines, not {artifact.path}; build one with "
                "rfdetr.benchmark.runtimes.tensorrt_build.build_engine"
            )
        return cls(artifact, trt, Cuda(device), cuda_graph)

    @property
    def has_copies(self) -> bool:
        """Host and device memory are different."""
        return True

    def bind(self, inputs: Arrays) -> None:
        """Copy the inputs to the device. A new shape allocates buffers and drops the recorded graph."""
        missing = sorted(set(self._inputs) - set(inputs))
        if missing:
            raise UserError(f"the engine needs the input {', '.join(missing)}")
        self._cuda.use()
        values = {n: np.ascontiguousarray(inputs[n], dtype=self._types[n]) for n in self._inputs}
        if {n: v.shape for n, v in values.items()} != {n: self._shapes.get(n) for n in values}:
            self._prepare(values)
        for name, value in values.items():
            self._cuda.copy_in(self._memory[name][0], value)
        self._cuda.synchronize()

    def _prepare(self, values: dict[str, np.ndarray]) -> None:
        self._graph = None
        for name, value in values.items():
            self._shapes[name] = value.shape
            if not self._context.set_input_shape(name, value.shape):
                raise UserError(f"the engine does not take {name} of shape {value.shape}")
        for name in self._outputs:
            self._shapes[name] = tuple(self._context.get_tensor_shape(name))
            self._host[name] = np.empty(self._shapes[name], self._types[name])
        for name in (*self._inputs, *self._outputs):
            size = int(np.prod(self._shapes[name])) * self._types[name].itemsize
            address, reserved = self._memory.get(name, (0, -1))
            if reserved < size:
                if reserved >= 0:
                    self._cuda.free(address)
                self._memory[name] = (self._cuda.allocate(size), size)
            self._context.set_tensor_address(name, self._memory[name][0])
        # The first pass after a change of shape sets state up and cannot be recorded.
        self._launch()
        self._cuda.synchronize()
        if self._want_graph:
            self._record()

    def _record(self) -> None:
        try:
            self._cuda.begin_capture()
            try:
                self._launch()
            finally:
                self._graph = self._cuda.end_capture()
            self._details["cuda_graph"] = True
        except CudaError as error:
            self._graph = None
            self._details |= {"cuda_graph": False, "cuda_graph_note": f"launched instead: {error}"}

    def _launch(self) -> None:
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            raise CudaError("TensorRT could not start the pass")

    def infer(self) -> None:
        """One pass between two events on the stream."""
        self._cuda.use()  # a runtime on another GPU may have had its turn
        start, end = self._events
        self._cuda.record(start)
        if self._graph is not None:
            self._cuda.launch(self._graph)
        else:
            self._launch()
        self._cuda.record(end)
        self._cuda.synchronize()

    def device_ms(self) -> float:
        """ms between the two events of the last pass."""
        return self._cuda.elapsed_ms(*self._events)

    def fetch(self) -> dict[str, np.ndarray]:
        """Outputs by name."""
        self._cuda.use()
        for name in self._outputs:
            self._cuda.copy_out(self._host[name], self._memory[name][0])
        self._cuda.synchronize()
        return {name: self._host[name].copy() for name in self._outputs}

    def close(self) -> None:
        """Free the buffers and the stream."""
        self._cuda.use()
        for address, _ in self._memory.values():
            self._cuda.free(address)
        self._memory.clear()
        self._cuda.close()
