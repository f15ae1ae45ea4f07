"""What a measurement ran on: processor, GPU, driver, library versions, system."""

import os
import platform
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "numpy",
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "cuda-python",
    "nvidia-ml-py",
    "psutil",
)


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """Model name of the processor, with the number of logical CPUs that this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name} ({usable_cpus()} CPUs)"


def usable_cpus() -> int:
    """Logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_driver(device: int = 0) -> tuple[str, str]:
    """(name of the GPU, driver version) from NVML; ("unknown GPU", "") where it cannot be asked."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(device)
        return _text(pynvml.nvmlDeviceGetName(handle)), _text(pynvml.nvmlSystemGetDriverVersion())
    except Exception:
        return "unknown GPU", ""


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def versions() -> dict[str, str]:
    """Installed versions of the libraries that a measurement depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Everything about this machine and installation that belongs into a record (no host name, no user, no
    path).
    """
    import psutil

    name, driver = gpu_driver()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": name if driver else None,
        "driver": driver or None,
        "versions": versions(),
    }


def utc_now() -> str:
    """Current time, ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
