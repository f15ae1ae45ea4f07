"""Where a result comes from: commit, library versions, machine, time."""

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
    "onnx",
    "onnxruntime",
    "optuna",
    "tensorrt",
)


@cache
def commit() -> str:
    """Commit of the code, with `+changes` if tracked files differ from it; `unknown` outside a repository."""
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
def machine() -> str:
    """Processor, cores and memory in words."""
    import psutil

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    # Cores that this process may use, which on shared machines are fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def provenance(profile: str, seed: int, **extra: Any) -> dict[str, Any]:
    """Where a result comes from: profile, seed, commit, library versions, device, UTC time, and `extra`."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "profile": profile,
        "seed": seed,
        "commit": commit(),
        "versions": versions,
        "device": _device(),
        "machine": machine(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
