"""Figure 3 and the grids of Appendix A: how many sub-networks, which resolutions, what each of them costs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from rfdetr.arch import (
    PRESETS,
    SEARCH_GRID,
    SEARCH_GRID_WITH_UNSEEN,
    TRAINING_GRID,
    Arch,
    SearchSpace,
    round_resolution,
)
from rfdetr.benchmark.flops import analytic_table
from rfdetr.benchmark.formula import Knobs, operations
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.paper import tables

_MEANING = {
    "resolution": "side of the square input, px",
    "patch_size": "side of one patch, px; n = resolution / patch size tokens a side",
    "windows": "attention windows a side; each window has its own class token",
    "decoder_layers": "how often the queries are refined; 0 returns the proposals",
    "queries": "how many proposals go into the decoder",
}
_FIELDS = dict(
    zip(Arch.KNOBS, ("resolutions", "patch_sizes", "windows", "decoder_layers", "queries"), strict=True)
)


def supernet_config(space: SearchSpace = SEARCH_GRID) -> ModelConfig:
    """Sizes of the DINOv2-S detection supernet that holds a whole grid: position grid 120, six decoder
    layers, 300 queries.
    """
    return preset_config(
        "nano",
        position_grid=space.position_grid,
        decoder_layers=space.decoder_layers[-1],
        queries=space.queries[-1],
    )


def knob_table() -> pd.DataFrame:
    """Columns: knob, meaning, trained (values drawn in training), searched (values of the search)."""
    return pd.DataFrame(
        [
            {
                "knob": knob.replace("_", " "),
                "meaning": _MEANING[knob],
                "trained": getattr(TRAINING_GRID, _FIELDS[knob]),
                "searched": getattr(SEARCH_GRID_WITH_UNSEEN, _FIELDS[knob]),
            }
            for knob in Arch.KNOBS
        ]
    )


def rounding_table() -> pd.DataFrame:
    """Every published resolution against the printed grid. One row per configuration of Tables 7 and 8, and
    `base`.

    Columns: configuration, unit (patch size * windows, px), printed, on_grid, from_grid (the grid value that
    rounds down to the printed one, or missing), nearest (what rounding that value to the nearest multiple
    would give instead).
    """
    rows = []
    for name, preset in PRESETS.items():
        arch = preset.arch
        unit = arch.patch_size * arch.windows
        sources = [
            nominal
            for nominal in SEARCH_GRID.resolutions
            if round_resolution(nominal, arch.patch_size, arch.windows) == arch.resolution
        ]
        rows.append(
            {
                "configuration": name,
                "unit": unit,
                "printed": arch.resolution,
                "on_grid": arch.resolution in SEARCH_GRID.resolutions,
                "from_grid": sources[0] if sources else None,
                "nearest": int(sources[0] / unit + 0.5) * unit if sources else None,
            }
        )
    return pd.DataFrame(rows).astype({"from_grid": "Int64", "nearest": "Int64"})


def count_table() -> pd.DataFrame:
    """How many sub-networks there are, counted in every way that the paper leaves open. Columns: what,
    count.
    """
    printed = tables.document("search_grid")["printed_totals"]["configurations"]
    without_rounding = sum(
        resolution % (patch * windows) == 0
        for resolution in TRAINING_GRID.resolutions
        for patch in TRAINING_GRID.patch_sizes
        for windows in TRAINING_GRID.windows
    )
    limited = sum(
        queries > (round_resolution(resolution, patch, windows) // patch) ** 2
        for resolution, patch, windows, _, queries in SEARCH_GRID.nominal()
    )
    rows = [
        ("printed total of the search", printed),
        ("searched, with the seven trained patch sizes", len(SEARCH_GRID)),
        ("searched, with the eight patch sizes of the printed inference grid", len(SEARCH_GRID_WITH_UNSEEN)),
        ("different sub-networks among the 6,468 after rounding", len(SEARCH_GRID.distinct())),
        ("grid points that ask for more queries than there are tokens", limited),
        ("drawn in training", len(TRAINING_GRID)),
        ("different ones among these after rounding", len(TRAINING_GRID.triples())),
        ("of these, divisible without any rounding", without_rounding),
        (
            "supervised in training, each decoder exit counted",
            len(TRAINING_GRID) * len(SEARCH_GRID.decoder_layers),
        ),
    ]
    return pd.DataFrame(rows, columns=["what", "count"])


def costs(space: SearchSpace = SEARCH_GRID, config: ModelConfig | None = None) -> pd.DataFrame:
    """GFLOPs (attention counted, deployed graph) and parameters of every grid point, by formula.

    Columns: nominal and queries_nominal (of the grid), the five knobs as used, tokens, gflops, attention
    (GFLOPs of the attention products), params_m (one query group).
    """
    df = analytic_table(config or supernet_config(space), space.archs())
    nominal = list(space.nominal())
    return pd.DataFrame(
        {
            "nominal": [point[0] for point in nominal],
            "queries_nominal": [point[4] for point in nominal],
            **{knob: df[knob] for knob in Arch.KNOBS},
            "tokens": (df.resolution // df.patch_size) ** 2,
            "gflops": df.gflops,
            "attention": df.gflops - df.gflops_no_attention,
            "params_m": df.params_deployed / 1e6,
        }
    )


def knob_effects(df: pd.DataFrame, space: SearchSpace = SEARCH_GRID) -> pd.DataFrame:
    """What one knob does when the other four stay: cost at its dearest value over cost at its cheapest.

    df: from `costs`. Columns: knob, cheap, dear (values), smallest, median, largest (ratio of GFLOPs).
    """
    grid = pd.DataFrame(space.nominal(), columns=list(Arch.KNOBS)).assign(gflops=df.gflops.to_numpy())
    rows = []
    for knob in Arch.KNOBS:
        others = [other for other in Arch.KNOBS if other != knob]
        means = grid.groupby(knob).gflops.mean()
        cheap, dear = int(means.index[int(means.argmin())]), int(means.index[int(means.argmax())])
        wide = grid.pivot(index=others, columns=knob, values="gflops")
        ratio = wide[dear] / wide[cheap]
        rows.append(
            {
                "knob": knob.replace("_", " "),
                "cheap": cheap,
                "dear": dear,
                "smallest": ratio.min(),
                "median": ratio.median(),
                "largest": ratio.max(),
            }
        )
    return pd.DataFrame(rows)


def patch_steps(df: pd.DataFrame) -> pd.DataFrame:
    """Every step to the next larger patch size with the other knobs kept: ratio of GFLOPs and of tokens,
    larger patch over smaller.

    df: from `costs`.
    """
    by = df.sort_values("patch_size").groupby(["nominal", "windows", "decoder_layers", "queries_nominal"])
    ratios = {name: df[name] / by[name].shift() for name in ("gflops", "tokens")}
    return pd.DataFrame({f"{name}_ratio": ratio for name, ratio in ratios.items()}).dropna()


class _WithoutClassTokens(Knobs):
    """The same sub-network if windows had no class tokens."""

    @property
    def sequence(self) -> Any:
        """Patches of one window."""
        return (self.grid // self.windows) ** 2


def _encoder_gflops(config: ModelConfig, knobs: Knobs) -> float:
    stages = operations(config, knobs)
    return (
        sum(sum(stages[s]) for s in ("embedding", "windowed attention", "global attention", "backbone MLP"))
        / 1e9
    )


def window_costs(names: tuple[str, ...] = ("nano", "medium", "large")) -> pd.DataFrame:
    """What windows save and what their class-token copies cost. One row per configuration and number of
    windows.

    Columns: configuration, tokens, windows, backbone (GFLOPs), without_class_tokens (GFLOPs), class_tokens (%
    that the copies add).
    """
    return pd.DataFrame(_window_rows(names))


def _window_rows(names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    config = supernet_config()
    for name in names:
        arch = PRESETS[name].arch
        for windows in SEARCH_GRID.windows:
            if arch.grid % windows:
                continue
            values = {**asdict(arch), "windows": windows}
            full = _encoder_gflops(config, Knobs(**values))
            bare = _encoder_gflops(config, _WithoutClassTokens(**values))
            yield {
                "configuration": name,
                "tokens": arch.tokens,
                "windows": windows,
                "backbone": full,
                "without_class_tokens": bare,
                "class_tokens": 100 * (full / bare - 1),
            }


def drawn_token_grids(space: SearchSpace = TRAINING_GRID) -> pd.DataFrame:
    """How many points of a training grid have which number of tokens a side. Columns: side, points."""
    sides = [round_resolution(r, p, w) // p for r, p, w, _, _ in space.nominal()]
    counted = pd.Series(sides).value_counts().sort_index()
    return pd.DataFrame({"side": counted.index, "points": counted.to_numpy()})


def training_costs(names: tuple[str, ...] = ("base", "nano", "small", "medium", "large")) -> pd.DataFrame:
    """Operations of one training step, averaged over the printed training grid, against one architecture.

    Forward passes of the supernet, attention counted. Columns: baseline, gflops (of that architecture, in its
    own network), grid_gflops (mean over the grid), ratio.
    """
    from rfdetr.benchmark.flops import analytic

    grid = float(analytic_table(supernet_config(TRAINING_GRID), TRAINING_GRID.archs()).gflops.mean())
    rows = []
    for name in names:
        own = analytic(preset_config(name)).gflops
        rows.append({"baseline": name, "gflops": own, "grid_gflops": grid, "ratio": grid / own})
    return pd.DataFrame(rows)
