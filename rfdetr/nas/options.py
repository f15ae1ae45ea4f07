"""What a run is asked for, as one frozen value."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from rfdetr.errors import UserError
from rfdetr.networks import RANDOM
from rfdetr.search.pareto import published_latency


@dataclass(frozen=True)
class NasOptions:
    """Everything that decides a run's result, besides the data and the weights themselves.

    data          a registered name or a folder
    weights       network to start from (as `rfdetr.networks.open_network` takes them), or "" for random
                  weights
    backbone      "dinov2" or a file of its weights, for a network whose weights are else random
                  (`weights` "random:nano"); "" for none
    segmentation  with a mask head; the data needs masks
    targets_ms    latencies in ms that networks are chosen for, each "at most"; () and no `like`: three spread
                  over the front that was found
    like          printed detectors, e.g. "d-fine-s", whose printed latency is the target, within 10 %
    runtime, precision, threads   of the latencies
    hours         wall time that the whole run may take; None: the recipe's own length
    steps         of the supernet's training; None: what the recipe or `hours` gives
    measured      sub-networks that are timed; None: 40, fewer where that would take too much of `hours`, or,
                  without hours, of the trainings' time
    fine_tune     train the chosen networks further, one by one
    baseline      also train one fixed architecture alone at the same total cost
    resolutions, patch_sizes, windows, queries   of the training grid, px and counts; (): proposed from the
    data
    skip_missing  leave out pictures that are missing or damaged
    devices       processes of every training on this machine, one per GPU or sharing the processor; None: one
                  GPU, or as many on the processor as make a long training faster
    """

    data: str
    weights: str = ""
    backbone: str = ""
    segmentation: bool = False
    targets_ms: tuple[float, ...] = ()
    like: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    hours: float | None = None
    steps: int | None = None
    measured: int | None = None
    fine_tune: bool = True
    baseline: bool = False
    seed: int = 0
    resolutions: tuple[int, ...] = ()
    patch_sizes: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    queries: int | None = None
    batch_size: int | None = None
    skip_missing: bool = False
    devices: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type.startswith("tuple") if isinstance(field.type, str) else False:
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        if not self.data:
            raise UserError("--data names the dataset to search for: a registered name or a folder")
        if self.backbone and not self.weights.startswith(RANDOM):
            raise UserError(
                f"--backbone {self.backbone} is for a network of a published size whose weights are else"
                " random: add --weights random:nano"
            )
        for value in self.targets_ms:
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"--target-ms takes latencies in ms above 0, not {value:g}")
        if self.targets_ms and self.like:
            raise UserError("give --target-ms or --like, not both: each of them sets the latencies")
        if self.hours is not None and not (math.isfinite(self.hours) and self.hours > 0):
            raise UserError(f"--hours takes a time above 0, not {self.hours:g}")
        for name in ("steps", "batch_size", "queries", "threads", "measured", "devices"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {count}")
        if self.batch_size is not None and self.batch_size % (self.devices or 1):
            raise UserError(
                f"--batch-size {self.batch_size} is the number of images per step of all --devices"
                f" {self.devices} together: give a multiple of {self.devices}"
            )
        for name in ("resolutions", "patch_sizes", "windows"):
            if wrong := [value for value in getattr(self, name) if value < 1]:
                raise UserError(f"--{name.replace('_', '-')} takes numbers of at least 1, not {wrong[0]}")
        for name in self.like:
            published_latency(name)
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
