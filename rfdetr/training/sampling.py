"""What step t trains on: architectures and images as pure functions of (seed, t).

Nothing is remembered and nothing depends on the process, so every process of a run draws the same
architecture, and a resumed run draws what the uninterrupted one would have drawn. Random numbers come from
Philox, a counter-based generator. Source: Section 3 and Appendix A (one architecture per step, drawn
uniformly; decoder layers and queries stay at the maximum in training and are only dropped at inference).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from rfdetr.arch import Arch, SearchSpace, effective
from rfdetr.errors import UserError

# Independent streams of one seed.
_ARCH, _ORDER, _AUGMENT, _POINTS = 1, 2, 3, 4

Odds = Mapping[tuple[int, int, int], float] | Sequence[tuple[tuple[int, int, int], float]]


def stream(seed: int, *counters: int) -> np.random.Generator:
    """A random generator that is a pure function of seed and counters (all non-negative)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *counters))))


def draw(
    space: SearchSpace,
    seed: int,
    step: int,
    strategy: str = "uniform",
    odds: Odds | None = None,
    anchor: tuple[int, int, int] | None = None,
) -> list[Arch]:
    """Architectures of step `step` (0-based); their gradients are averaged.

    uniform    one architecture: resolution, patch size and windows drawn uniformly from the nominal grid (the
               paper)
    sandwich   three: the most and the least expensive encoder setting and a uniform one (an ablation; Yu et
               al. 2019)
    biased     one: an encoder setting with probability proportional to `odds`, triples (effective resolution,
               patch size, windows) or (nominal resolution, ...) -> weight >= 0

    anchor: an encoder setting that steps 0, 2, 4, ... train alone, whatever the strategy; the others are
    drawn as they are without it.

    Decoder layers and queries (limited to the tokens) are the maximum of the space. Raises UserError for an
    unknown strategy or impossible odds.
    """
    if anchor is not None and step % 2 == 0:
        return [_fullest(space, *anchor)]
    rng = stream(seed, _ARCH, step)
    if strategy == "uniform":
        return [_uniform(space, rng)]
    if strategy == "sandwich":
        high, low = 0, -1
        largest = _fullest(space, space.resolutions[-1], space.patch_sizes[high], space.windows[high])
        smallest = _fullest(space, space.resolutions[0], space.patch_sizes[low], space.windows[low])
        return [largest, smallest, _uniform(space, rng)]
    if strategy == "biased":
        triples, chances = _chances(odds)
        return [_fullest(space, *triples[int(rng.choice(len(triples), p=chances))])]
    raise UserError(f"there is no sampling strategy {strategy!r}; choose uniform, sandwich or biased")


def _uniform(space: SearchSpace, rng: np.random.Generator) -> Arch:
    knobs = (space.resolutions, space.patch_sizes, space.windows)
    return _fullest(space, *(values[int(rng.integers(len(values)))] for values in knobs))


def _fullest(space: SearchSpace, resolution: int, patch_size: int, windows: int) -> Arch:
    return effective(resolution, patch_size, windows, space.decoder_layers[-1], space.queries[-1])


def _chances(odds: Odds | None) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    pairs = sorted(odds.items() if isinstance(odds, Mapping) else odds or ())
    weights = np.array([weight for _, weight in pairs], dtype=np.float64)
    if not pairs or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise UserError(
            "biased sampling needs odds: weights of at least 0, finite and not all 0, one per triple"
        )
    return [triple for triple, _ in pairs], weights / weights.sum()


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return stream(seed, _ORDER, epoch).permutation(length)


def image_indexes(seed: int, first: int, count: int, length: int) -> list[int]:
    """Dataset indexes at positions first..first+count-1 of an endless stream: one permutation after the
    other.

    Every run of `length` positions that starts at a multiple of `length` holds each image once.
    """
    positions = range(first, first + count)
    return [int(_order(seed, position // length, length)[position % length]) for position in positions]


def step_slots(step: int, per_process: int, rank: int = 0, world: int = 1) -> range:
    """Stream positions of process `rank` at a step. The step's images do not depend on how many processes
    share them.
    """
    first = (step * world + rank) * per_process
    return range(first, first + per_process)


def augmentation(seed: int, position: int) -> np.random.Generator:
    """Generator for augmenting the image at a stream position."""
    return stream(seed, _AUGMENT, position)


def points_key(seed: int, position: int) -> tuple[int, ...]:
    """Key of the random mask points of the image at a stream position (`rfdetr.training.points`)."""
    return (seed, _POINTS, position)
