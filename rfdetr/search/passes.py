"""What surrounds the passes of a search: a clock by stage, threads."""

import time
from contextlib import contextmanager
from typing import Any

import torch

STAGES = ("images", "encoder", "decoder", "detections", "evaluation")
"""Where the time of a unit goes. "decoder" includes query selection and heads, "evaluation" the average
precision.
"""


class Clock:
    """Adds up the seconds of named stages; waits for the device so that a stage pays for its own work."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.device = device

    @contextmanager
    def __call__(self, stage: str) -> Any:
        """Add the seconds of the block to the stage."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - start


@contextmanager
def cpu_threads(count: int | None) -> Any:
    """Run with `count` CPU threads of torch (None: as set), and set them back."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
