"""The training recipe as one frozen value."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rfdetr.errors import UserError
from rfdetr.training.losses import LossWeights
from rfdetr.training.matcher import MatchCosts

STRATEGIES = ("uniform", "sandwich", "biased")
SCHEDULES = ("none", "linear", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights a run ends with, besides model, data and search space.

    The defaults are the paper's (Appendix A) or, where it is silent, the public configuration's. One step
    shows batch_size * accumulate * processes images to ONE architecture and changes the weights once.

    steps           weight updates in all
    batch_size      images per forward pass and process; accumulate: forward passes per step
    lr, encoder_lr  learning rates; the encoder's is multiplied by component_decay^2 and layer_decay^(layers
                    above), the decoder's by component_decay
    clip_norm       largest norm of the gradient of all weights; None: no clipping
    ema_decay       of the averaged weights, ema_decay * (1 - exp(-step / ema_tau)); None: no average
    precision       fp32 (the weights' own precision), bf16, fp16 (with loss scaling) or auto
                    (`rfdetr.training.precision`)
    log_every       steps between rows of the log
    sampling        how step t draws its architecture (rfdetr.training.sampling); odds: (triple, weight) for
                    "biased"
    schedule        of the learning rate after warmup_steps: none (the paper), linear or cosine down to zero
    augment         horizontal flip (with the dataset's own probability) and random crop
    mask_points     points per mask; None: one in sixteen mask pixels
    max_bad_steps   stop after so many steps in a row without finite gradients (each such step is skipped)
    workers         threads that prepare batches ahead; they never change the result
    evaluate_every  steps between evaluations on the validation set; 0: at the end only
    """

    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    lr: float = 1e-4
    encoder_lr: float = 1.5e-4
    layer_decay: float = 0.8
    component_decay: float = 0.7
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 0.1
    warmup_steps: int = 0
    schedule: str = "none"
    ema_decay: float | None = 0.993
    ema_tau: float = 100.0
    precision: str = "auto"
    seed: int = 0
    sampling: str = "uniform"
    odds: tuple[tuple[tuple[int, int, int], float], ...] = ()
    augment: bool = True
    mask_points: int | None = None
    weights: LossWeights = field(default_factory=LossWeights)
    costs: MatchCosts = field(default_factory=MatchCosts)
    log_every: int = 1
    checkpoint_every: int = 500
    evaluate_every: int = 0
    max_bad_steps: int = 20
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("log_every", 1),
            ("workers", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name, known in (("sampling", STRATEGIES), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("lr", "encoder_lr", "layer_decay", "component_decay"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.sampling == "biased" and not self.odds:
            raise UserError(
                "biased sampling needs odds: give pairs of (resolution, patch size, windows) and a weight"
            )
        # Values that went through JSON or a checkpoint come back as lists and dicts.
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(
            self, "odds", tuple((tuple(triple), float(weight)) for triple, weight in self.odds)
        )
        for name, kind in (("weights", LossWeights), ("costs", MatchCosts)):
            if isinstance(getattr(self, name), dict):
                object.__setattr__(self, name, kind(**getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Read `to_dict`. Unknown fields raise UserError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"unknown training field {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def replace(self, **changes: Any) -> "TrainConfig":
        """A copy with some fields changed (validated again)."""
        return replace(self, **changes)


RESUMABLE = frozenset(
    {"steps", "log_every", "checkpoint_every", "evaluate_every", "max_bad_steps", "workers"}
)
"""Fields that may differ between a checkpoint and the run that continues it."""
