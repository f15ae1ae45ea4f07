"""CUDA memory, streams, events and graphs through NVIDIA's `cuda-python`, without PyTorch."""

from typing import Any

import numpy as np

from rfdetr.benchmark.devices import Gpu, load_bindings, with_bindings
from rfdetr.errors import UserError


class CudaError(RuntimeError):
    """A CUDA call failed."""


class Cuda:
    """One stream on one device. Every call is checked. Addresses and handles are plain integers or binding
    objects. `gpu` says which device it is.
    """

    def __init__(self, device: int = 0) -> None:
        self.api = load_bindings()
        count = self._call("cudaGetDeviceCount")
        if not count:
            raise UserError("no CUDA device was found; TensorRT needs an NVIDIA GPU and its driver")
        if not 0 <= device < count:
            raise UserError(
                f"there is no GPU {device}: CUDA counts {count} here, from 0 on (see CUDA_VISIBLE_DEVICES)"
            )
        self.gpu: Gpu = with_bindings(self.api, device)
        self.use()
        self.stream = self._call("cudaStreamCreate")

    def use(self) -> None:
        """Make this device the one that the calling thread's next CUDA calls go to."""
        self._call("cudaSetDevice", self.gpu.index)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self.api, name)(*arguments)
        if int(status) != 0:
            text = f"{name} failed: {getattr(status, 'name', status)}"
            # No driver and no device are conditions that a user can act on.
            if getattr(status, "name", "") in ("cudaErrorNoDevice", "cudaErrorInsufficientDriver"):
                raise UserError(f"{text}; TensorRT needs an NVIDIA GPU and a driver for this CUDA version")
            raise CudaError(text)
        return values[0] if len(values) == 1 else tuple(values) or None

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes."""
        return int(self._call("cudaMalloc", max(size, 1)))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", address)

    def copy_in(self, address: int, value: np.ndarray) -> None:
        """Host to device, in the stream's order; `value` must stay alive until `synchronize`."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, value.ctypes.data, value.nbytes, kind, self.stream)

    def copy_out(self, value: np.ndarray, address: int) -> None:
        """Device to host, in the stream's order; `value` is filled after `synchronize`."""
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", value.ctypes.data, address, value.nbytes, kind, self.stream)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._call("cudaStreamSynchronize", self.stream)

    def event(self) -> Any:
        """A timing event."""
        return self._call("cudaEventCreate")

    def record(self, event: Any) -> None:
        """Put an event into the stream."""
        self._call("cudaEventRecord", event, self.stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """ms between two events of the stream, both reached."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def begin_capture(self) -> None:
        """Start to record the stream's work as a graph."""
        mode = self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> Any:
        """The recorded work as an executable graph."""
        graph = self._call("cudaStreamEndCapture", self.stream)
        return self._call("cudaGraphInstantiate", graph, 0)

    def launch(self, graph: Any) -> None:
        """Run a recorded graph in the stream."""
        self._call("cudaGraphLaunch", graph, self.stream)

    def close(self) -> None:
        """Give the stream back."""
        self._call("cudaStreamDestroy", self.stream)
