"""Mixed precision: which one a device should use, and what it needs."""

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(wanted: str, device: torch.device) -> str:
    """Precision for a device, one of "fp32", "bf16", "fp16"; "auto" takes the fastest one that the hardware
    really has.

    GPU: bf16 where the cores have it (compute capability 8 and later), else fp16 (a T4). Processor: bf16 with
    matrix units for it (AMX), else fp32: vector instructions (avx512_bf16) gain too little to be chosen
    unasked. Measured on two Zen 5 cores: a training step of nano takes 0.7 of the time that it takes in fp32,
    one of the book's small network the same time (before fp32 products went to oneDNN).
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and _has_amx() else "fp32"


def _has_amx() -> bool:
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


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
