"""The bill of the paper's search: COCO val2017, the printed grid, a network of DINOv2-S size, line by line.

Source: Section 3 and Appendix A (v2). Operations come from the formula of `rfdetr.benchmark.formula`; the
study `search-bill` holds it against torch's counter on some encoder settings of the printed grid, and times
one shared pass of others, from which the processor hours of all settings are extrapolated with an error.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import SEARCH_GRID, Arch, SearchSpace
from rfdetr.benchmark.flops import analytic_table, count, count_module
from rfdetr.errors import UserError
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.parts import Part, Place
from rfdetr.experiments.base.profiles import Profile, get_profile
from rfdetr.experiments.base.studies import Finished, Study
from rfdetr.experiments.ch02_search_space import supernet_config
from rfdetr.model.config import ModelConfig
from rfdetr.search import cost, grid

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

NAME, PROFILE = "search-bill", "full"
IMAGES = 5000
"""Of COCO val2017."""
SIZES = {"full": {"counted": 6, "clocked": 10}, "smoke": {"counted": 2, "clocked": 4}}
"""By profile: encoder settings that torch counts, and settings that are timed."""
_DETECTION = 15  # bytes of a kept detection, see `rfdetr.search.matches`
_BATCH = 32  # of `grid.GridEvaluator`
_NUMBERS = 12  # of a sub-network
_CALL = "rfdetr.experiments.ch05_bill"


def printed(profile: Profile) -> tuple[ModelConfig, SearchSpace]:
    """Network and grid of the bill: the paper's; for a profile without meaning its own small ones."""
    if profile.meaningful:
        return supernet_config(), SEARCH_GRID
    return ModelConfig(num_classes=10, **profile.recipe.model), profile.recipe.search


def spread_settings(space: SearchSpace, number: int) -> list[grid.Triple]:
    """`number` encoder settings, evenly spaced in the order of their tokens, without the ends."""
    every = sorted(grid.units(space), key=lambda t: ((t[0] / t[1]) ** 2, t))
    places = (2 * np.arange(number) + 1) * len(every) // (2 * number)
    return [every[place] for place in places]


def parts(profile: Profile, seed: int) -> list[Part]:
    """The countings, then the timings, which belong on a machine that does nothing else."""
    sizes, found = SIZES[profile.name], []
    for kind, function in (("counted", "counted_part"), ("clocked", "clocked_part")):
        for triple in spread_settings(printed(profile)[1], sizes[kind]):
            options = {"profile": profile.name, "triple": list(triple)}
            name = f"{kind}-{grid.unit_name(triple)}"
            found.append(Part(name, f"{_CALL}:{function}", options, device="cpu"))
    return found


def counted_part(place: Place, profile: str, triple: list[int]) -> dict[str, Any]:
    """GFLOPs per image of one encoder setting, shared and one by one, by torch's counter and by the formula.

    The shared passes are those of `grid.GridEvaluator`, with its batch, on a network without data. The
    counter also sees what is done once a batch, as fitting the patch kernel to a patch size.
    """
    import torch

    from rfdetr.model.detector import RFDETR

    config, space = printed(get_profile(profile))
    setting = (triple[0], triple[1], triple[2])
    archs = [Arch(*setting, *pair) for pair in grid.units(space)[setting]]
    with torch.device("meta"):
        network = RFDETR(**config.to_dict()).eval()
        images = torch.empty(_BATCH, 3, setting[0], setting[0])
        shared, _ = count_module(_Shared(network, archs), images)
    return {
        "triple": triple,
        "shared": shared / _BATCH,
        "shared_formula": float(cost.unit_flops(config, archs)["shared_gflops"].sum()),
        "one_by_one": sum(count(config, arch).gflops for arch in archs),
        "one_by_one_formula": float(analytic_table(config, archs)["gflops"].sum()),
    }


def _Shared(network: "RFDETR", archs: Sequence[Arch]) -> Any:  # noqa: N802 (a module, made late)
    """A module that does the passes of a unit for all its sub-networks."""
    from torch import Tensor, nn

    depth_of: dict[int, int] = {}
    for arch in archs:
        depth_of[arch.queries] = max(arch.decoder_layers, depth_of.get(arch.queries, 0))
    widest = Arch(archs[0].resolution, archs[0].patch_size, archs[0].windows, 0, max(depth_of))

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> None:
            memory = network.encode(images, widest)
            selected = network.selection(memory, widest.queries, 1)
            for queries, depth in depth_of.items():
                network.decode(memory, widest.resolution, depth, queries, True, selected=selected)

    return Shared()


