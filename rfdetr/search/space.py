"""What a search looks at by default: grids of tokens that the network knows, from pictures of many sizes.

A network knows its token grids, not its pictures: one that was trained at patch size 16 is often better, and
faster, at another patch size with as many tokens, which training never drew. A grid of resolutions and patch
sizes holds mostly token grids that the network does not know; so here the tokens a side are the knob.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from rfdetr.arch import Arch, ArchError, SearchSpace, effective, round_resolution

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

PATCHES = (8, 10, 12, 14, 16)
"""Patch sizes that a network is tried with besides its own, px."""
QUERY_SHARES = (1 / 3, 2 / 3, 1.0)
"""Query counts that are tried, as shares of the network's."""


@dataclass(frozen=True)
class TokenSpace(SearchSpace):
    """A grid with tokens a side (`sides`) in place of resolutions: a picture has tokens * patch size px.

    The same rules as in any `SearchSpace` make an architecture of a point: where windows do not divide the
    tokens, the resolution is rounded down; queries are limited to the tokens. `resolutions` are all that
    occur, and follow from the rest (`TokenSpace.of`).
    """

    sides: tuple[int, ...] = ()

    def _check(self) -> None:
        if self.sides[0] < self.windows[-1]:
            raise ArchError(f"{self.sides[0]} tokens a side are fewer than {self.windows[-1]} windows")

    @classmethod
    def of(
        cls,
        sides: tuple[int, ...],
        patch_sizes: tuple[int, ...],
        windows: tuple[int, ...],
        decoder_layers: tuple[int, ...],
        queries: tuple[int, ...],
    ) -> "TokenSpace":
        """A grid over tokens a side; ArchError where a picture would have fewer tokens than windows."""
        pictures = tuple(side * patch for side in sides for patch in patch_sizes)
        return cls(pictures, patch_sizes, windows, decoder_layers, queries, sides)

    def __len__(self) -> int:
        knobs = (self.sides, self.patch_sizes, self.windows, self.decoder_layers, self.queries)
        count = 1
        for values in knobs:
            count *= len(values)
        return count

    def nominal(self) -> Iterator[tuple[int, int, int, int, int]]:
        """All points as (resolution before it is rounded, patch size, windows, decoder layers, queries)."""
        knobs = (self.sides, self.patch_sizes, self.windows, self.decoder_layers, self.queries)
        for side, patch, windows, depth, queries in product(*knobs):
            yield side * patch, patch, windows, depth, queries

    def triples(self) -> list[tuple[int, int, int]]:
        """Every different encoder setting (resolution, patch size, windows) once, sorted."""
        points = product(self.sides, self.patch_sizes, self.windows)
        return sorted({(round_resolution(s * p, p, w), p, w) for s, p, w in points})

    @property
    def position_grid(self) -> int:
        """The most tokens a side."""
        return self.sides[-1]

    @property
    def largest(self) -> Arch:
        """The most expensive corner of the grid."""
        return self._corner(self.sides[-1], self.patch_sizes[-1], self.windows[0], -1)

    @property
    def smallest(self) -> Arch:
        """The cheapest corner of the grid."""
        return self._corner(self.sides[0], self.patch_sizes[0], self.windows[-1], 0)

    def _corner(self, side: int, patch: int, windows: int, end: int) -> Arch:
        return effective(side * patch, patch, windows, self.decoder_layers[end], self.queries[end])

    def __str__(self) -> str:
        values = {
            "tokens a side": self.sides,
            "patch sizes": self.patch_sizes,
            "windows": self.windows,
            "decoder layers": self.decoder_layers,
            "queries": self.queries,
        }
        return ", ".join(f"{name} {' '.join(map(str, numbers))}" for name, numbers in values.items())


def trained_triples(model: "RFDETR") -> set[tuple[int, int, int]]:
    """Encoder settings (resolution, patch size, windows) that the network's training drew; those of its own
    architecture for one without a record of its training.
    """
    if model.origin is not None:
        return set(model.origin.space.triples())
    own = model.config.default_arch
    return set() if own is None else {own.encoder}


def default_space(model: "RFDETR") -> TokenSpace:
    """The token grids that the network knows, with `PATCHES`, all its depths and a few query counts.

    Known are those that it was trained with, or, where nothing tells, those around its own architecture.
    Raises UserError for a network with neither.
    """
    from rfdetr.training.finetune import space_of

    known, config = space_of(model), model.config
    sides = {resolution // patch for resolution, patch, _ in known.triples()}
    patches = {*known.patch_sizes, *(p for p in PATCHES if p < max(known.patch_sizes))}
    counts = {max(1, round(config.queries * share)) for share in QUERY_SHARES}
    return TokenSpace.of(
        tuple(sorted(s for s in sides if s >= max(known.windows))),
        tuple(sorted(patches)),
        known.windows,
        tuple(range(config.decoder_layers + 1)),
        tuple(sorted(counts)),
    )
