"""The five sizes at which every chapter runs. One place, so that no chapter has sizes of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from rfdetr.arch import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch, SearchSpace
from rfdetr.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """How a chapter trains, searches and tests its supernet on the embedded scenes.

    model        fields of `ModelConfig` (the classes come from the data)
    training     what each training step draws its architecture from
    search       the grid that is evaluated; may hold patch sizes that training never sees
    train        fields of `TrainConfig`
    reference    the architecture from which single knobs are changed
    snapshots    steps at which the weights are kept, for learning curves
    measured     sub-networks whose latency chapter 05 measures
    canvas       side of the scenes, px
    images       number of scenes per split
    study_steps  steps of the uniform variant of the sampling study; the others get as many as cost the same
    study_seeds  trainings per variant of that study; 0: it is not run at this size
    """

    model: Mapping[str, Any]
    training: SearchSpace
    search: SearchSpace
    train: Mapping[str, Any]
    reference: Arch
    snapshots: tuple[int, ...]
    measured: int
    canvas: int
    images: Mapping[str, int]
    study_steps: int = 0
    study_seeds: int = 0


@dataclass(frozen=True)
class Timing:
    """How long chapter 06 measures.

    samples    passes of each `buffered` run
    seconds    duration of each `sustained` and `rate` run, s
    pauses_ms  pauses between passes, ms; v2 Table 20 has four
    """

    samples: int = 25
    seconds: float = 4.0
    pauses_ms: tuple[float, ...] = (0.0, 200.0, 400.0, 800.0)


@dataclass(frozen=True)
class Profile:
    """How much a chapter computes.

    meaningful   False where the numbers only show that the code runs; pages made with it say so
    """

    name: str
    description: str
    recipe: Recipe
    meaningful: bool = True
    timing: Timing = Timing()


# From scratch on small data: one learning rate for all parts and no decay over the ViT's layers. Unlike the
# paper's recipe, which starts from pre-trained weights, it warms up and ends at a small rate; no average of
# the weights; and the class loss weighs more, because here the classes, not the boxes, are what is learned
# last.
_SCRATCH: dict[str, Any] = {
    "lr": 1e-3,
    "encoder_lr": 1e-3,
    "betas": (0.9, 0.99),
    "warmup_steps": 100,
    "schedule": "cosine",
    "ema_decay": None,
    "weights": {"label": 3.0},
    "layer_decay": 1.0,
    "component_decay": 1.0,
    "clip_norm": 1.0,
    "augment": False,
    "precision": "fp32",
}

_SMOKE = Recipe(
    model={
        "embed_dim": 32,
        "depth": 2,
        "heads": 2,
        "feature_layers": (1, 2),
        "base_patch": 16,
        "position_grid": 8,
        "hidden_dim": 32,
        "decoder_layers": 2,
        "queries": 12,
        "groups": 2,
        "self_heads": 2,
        "cross_heads": 4,
        "points": 2,
        "ffn_dim": 64,
    },
    training=SearchSpace((64, 96), (8, 16), (1, 2), (2,), (12,)),
    search=SearchSpace((64, 96), (8, 12, 16), (1, 2), (0, 1, 2), (6, 12)),
    train={**_SCRATCH, "steps": 12, "batch_size": 4, "warmup_steps": 2, "checkpoint_every": 6},
    reference=Arch(96, 8, 2, 2, 12),
    snapshots=(4, 8, 12),
    measured=14,
    canvas=96,
    images={"train": 200, "val": 16, "test": 16},
    study_steps=6,
    study_seeds=2,
)

_CPU = Recipe(
    model={
        "embed_dim": 96,
        "depth": 6,
        "heads": 3,
        "feature_layers": (2, 4, 6),
        "base_patch": 16,
        "position_grid": 16,
        "hidden_dim": 96,
        "decoder_layers": 3,
        "queries": 30,
        "groups": 5,
        "self_heads": 4,
        "cross_heads": 8,
        "points": 2,
        "ffn_dim": 256,
    },
    training=SearchSpace((64, 80, 96, 112, 128), (8, 10, 12, 16), (1, 2, 4), (3,), (30,)),
    search=SearchSpace((64, 80, 96, 112, 128), (8, 10, 12, 14, 16), (1, 2, 4), (0, 1, 2, 3), (10, 20, 30)),
    train={**_SCRATCH, "steps": 1700, "batch_size": 16, "checkpoint_every": 125},
    reference=Arch(96, 8, 2, 3, 30),
    snapshots=(300, 600, 1000, 1400, 1700),
    measured=60,
    canvas=96,
    images={"train": 20000, "val": 150, "test": 200},
    study_steps=800,
    study_seeds=3,
)

# The printed grid in miniature, point for point: eleven resolutions, the printed patch sizes halved, the
# printed windows and depths, the printed query counts divided by ten. Trained once for longer; chapter 05
# shows the kept result.
_FULL_RESOLUTIONS = tuple(range(64, 145, 8))
_FULL_PATCHES = tuple(p // 2 for p in SEARCH_GRID.patch_sizes)
_FULL_QUERIES = tuple(q // 10 for q in SEARCH_GRID.queries)
_FULL = Recipe(
    model={**_CPU.model, "position_grid": 36, "decoder_layers": 6},
    training=SearchSpace(_FULL_RESOLUTIONS, _FULL_PATCHES, (1, 2, 4), (6,), (30,)),
    search=SearchSpace(
        _FULL_RESOLUTIONS, _FULL_PATCHES, (1, 2, 4), SEARCH_GRID.decoder_layers, _FULL_QUERIES
    ),
    train={**_SCRATCH, "steps": 4000, "batch_size": 16, "checkpoint_every": 250, "precision": "bf16"},
    reference=Arch(96, 8, 2, 3, 30),
    snapshots=(1000, 2000, 3000, 4000),
    measured=390,
    canvas=96,
    images={"train": 40000, "val": 200, "test": 200},
)

_GPU = Recipe(
    model={
        "position_grid": TRAINING_GRID.position_grid,
        "decoder_layers": TRAINING_GRID.decoder_layers[-1],
        "queries": TRAINING_GRID.queries[-1],
    },
    training=TRAINING_GRID,
    search=SEARCH_GRID,
    train={"steps": 20000, "batch_size": 16, "accumulate": 2, "augment": False, "checkpoint_every": 500},
    reference=PRESETS["nano"].arch,
    snapshots=(5000, 10000, 15000, 20000),
    measured=200,
    canvas=640,
    images={"train": 100000, "val": 500, "test": 500},
)

# The paper's network on a grid whose largest member trains on a T4's 16 GB: at most 40 x 40 tokens.
_T4_SIDES = tuple(side for side in TRAINING_GRID.resolutions if side <= 640)
_T4 = replace(
    _GPU,
    model={**_GPU.model, "position_grid": 40},
    training=SearchSpace(_T4_SIDES, (16, 20, 24, 32), (1, 2, 4), (6,), (300,)),
    search=SearchSpace(
        _T4_SIDES, (16, 20, 24, 32), (1, 2, 4), SEARCH_GRID.decoder_layers, SEARCH_GRID.queries
    ),
    train={**_GPU.train, "steps": 6000, "batch_size": 8, "accumulate": 2},
    snapshots=(1500, 3000, 4500, 6000),
    measured=100,
    images={"train": 40000, "val": 200, "test": 200},
)

PROFILES: MappingProxyType[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "smoke",
                "every chapter in minutes, to test that it runs; its numbers carry no meaning",
                _SMOKE,
                meaningful=False,
                timing=Timing(samples=8, seconds=0.4, pauses_ms=(0.0, 20.0, 40.0, 80.0)),
            ),
            Profile("cpu", "a small supernet on embedded data, on two CPU cores, without downloads", _CPU),
            Profile(
                "full",
                "all 6,468 sub-networks of the printed grid in miniature, about two hours on two CPU cores",
                _FULL,
            ),
            Profile("gpu", "the paper's architecture sizes on one data-centre GPU, embedded data", _GPU),
            Profile(
                "t4", "the paper's network on a smaller grid, on an NVIDIA T4; TensorRT in chapter 06", _T4
            ),
        )
    }
)
DEFAULT_PROFILE = "cpu"


def get_profile(name: str) -> Profile:
    """The profile of that name; UserError listing the names otherwise."""
    if name not in PROFILES:
        raise UserError(f"unknown profile {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