def clocked_part(place: Place, profile: str, triple: list[int]) -> dict[str, Any]:
    """Seconds of one processor core for the shared passes of one encoder setting on one image, and their
    GFLOPs.
    """
    import torch

    from rfdetr.model.detector import RFDETR
    from rfdetr.search.passes import cpu_threads

    config, space = printed(get_profile(profile))
    setting = (triple[0], triple[1], triple[2])
    archs = [Arch(*setting, *pair) for pair in grid.units(space)[setting]]
    torch.manual_seed(0)
    network = RFDETR(**config.to_dict()).eval()
    images = torch.rand(1, 3, setting[0], setting[0])
    passes = _Shared(network, archs)
    with torch.inference_mode(), cpu_threads(1):
        passes(images)  # memory is there and kernels are chosen
        start = time.process_time()
        passes(images)
        seconds = time.process_time() - start
    return {"triple": triple, "seconds": seconds, "gflops": _gflops(config, archs)}


def _gflops(config: ModelConfig, archs: Sequence[Arch]) -> float:
    return float(cost.unit_flops(config, archs)["shared_gflops"].sum())


def collect(finished: Finished) -> None:
    """Keep the countings and the timings that are done."""
    import pandas as pd

    if not finished.records:
        raise UserError("nothing is counted yet: run `python -m rfdetr results search-bill`")
    tables = {}
    for kind in ("counted", "clocked"):
        rows = [_row(value) for value in finished.values(f"{kind}-").values()]
        if rows:
            tables[kind] = pd.DataFrame(rows)
    made = {kind: finished.makers(f"{kind}-") for kind in ("counted", "clocked")}
    kept.keep(finished.folder, tables, finished.origin, made_by=made, missing=finished.plan.missing())


def _row(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(cost.TRIPLE, value["triple"], strict=True)) | {
        name: number for name, number in value.items() if name != "triple"
    }


def counted_error(counted: "pd.DataFrame") -> float:
    """Largest relative difference of counter and formula over both ways and all counted settings."""
    differences = [
        (counted[way] / counted[f"{way}_formula"] - 1).abs().max() for way in ("shared", "one_by_one")
    ]
    return float(max(differences))


