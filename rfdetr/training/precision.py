"""Mixed precision: which one a device should use, and what it needs."""

from functools import cache
from pathlib import Path

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

BF16_FLAGS = frozenset({"amx_bf16"})
"""Features of a processor, any of which makes "auto" train in bfloat16.

Matrix units (`amx_bf16`) are worth it without a question. Vector instructions (`avx512_bf16`, on AMD from
Zen 4) take 0.58 of the float32 time of a training step of nano on two Zen 4 cores, but 0.7 on Zen 5, whose
float32 products in oneDNN are faster; and what bfloat16 costs in AP must be known before it is chosen
unasked. To choose it there too, add "avx512_bf16".
"""


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Precision for a device, one of "fp32", "bf16", "fp16"; "auto" takes the fastest one that the hardware
    really has.

    GPU: bf16 where the cores have it (compute capability 8 and later), else fp16 (a T4). Processor: bf16 with
    one of `BF16_FLAGS`, else fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and BF16_FLAGS & processor_flags() else "fp32"


@cache
def processor_flags(info: str = "/proc/cpuinfo") -> frozenset[str]:
    """Features of the processor as Linux lists them; empty where it does not say."""
    try:
        text = Path(info).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    lines = [line.partition(":")[2] for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return frozenset(lines[0].split()) if lines else frozenset()


class Precision:
    """Autocast and loss scaling of a run. `name` is a result of `resolve_precision`."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        # float16 has so small a range that gradients vanish unless the loss is scaled.
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Context for the forward pass of the network; losses are computed outside of it."""
        dtype = _DTYPES.get(self.name, torch.bfloat16)
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name in _DTYPES)
