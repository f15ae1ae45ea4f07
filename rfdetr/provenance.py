"""Where a result comes from: commit, library versions, processor, graphics processors, time.

The only place that asks for these; no host name, no user and no path is ever among them.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from rfdetr.sources import package_root

_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pycocotools",
    "optuna",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "tensorrt",
    "cuda-python",
    "nvidia-ml-py",
    "psutil",
)


def utc_now() -> str:
    """Current time, ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def commit() -> str:
    """Commit of the code, with `+changes` if tracked files differ from it; `unknown` outside a repository.

    RFDETR_COMMIT goes first where it is set: a copy of the files on another machine knows no commit.
    """
    if os.environ.get("RFDETR_COMMIT"):
        return os.environ["RFDETR_COMMIT"]
    git = ["git", "-C", str(package_root())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


@cache
def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Logical CPUs that this process may use, which on shared machines are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Main memory of the machine, GiB."""
    import psutil

    return psutil.virtual_memory().total / 2**30


def machine() -> str:
    """Processor, cores and memory in words."""
    return f"{cpu_name()}, {usable_cpus()} cores, {memory_gib():.0f} GiB"


def versions() -> dict[str, str]:
    """Installed versions of the libraries that a result or a measurement depends on."""
    from rfdetr.version import __version__

    found = {"rfdetr": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def gpus() -> tuple[tuple[str, ...], str]:
    """(names of all NVIDIA GPUs of the machine, driver version) from NVML; ((), "") where it cannot be
    asked.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = tuple(text(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
        return names, text(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # whatever is missing or broken there, the answer is that nothing is known
        return (), ""


def text(value: str | bytes) -> str:
    """A text of NVML, whose older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else value


def environment() -> dict[str, Any]:
    """Everything about this machine and installation that belongs into the record of a measurement."""
    names, driver = gpus()
    return {
        "system": platform.platform(),
        "cpu": f"{cpu_name()} ({usable_cpus()} CPUs)",
        "memory_gb": round(memory_gib(), 1),
        "gpu": ", ".join(names) or None,
        "driver": driver or None,
        "versions": versions(),
    }


def provenance(profile: str | None = None, seed: int | None = None, **extra: Any) -> dict[str, Any]:
    """Where a result comes from: profile and seed if given, commit, versions, device, machine, UTC time, and
    `extra` plain values.
    """
    import torch

    given = {k: v for k, v in (("profile", profile), ("seed", seed)) if v is not None}
    return {
        **given,
        "commit": commit(),
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": machine(),
        "time_utc": utc_now(),
        **extra,
    }