def core_seconds(clocked: "pd.DataFrame", gflops: np.ndarray) -> tuple[float, float]:
    """Seconds of one core for the shared passes of settings with `gflops` [U] on one image, all together, and
    their standard error.

    seconds = a + b GFLOPs, fitted to relative errors (the settings differ by a factor of hundreds); the error
    is that of the jackknife: the fit without each of the timed settings in turn.
    """
    from scipy.optimize import nnls

    def total(rows: "pd.DataFrame") -> float:
        design = np.stack([np.ones(len(rows)), rows["gflops"].to_numpy(dtype=float)], axis=1)
        seconds = rows["seconds"].to_numpy(dtype=float)
        weights, _ = nnls(design / seconds[:, None], np.ones(len(rows)))
        return float(weights[0] * len(gflops) + weights[1] * gflops.sum())

    without = np.array([total(clocked.drop(index=index)) for index in clocked.index])
    n = len(without)
    return total(clocked), float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def lines(config: ModelConfig, space: SearchSpace, hours: float, images: int = IMAGES) -> "pd.DataFrame":
    """What every number of the bill comes from. Columns: line (1, 2, ...), quantity, value, unit, from (which
    names other lines by their numbers).

    hours: printed for evaluating everything, on a T4
    """
    import pandas as pd

    work, nominal = grid.units(space), len(space)
    knobs = (space.resolutions, space.patch_sizes, space.windows, space.decoder_layers, space.queries)
    lists = " × ".join(str(len(values)) for values in knobs)
    total = cost.grid_flops(config, space).iloc[-1]
    alone, shared = float(total["one_by_one_gflops"]), float(total["shared_gflops"])
    archs = space.distinct()
    points, detections = len(archs), sum(arch.queries for arch in archs)
    largest, side = max(sum(q for _, q in pairs) for pairs in work.values()), space.largest.resolution
    rows: list[tuple[str, float, str, str]] = [
        ("points of the grid", nominal, "", f"{lists}: resolutions, patch sizes, windows, layers, queries"),
        ("different sub-networks", points, "", "those of line 1 that differ after rounding to whole windows"),
        ("different encoder settings", len(work), "", "of line 2: resolution, patch size, windows"),
        ("images", images, "", "COCO val2017"),
        ("all sub-networks, one by one", alone, "GFLOPs an image", "sum of the formula over line 2"),
        ("all sub-networks, shared", shared, "GFLOPs an image", "the same with one encoder pass for each of"
         " line 3 and one decoder pass for each of its query counts"),
        ("the search, one by one", alone * images / 1e9, "EFLOPs", "line 5 × line 4 / 1e9"),
        ("the search, shared", shared * images / 1e9, "EFLOPs", "line 6 × line 4 / 1e9"),
        ("one by one / shared", alone / shared, "times", "line 7 / line 8"),
        ("the paper's search", hours, "T4 hours", "printed, “about”"),
        ("speed that this means", alone * images / 3600 / hours, "GFLOPs a second of one T4", "line 7 × 1e9 /"
         " (line 10 × 3600), if it was one by one"),
        ("storage: the table", points * _NUMBERS * 8 / 1e6, "MB", f"line 2 × {_NUMBERS} COCO numbers × 8"
         " bytes"),
        ("storage: detections of the whole grid", detections * images * _DETECTION / 2e9, "GB", "line 4 × sum"
         f" of the queries over line 2 × {_DETECTION} bytes / 2 (packed). Only a search on few images keeps"
         " any: those it looked at"),
        ("memory: detections of one setting", largest * images * _DETECTION / 1e9, "GB", "line 4 × most"
         f" queries that one of line 3 has in all × {_DETECTION} bytes"),
        ("memory: a batch of inputs", _BATCH * 3 * side**2 * 4 / 1e6, "MB", f"{_BATCH} × 3 × {side}² × 4"
         " bytes, the largest resolution"),
        ("memory: weights of the supernet", _parameters(config) * 4 / 1e6, "MB", "parameters × 4 bytes"),
    ]  # fmt: skip
    found = pd.DataFrame(rows, columns=["quantity", "value", "unit", "from"])
    found.insert(0, "line", range(1, len(found) + 1))
    return found


def shown(value: float) -> str:
    """A number of `lines` for a reader: whole ones in full, others with four significant digits."""
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _parameters(config: ModelConfig) -> int:
    from rfdetr.benchmark.flops import params_by_part

    side = config.base_patch * config.position_grid
    largest = Arch(side, config.base_patch, 1, config.decoder_layers, config.queries)
    return sum(params_by_part(config, largest).values())


def bill(
    config: ModelConfig,
    space: SearchSpace,
    hours: float,
    ways: Mapping[str, float],
    clocked: "pd.DataFrame | None" = None,
    images: int = IMAGES,
) -> "pd.DataFrame":
    """What each way to search costs. ways: name -> part of the operations of the shared search.

    Columns: way, part (of the shared search; one by one is above 1), exaflops, factor (one by one over this),
    t4_hours (`hours`, taken as those of one by one, in proportion to operations), core_hours and core_error
    (with `clocked`; one by one in proportion to its operations).
    """
    import pandas as pd

    total = cost.grid_flops(config, space).iloc[-1]
    alone, shared = float(total["one_by_one_gflops"]), float(total["shared_gflops"])
    part = {"one by one": alone / shared, "shared": 1.0, **ways}
    table = pd.DataFrame({"way": list(part), "part": list(part.values())})
    table["exaflops"] = table["part"] * shared * images / 1e9
    table["factor"] = alone / shared / table["part"]
    table["t4_hours"] = hours / table["factor"]
    if clocked is not None:
        units = cost.unit_cost(config, space).to_numpy(dtype=float)
        seconds, error = core_seconds(clocked, units)
        table["core_hours"] = table["part"] * seconds * images / 3600
        table["core_error"] = table["part"] * error * images / 3600
    return table


STUDY = Study(NAME, PROFILE, parts, collect, ("rfdetr.benchmark.flops", "rfdetr.search.grid"))
