"""The training recipe as one frozen value."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rfdetr.errors import UserError
from rfdetr.training.losses import LossWeights
from rfdetr.training.matcher import MatchCosts
from rfdetr.training.ranges import Range, read_ranges

STRATEGIES = ("uniform", "sandwich", "biased")
SCHEDULES = ("none", "linear", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MASK_SAMPLINGS = ("boxes", "uniform")

_CHOICES = {
    "sampling": STRATEGIES,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "mask_sampling": MASK_SAMPLINGS,
}
_COUNT = Range(least=1, whole=True)
_STEPS = Range(least=0, whole=True)
_RATE = Range(above=0)
_FACTOR = Range(above=0, most=1)
_RANGES = {
    "steps": _COUNT,
    "batch_size": _COUNT,
    "accumulate": _COUNT,
    "lr": _RATE,
    "encoder_lr": _RATE,
    "layer_decay": _FACTOR,
    "component_decay": _FACTOR,
    "weight_decay": Range(least=0),
    "clip_norm": Range(above=0, optional=True),
    "warmup_steps": _STEPS,
    "ema_decay": Range(least=0, below=1, optional=True),
    "ema_tau": _RATE,
    "seed": Range(least=0, below=2**63, whole=True),
    "mask_points": Range(least=1, whole=True, optional=True),
    "log_every": _COUNT,
    "checkpoint_every": _COUNT,
    "evaluate_every": _STEPS,
    "patience": _STEPS,
    "max_bad_steps": _COUNT,
    "workers": _COUNT,
}


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
    anchor          (resolution, patch size, windows) that steps 0, 2, 4, ... train whatever `sampling` says;
                    None: no such setting. For a network whose own architecture must stay good
    schedule        of the learning rate after warmup_steps: none (the paper), linear or cosine down to zero
    augment         horizontal flip (with the dataset's own probability) and random crop
    mask_points     points per mask; None: one in sixteen mask pixels
    mask_sampling   where they lie: "boxes" (part of them in the object's own box, so that small objects are
                    seen) or "uniform" (all over the picture, as published); see rfdetr.training.points
    max_bad_steps   stop after so many steps in a row without finite gradients (each such step is skipped)
    workers         threads that prepare batches ahead; they never change the result
    evaluate_every  steps between evaluations on the validation set; 0: at the end only
    patience        stop after so many evaluations in a row without a better AP, and keep the best weights; 0:
                    train all steps and keep the last weights
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
    anchor: tuple[int, int, int] | None = None
    schedule: str = "none"
    ema_decay: float | None = 0.993
    ema_tau: float = 100.0
    precision: str = "auto"
    seed: int = 0
    sampling: str = "uniform"
    odds: tuple[tuple[tuple[int, int, int], float], ...] = ()
    augment: bool = True
    mask_points: int | None = None
    mask_sampling: str = "boxes"
    weights: LossWeights = field(default_factory=LossWeights)
    costs: MatchCosts = field(default_factory=MatchCosts)
    log_every: int = 1
    checkpoint_every: int = 500
    evaluate_every: int = 0
    patience: int = 0
    max_bad_steps: int = 20
    workers: int = 1

    def __post_init__(self) -> None:
        read_ranges(self, _RANGES)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.sampling == "biased" and not self.odds:
            raise UserError(
                "biased sampling needs odds: give pairs of (resolution, patch size, windows) and a weight"
            )
        if self.patience and not self.evaluate_every:
            raise UserError(
                "patience counts evaluations: say how many steps lie between them (evaluate_every)"
            )
        # Values that went through JSON or a checkpoint come back as lists and dicts.
        object.__setattr__(self, "betas", _pair(self.betas))
        object.__setattr__(
            self, "odds", tuple((tuple(triple), float(weight)) for triple, weight in self.odds)
        )
        if self.anchor is not None:
            object.__setattr__(self, "anchor", _triple(self.anchor))
        for name, kind in (("weights", LossWeights), ("costs", MatchCosts)):
            if isinstance(getattr(self, name), dict):
                object.__setattr__(self, name, _read(kind, name, getattr(self, name)))
            if not isinstance(getattr(self, name), kind):
                raise UserError(
                    f"{name} must be a {kind.__name__} or its fields by name, not {getattr(self, name)!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Read `to_dict`. Unknown fields raise UserError."""
        return _read(cls, "", values)

    def replace(self, **changes: Any) -> "TrainConfig":
        """A copy with some fields changed (validated again)."""
        return replace(self, **changes)


def _read(kind: type[Any], name: str, values: dict[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        where = f" in {name}" if name else ""
        raise UserError(
            f"unknown training field {', '.join(unknown)}{where}; known: {', '.join(sorted(known))}"
        )
    return kind(**values)


def _triple(anchor: Any) -> tuple[int, ...]:
    try:
        resolution, patch_size, windows = anchor
    except (TypeError, ValueError):
        raise UserError(f"anchor must be (resolution, patch size, windows), not {anchor!r}") from None
    return tuple(_COUNT.read("anchor", value) for value in (resolution, patch_size, windows))


def _pair(betas: Any) -> tuple[float, float]:
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise UserError(f"betas must be two numbers, not {betas!r}") from None
    allowed = Range(least=0, below=1)
    return allowed.read("betas", first), allowed.read("betas", second)


RESUMABLE = frozenset(
    {"steps", "log_every", "checkpoint_every", "evaluate_every", "patience", "max_bad_steps", "workers"}
)
"""Fields that may differ between a checkpoint and the run that continues it."""
