"""Which GPU a runtime computes on, by its UUID.

CUDA counts the devices of CUDA_VISIBLE_DEVICES, fastest first; NVML counts those of the machine in the order
of the bus. The same index is therefore often another GPU, and only the UUID names one.
"""

import os
from dataclasses import dataclass
from typing import Any

from rfdetr.errors import UserError
from rfdetr.provenance import gpus, text

UNKNOWN = ""
"""UUID of a GPU that could not be told apart from others: nothing can watch over it."""


@dataclass(frozen=True)
class Gpu:
    """A GPU. index: as CUDA counts. uuid: as NVML writes it ("GPU-..."), or `UNKNOWN`."""

    index: int
    uuid: str
    name: str

    @property
    def driver(self) -> str:
        """Version of the driver ("" where NVML cannot be asked)."""
        return gpus()[1]


def load_bindings() -> Any:
    """The module of runtime bindings. Raises UserError naming the extra when it is missing."""
    try:
        from cuda.bindings import runtime  # cuda-python 12.6 and later
    except ImportError:
        try:
            from cuda import cudart as runtime  # type: ignore[no-redef,attr-defined,unused-ignore]
        except ImportError as error:
            raise UserError(
                "TensorRT needs the CUDA bindings: pip install 'rf-detr-nas-companion[tensorrt]'"
            ) from error
    return runtime


def with_bindings(api: Any, index: int) -> Gpu:
    """The GPU with this index, from the module of CUDA bindings."""
    status, properties = api.cudaGetDeviceProperties(index)
    if int(status) != 0:
        return Gpu(index, UNKNOWN, "unknown GPU")
    return Gpu(index, _uuid(bytes(properties.uuid.bytes)), text(properties.name).rstrip("\0"))


def with_torch(index: int) -> Gpu:
    """The GPU with this index, from PyTorch."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)  # PyTorch 2.5 and later
    return Gpu(index, f"GPU-{uuid}" if uuid is not None else UNKNOWN, properties.name)


def visible(index: int) -> Gpu:
    """The GPU with this index for libraries that do not tell (ONNX Runtime).

    Asks the CUDA bindings, PyTorch, CUDA_VISIBLE_DEVICES where it holds UUIDs, and takes the only GPU of a
    machine that has one; otherwise the UUID is `UNKNOWN`.
    """
    try:
        return with_bindings(load_bindings(), index)
    except UserError:
        pass
    import torch

    if torch.cuda.is_available():
        return with_torch(index)
    names, _ = gpus()
    listed = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if index < len(listed) and listed[index].startswith("GPU-"):
        return Gpu(index, listed[index], names[0] if len(set(names)) == 1 else "unknown GPU")
    if len(names) == 1:
        return Gpu(index, _only_uuid(), names[0])
    return Gpu(index, UNKNOWN, names[0] if len(set(names)) == 1 else "unknown GPU")


def _uuid(content: bytes) -> str:
    digits = content.hex()
    return "GPU-" + "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def _only_uuid() -> str:
    try:
        import pynvml

        return text(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)))
    except Exception:  # it answered a moment ago; if not now, it cannot watch either
        return UNKNOWN
