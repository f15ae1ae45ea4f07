"""Processes of a training."""

import logging
import os
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy

from rfdetr.errors import UserError

PATIENCE = timedelta(days=1)
"""How long a process waits for the others. The first one evaluates alone while the others wait at a barrier:
for COCO and large pictures longer than the ten or thirty minutes after which torch gives up by default.
"""


def launch(devices: int = 1, accelerator: str = "auto") -> Fabric:
    """Start and connect `devices` processes on this machine (under torchrun: as many as it started).

    accelerator: "cpu", "cuda" or "auto". Precision is handled in the step itself; Fabric only places devices
    and connects processes. Raises UserError for a number of processes that cannot be.
    """
    if devices < 1:
        raise UserError(f"devices must be at least 1, not {devices}")
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise UserError(f"{devices} processes need as many GPUs, here are {torch.cuda.device_count()}")
    several = devices * nodes > 1
    # It tells of every connection, and a run has many; that several processes train is said by `train`.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    strategy: Strategy | str = DDPStrategy(timeout=PATIENCE) if several else "auto"
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
    if several:
        fabric.launch()
    return fabric
