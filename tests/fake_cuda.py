"""The CUDA bindings and NVML as far as `rfdetr.benchmark` calls them, on the CPU.

Faithful where mistakes would be made: device memory is apart from host memory and reached by address only;
work on a stream happens when the stream is synchronised, not before, and only from the stream's own device;
recording forbids synchronising and runs nothing; events can be read only once reached; NVML counts the GPUs
in another order than CUDA; handles and statuses are what the real modules return. Unknown names raise
AttributeError, as they would there.
"""

import ctypes
import enum
import types
import uuid


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorStreamCaptureUnsupported = 900


class Handle:
    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


class Device:
    """The GPUs of a machine as CUDA counts them, with one clock (ms), which only work moves."""

    def __init__(self, devices: int = 1, pass_ms: float = 4.0, capture: bool = True) -> None:
        self.devices, self.pass_ms, self.capture = devices, pass_ms, capture
        self.current, self.home = 0, {}
        self.clock, self.next = 0.0, 0x7F0000000000
        self.memory: dict[int, bytearray] = {}
        self.queues: dict[int, list] = {}
        self.recording: dict[int, list] = {}
        self.launched = self.executed = 0

    @staticmethod
    def uuid(index: int) -> bytes:
        return bytes([index + 1] * 16)

    @staticmethod
    def name(index: int) -> str:
        return f"Test GPU {index}"

    def push(self, stream: int, work) -> None:
        (self.recording if stream in self.recording else self.queues)[stream].append(work)

    def drain(self, stream: int) -> None:
        queue, self.queues[stream] = self.queues[stream], []
        for work in queue:
            work()


def cuda_module(gpu: Device) -> types.ModuleType:
    api = types.ModuleType("cuda.bindings.runtime")
    ok = Status.cudaSuccess

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeGlobal = 0
        cudaStreamCaptureModeThreadLocal = 1

    def cudaGetDeviceCount():
        return (ok, gpu.devices) if gpu.devices else (Status.cudaErrorNoDevice, 0)

    def cudaStreamCreate():
        gpu.next += 1
        gpu.queues[gpu.next], gpu.home[gpu.next] = [], gpu.current
        return ok, Handle(gpu.next)

    def elsewhere(stream) -> bool:
        """Whether the stream belongs to another device than the current one."""
        return gpu.home[int(stream)] != gpu.current

    def cudaStreamDestroy(stream):
        del gpu.queues[int(stream)]
        return (ok,)

    def cudaMalloc(size):
        gpu.next += 1 << 20
        gpu.memory[gpu.next] = bytearray(size)
        return ok, gpu.next

    def cudaFree(address):
        return (ok,) if gpu.memory.pop(address, None) is not None else (Status.cudaErrorInvalidValue,)

    def cudaMemcpyAsync(target, source, size, kind, stream):
        device = target if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else source
        if device not in gpu.memory or len(gpu.memory[device]) < size:
            return (Status.cudaErrorInvalidValue,)
        if elsewhere(stream):
            return (Status.cudaErrorInvalidResourceHandle,)

        def copy():
            if kind == cudaMemcpyKind.cudaMemcpyHostToDevice:
                gpu.memory[target][:size] = ctypes.string_at(source, size)
            else:
                ctypes.memmove(target, bytes(gpu.memory[source][:size]), size)

        gpu.push(int(stream), copy)
        return (ok,)

    def cudaStreamSynchronize(stream):
        if int(stream) in gpu.recording:
            return (Status.cudaErrorStreamCaptureUnsupported,)
        gpu.drain(int(stream))
        return (ok,)

    def cudaEventCreate():
        return ok, types.SimpleNamespace(at=None)

    def cudaEventRecord(event, stream):
        if elsewhere(stream):
            return (Status.cudaErrorInvalidResourceHandle,)
        event.at = None
        gpu.push(int(stream), lambda: setattr(event, "at", gpu.clock))
        return (ok,)

    def cudaEventElapsedTime(start, end):
        if start.at is None or end.at is None:
            return Status.cudaErrorNotReady, 0.0
        return ok, end.at - start.at

    def cudaStreamBeginCapture(stream, mode):
        if not gpu.capture:
            return (Status.cudaErrorStreamCaptureUnsupported,)
        gpu.recording[int(stream)] = []
        return (ok,)

    def cudaStreamEndCapture(stream):
        if int(stream) not in gpu.recording:
            return Status.cudaErrorInvalidValue, None
        return ok, gpu.recording.pop(int(stream))

    def cudaGraphInstantiate(graph, flags):
        assert isinstance(flags, int)
        return ok, tuple(graph)

    def cudaGraphLaunch(graph, stream):
        if elsewhere(stream):
            return (Status.cudaErrorInvalidResourceHandle,)
        gpu.launched += 1
        for work in graph:
            gpu.push(int(stream), work)
        return (ok,)

    def cudaSetDevice(device):
        if not 0 <= device < gpu.devices:
            return (Status.cudaErrorInvalidDevice,)
        gpu.current = device
        return (ok,)

    def cudaGetDeviceProperties(device):
        if not 0 <= device < gpu.devices:
            return Status.cudaErrorInvalidDevice, None
        uuid = types.SimpleNamespace(bytes=gpu.uuid(device))
        return ok, types.SimpleNamespace(name=gpu.name(device).encode(), uuid=uuid)

    for name, value in list(locals().items()):
        if name.startswith("cuda"):
            setattr(api, name, value)
    return api


def nvml_module(gpu: Device, throttled: frozenset[int] = frozenset()) -> types.ModuleType:
    """NVML of the same machine. throttled: the GPUs, as CUDA counts, that run under a power cap."""
    module = types.ModuleType("pynvml")
    order = list(reversed(range(gpu.devices)))  # of the bus
    names = {f"GPU-{uuid.UUID(bytes=gpu.uuid(i))}": i for i in order}

    def by_uuid(name):
        if name not in names:
            raise RuntimeError("Not Found")
        return names[name]

    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetCount = lambda: gpu.devices
    module.nvmlDeviceGetHandleByIndex = lambda index: order[index]
    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlDeviceGetUUID = lambda handle: next(n for n, i in names.items() if i == handle)
    module.nvmlDeviceGetName = lambda handle: gpu.name(handle)
    module.nvmlSystemGetDriverVersion = lambda: "550.1"
    module.nvmlDeviceGetPowerUsage = lambda handle: 70_000
    module.nvmlDeviceGetClockInfo = lambda handle, which: {1: 1590, 2: 5000}[which]
    module.nvmlDeviceGetTemperature = lambda handle, sensor: 55
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x4 if handle in throttled else 0x0
    return module
