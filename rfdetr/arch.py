"""One point of the five knobs (`Arch`), the grids it is drawn from, and the published presets.

Source: Section 3, Figure 3, Appendix A and Tables 7 and 8 of arXiv 2511.09554. No torch here.
An `Arch` is a value that travels with the images; no network remembers one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import ClassVar

from rfdetr.paper import published, tables


class ArchError(ValueError):
    """An architecture that cannot be built. `neighbours` holds the nearest valid ones, nearest first."""

    def __init__(self, message: str, neighbours: "tuple[Arch, ...]" = ()) -> None:
        super().__init__(message)
        self.neighbours = neighbours


@dataclass(frozen=True, order=True)
class Arch:
    """One sub-network: the five knobs of Figure 3. Frozen, validated, hashable, sortable.

    resolution      px, side of the square input as used (an effective, not a nominal, resolution)
    patch_size      px; the token grid has `resolution / patch_size` tokens a side
    windows         attention windows per image side (2 means 2 x 2 windows)
    decoder_layers  0 or more; 0 returns the encoder's own proposals
    queries         number of detections before selection; at most the number of tokens

    Raises ArchError, naming the nearest valid neighbours, when the knobs do not fit each other.
    """

    KNOBS: ClassVar[tuple[str, ...]] = ("resolution", "patch_size", "windows", "decoder_layers", "queries")
    """Names of the five knobs, in the order of the fields: columns of every table of sub-networks."""

    resolution: int = 384
    patch_size: int = 16
    windows: int = 2
    decoder_layers: int = 2
    queries: int = 300

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ArchError(f"{name} must be a whole number, not {value!r}")
            if value < least:
                raise ArchError(f"{name} must be at least {least}, not {value}")
        unit = self.patch_size * self.windows
        if self.resolution % unit:
            raise ArchError(*_does_not_divide(self))
        if self.queries > self.tokens:
            fits = replace(self, queries=self.tokens)
            raise ArchError(
                f"{self.queries} queries are more than the {self.tokens} tokens of resolution"
                f" {self.resolution} with patch size {self.patch_size}; use at most {self.tokens} queries, a"
                " smaller patch size or a larger resolution",
                (fits,),
            )

    @property
    def grid(self) -> int:
        """Tokens per image side, n = resolution / patch_size."""
        return self.resolution // self.patch_size

    @property
    def tokens(self) -> int:
        """Patch tokens of one image, n * n (class tokens not counted)."""
        return self.grid**2

    @property
    def encoder(self) -> tuple[int, int, int]:
        """(resolution, patch_size, windows): all that the encoder depends on."""
        return self.resolution, self.patch_size, self.windows

    @property
    def id(self) -> str:
        """Short stable name, e.g. `r384-p16-w2-d2-q300`; `Arch.parse` reads it back."""
        return f"r{self.resolution}-p{self.patch_size}-w{self.windows}-d{self.decoder_layers}-q{self.queries}"

    def __str__(self) -> str:
        return self.id

    @classmethod
    def parse(cls, text: str) -> "Arch":
        """Read `r384-p16-w2-d2-q300` or the name of a preset. Raises ArchError on anything else."""
        if text in PRESETS:
            return PRESETS[text].arch
        match = re.fullmatch(r"r(\d+)-p(\d+)-w(\d+)-d(\d+)-q(\d+)", text)
        if match is None:
            raise ArchError(
                f"cannot read the architecture {text!r}: write it as r384-p16-w2-d2-q300 (resolution, patch"
                f" size, windows, decoder layers, queries) or name a preset: {', '.join(PRESETS)}"
            )
        return cls(*map(int, match.groups()))

    def to_dict(self) -> dict[str, int]:
        """The five knobs by name, for tables and JSON."""
        return asdict(self)

    def replace(self, **changes: int) -> "Arch":
        """A copy with some knobs changed (validated again)."""
        return replace(self, **changes)


_LEAST = {"resolution": 1, "patch_size": 1, "windows": 1, "decoder_layers": 0, "queries": 1}


def _does_not_divide(arch: Arch) -> tuple[str, tuple[Arch, ...]]:
    unit = arch.patch_size * arch.windows
    low = arch.resolution // unit * unit
    choices = [r for r in sorted({low, low + unit}, key=lambda r: abs(r - arch.resolution)) if r > 0]
    rest = (arch.patch_size, arch.windows, arch.decoder_layers)
    proposals = [(r, *rest, min(arch.queries, (r // arch.patch_size) ** 2)) for r in choices]
    for windows in range(arch.windows, 0, -1):
        patches = [p for p in range(4, 65) if arch.resolution % (p * windows) == 0]
        if patches:
            patch = min(patches, key=lambda p: abs(p - arch.patch_size))
            queries = min(arch.queries, (arch.resolution // patch) ** 2)
            proposals.append((arch.resolution, patch, windows, arch.decoder_layers, queries))
            break
    neighbours = tuple(Arch(*p) for p in proposals)
    message = (
        f"resolution {arch.resolution} is not a multiple of patch_size * windows = "
        f"{arch.patch_size} * {arch.windows} = {unit}; nearest valid: {', '.join(n.id for n in neighbours)}"
    )
    return message, neighbours


def round_resolution(nominal: int, patch_size: int, windows: int) -> int:
    """Effective resolution in px: `nominal` rounded DOWN to a multiple of patch_size * windows.

    The paper does not state this rule; it yields every resolution of Tables 7 and 8 from the printed grid.
    """
    unit = patch_size * windows
    if nominal < unit:
        raise ArchError(
            f"resolution {nominal} is smaller than one window of patches, {patch_size} * {windows} ="
            f" {unit} px"
        )
    return nominal // unit * unit


@dataclass(frozen=True)
class SearchSpace:
    """A grid of nominal knob values. Every combination is one sub-network.

    A nominal point becomes an `Arch` by two rules: the resolution is rounded down (`round_resolution`) and
    the queries are limited to the number of tokens, so that no combination of a grid is lost. Two nominal
    points may therefore be the same sub-network; `distinct()` lists each once.
    """

    resolutions: tuple[int, ...]
    patch_sizes: tuple[int, ...]
    windows: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    queries: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in asdict(self).items():
            if not values:
                raise ArchError(f"the search space has no {name}")
            object.__setattr__(self, name, tuple(sorted(set(values))))
        self._check()

    def _check(self) -> None:
        """Raise ArchError when a point of the grid is no architecture."""
        round_resolution(self.resolutions[0], self.patch_sizes[-1], self.windows[-1])

    def __len__(self) -> int:
        return (
            len(self.resolutions)
            * len(self.patch_sizes)
            * len(self.windows)
            * len(self.decoder_layers)
            * len(self.queries)
        )

    def nominal(self) -> Iterator[tuple[int, int, int, int, int]]:
        """All nominal points (resolution, patch size, windows, decoder layers, queries), in a fixed order."""
        return product(self.resolutions, self.patch_sizes, self.windows, self.decoder_layers, self.queries)

    def archs(self) -> list[Arch]:
        """The sub-network of every nominal point, in the order of `nominal()`; may hold repetitions."""
        return [effective(*point) for point in self.nominal()]

    def distinct(self) -> list[Arch]:
        """Every different sub-network once, sorted."""
        return sorted(set(self.archs()))

    def triples(self) -> list[tuple[int, int, int]]:
        """Every different encoder setting (resolution, patch size, windows) once, sorted."""
        points = product(self.resolutions, self.patch_sizes, self.windows)
        return sorted({(round_resolution(r, p, w), p, w) for r, p, w in points})

    @property
    def position_grid(self) -> int:
        """Side of the position-embedding grid: largest resolution / smallest patch (Section 3)."""
        return self.resolutions[-1] // self.patch_sizes[0]

    @property
    def largest(self) -> Arch:
        """The most expensive corner of the grid."""
        depth, queries = self.decoder_layers[-1], self.queries[-1]
        return effective(self.resolutions[-1], self.patch_sizes[0], self.windows[0], depth, queries)

    @property
    def smallest(self) -> Arch:
        """The cheapest corner of the grid."""
        depth, queries = self.decoder_layers[0], self.queries[0]
        return effective(self.resolutions[0], self.patch_sizes[-1], self.windows[-1], depth, queries)


def effective(resolution: int, patch_size: int, windows: int, decoder_layers: int, queries: int) -> Arch:
    """The sub-network of a nominal grid point: resolution rounded down, queries limited to the tokens."""
    resolution = round_resolution(resolution, patch_size, windows)
    queries = min(queries, (resolution // patch_size) ** 2)
    return Arch(resolution, patch_size, windows, decoder_layers, queries)


def _printed_space(section: str, patch_sizes: str) -> SearchSpace:
    grid = tables.document("search_grid")
    knobs = grid[section]
    return SearchSpace(
        resolutions=tuple(knobs["resolutions_px"]),
        patch_sizes=tuple(grid[patch_sizes]["patch_sizes_px"]),
        windows=tuple(knobs["windows"]),
        decoder_layers=tuple(knobs["decoder_layers"]),
        queries=tuple(knobs["queries"]),
    )


# The grid that training draws from (231 points).
TRAINING_GRID = _printed_space("training", "training")
# The search: 6,468 points, the printed total, which counts the seven trained patch sizes.
SEARCH_GRID = _printed_space("inference", "training")
# The inference grid as printed lists an eighth patch size, 14, that is never trained: 7,392 points.
SEARCH_GRID_WITH_UNSEEN = _printed_space("inference", "inference")


@dataclass(frozen=True)
class Preset:
    """A published configuration. `published` holds the paper's numbers, None where it prints none.

    Keys of `published`: params_m, gflops, latency_ms, ap, ap50, ap75, ap_s, ap_m, ap_l.
    """

    name: str
    arch: Arch
    backbone: str
    segmentation: bool
    num_classes: int
    feature_layers: tuple[int, ...]
    published: Mapping[str, float | None] = field(hash=False)

    @property
    def params_m(self) -> float | None:
        """Published parameters in millions."""
        return self.published["params_m"]

    @property
    def gflops(self) -> float | None:
        """Published GFLOPs (what is counted differs between tables; see the chapter on FLOPs)."""
        return self.published["gflops"]

    @property
    def ap(self) -> float | None:
        """Published COCO AP (boxes, or masks for segmentation)."""
        return self.published["ap"]

    @property
    def latency_ms(self) -> float | None:
        """Published latency in ms (T4, TensorRT 10.4, FP16, 200 ms pause)."""
        return self.published["latency_ms"]


def _presets() -> Mapping[str, Preset]:
    presets: dict[str, Preset] = {}
    for config_table, model, number_tables, prefix in (
        (7, "RF-DETR", (2, 12), ""),
        (8, "RF-DETR-Seg", (3, 13), "seg-"),
    ):
        for row in tables.rows(config_table):
            name = prefix + published.SIZE_NAMES[row["size"]]
            presets[name] = Preset(
                name=name,
                arch=Arch(*(int(row[k]) for k in Arch.KNOBS)),
                backbone=row["backbone"].lower(),
                segmentation=bool(prefix),
                # COCO ids are used as class indexes, so 91; index 0 is unused.
                num_classes=91,
                feature_layers=(3, 6, 9, 12),
                published=published.published(model, row["size"], number_tables),
            )
    base = tables.find_row(5, step="4")
    presets["base"] = Preset(
        name="base",
        arch=Arch(resolution=560, patch_size=14, windows=4, decoder_layers=3, queries=300),
        backbone="dinov2-s",
        segmentation=False,
        num_classes=91,
        feature_layers=(2, 5, 8, 11),
        published=published.numbers(base),
    )
    return MappingProxyType(presets)


PRESETS: Mapping[str, Preset] = _presets()
