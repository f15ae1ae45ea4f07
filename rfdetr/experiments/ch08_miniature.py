"""Tables 3 and 13 in miniature: mask AP over cost of every sub-network of one segmenter, and what the
decoder's depth does for masks.

The kept network of chapter 05 gets a mask head and is trained further, all of it, with weight sharing, on
embedded scenes of large digits: masks lie on a grid of a quarter of the picture's side, on which the
strokes of small digits are narrower than a cell.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.scenes import Scenes, scenes
from rfdetr.errors import UserError
from rfdetr.experiments.base import fitting, kept
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.parts import Place
from rfdetr.experiments.base.profiles import PROFILES, Profile
from rfdetr.experiments.ch05_search import spread_rows
from rfdetr.files import sha256_file
from rfdetr.model.weights import with_mask_head
from rfdetr.search.grid import GridEvaluator, evaluate_grid
from rfdetr.search.pareto import front

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

SOURCE = "full-search"
DOMAIN, CANVAS = "giants", 96
MODULES = (*fitting.MODULES, "rfdetr.search.grid", "rfdetr.search.intervals")
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    steps, batch_size   of the training, on `train` scenes
    training, search    what a step draws from, and what is tested on `val` scenes
    reference           the network whose decoder is cut
    timed               networks of the front whose files are timed
    """

    steps: int
    batch_size: int
    train: int
    val: int
    training: SearchSpace
    search: SearchSpace
    reference: Arch
    timed: int


_CPU = Sizes(
    260,
    8,
    4000,
    120,
    SearchSpace((64, 96, 128), (8, 12, 16), (1, 2), (6,), (30,)),
    SearchSpace((64, 96, 128), (8, 12, 16), (1, 2), (0, 1, 2, 3, 4, 6), (10, 30)),
    Arch(96, 8, 1, 6, 30),
    6,
)
_SMOKE = Sizes(
    2,
    2,
    8,
    6,
    SearchSpace((64,), (16,), (1,), (6,), (16,)),
    SearchSpace((64, 96), (16,), (1,), (0, 3, 6), (16,)),
    Arch(64, 16, 1, 6, 16),
    2,
)
SIZES = {"cpu": _CPU, "smoke": _SMOKE}
"""By profile; other profiles take that of cpu."""


@dataclass(frozen=True)
class Segmented:
    """table: one row per sub-network: knobs, arch, AP, mask_AP, gflops, masks_share (% of the operations that
    are the mask head's), latency_ms (NaN where it was not timed). depths: see `_depths`. seconds: of the
    training.
    """

    table: "pd.DataFrame"
    depths: "pd.DataFrame"
    seconds: float

    @property
    def front(self) -> "pd.DataFrame":
        """The sub-networks on the front of mask AP over operations, cheapest first."""
        return front(self.table, "mask_AP", "gflops")


def segmented(profile: Profile, seed: int, store: Store) -> Segmented | None:
    """Train, test and time once per profile and seed; None where the kept search is not in this copy."""
    import pandas as pd

    try:
        base = kept.load(SOURCE)
    except UserError:
        return None
    sizes = SIZES.get(profile.name, _CPU)
    recipe = _recipe(sizes, seed)

    def build(work: Path) -> None:
        model, seconds = _trained(work, base.network(), sizes, recipe, seed)
        val = scenes(DOMAIN, "val", size=sizes.val, canvas=CANVAS)
        table = _tested(model, val, sizes)
        table.to_csv(work / "table.csv", index=False)
        _depths(model, val, sizes).to_csv(work / "depths.csv", index=False)
        (work / "about.json").write_text(json.dumps({"seconds": seconds}))

    key = {
        "base": sha256_file(base.folder / "network.safetensors"),
        "data": [scenes(DOMAIN, s, canvas=CANVAS).fingerprint for s in ("train", "val")],
        "sizes": json.loads(json.dumps(asdict(sizes))),
        "recipe": json.loads(json.dumps(recipe)),
    }
    folder = store.artifact("mask-front", key, build, MODULES)
    about = json.loads((folder / "about.json").read_text())
    return Segmented(
        pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "depths.csv"), float(about["seconds"])
    )


def _recipe(sizes: Sizes, seed: int) -> dict[str, Any]:
    changes = {
        "steps": sizes.steps,
        "warmup_steps": max(1, sizes.steps // 10),
        "batch_size": sizes.batch_size,
    }
    return {**PROFILES["cpu"].recipe.train, **changes, "seed": seed}


def _trained(
    work: Path, base: "RFDETR", sizes: Sizes, recipe: dict[str, Any], seed: int
) -> "tuple[RFDETR, float]":
    import torch

    torch.manual_seed(seed)
    start, _ = with_mask_head(base)
    train = scenes(DOMAIN, "train", size=sizes.train, canvas=CANVAS)
    place = Place(work, "masks", fitting.fastest_device())
    model, log = fitting.fit(place, start, train, sizes.training, recipe)
    return model, fitting.about(log)["seconds"]


def _tested(model: "RFDETR", val: Scenes, sizes: Sizes) -> "pd.DataFrame":
    """Every sub-network once, and the time of some of the front, in turns, in ONNX Runtime on one thread."""
    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.benchmark.subnetworks import measure_latency

    table = evaluate_grid(model, val, sizes.search, masks=True).drop_duplicates(list(Arch.KNOBS))
    archs = [Arch(*map(int, row)) for row in table[list(Arch.KNOBS)].to_numpy()]
    counted = analytic_table(model, archs)
    table = table[[*Arch.KNOBS, "AP", "mask_AP"]].reset_index(drop=True)
    table = table.assign(
        arch=[arch.id for arch in archs],
        gflops=counted["gflops"],
        masks_share=100 * counted["gflops: masks"] / counted["gflops"],
    )
    chosen = spread_rows(front(table, "mask_AP", "gflops"), sizes.timed)
    timed = measure_latency(model, [Arch.parse(name) for name in chosen["arch"]], rounds=3)
    return table.merge(timed[["arch", "latency_ms"]], on="arch", how="left")


def _depths(model: "RFDETR", val: Scenes, sizes: Sizes) -> "pd.DataFrame":
    """The reference network with its decoder cut, one row per depth.

    Columns: decoder_layers, and for boxes (AP) and masks (mask_AP): the accuracy, `<...> gain` over one depth
    less in the table, `<...> low` and `<...> high` (95 % over the same resampled scenes).
    """
    import pandas as pd

    from rfdetr.search.intervals import resampled_ap

    evaluator = GridEvaluator(model, val, masks=True)
    depths = sorted(sizes.search.decoder_layers)
    archs = [model.resolve(sizes.reference.replace(decoder_layers=depth)) for depth in depths]
    whole = evaluator.unit(archs[0].encoder, [(arch.decoder_layers, arch.queries) for arch in archs])
    numbers = {tuple(pair): row for pair, row in zip(whole["pairs"], whole["rows"], strict=True)}
    rows: list[dict[str, Any]] = [{"decoder_layers": depth} for depth in depths]
    for metric in ("AP", "mask_AP"):
        samples = resampled_ap(evaluator, archs, metric)
        for place, (row, arch) in enumerate(zip(rows, archs, strict=True)):
            row[metric] = numbers[(arch.decoder_layers, arch.queries)][metric]
            before = archs[place - 1] if place else None
            apart = samples[arch] - samples[before] if before else np.full(1, np.nan)
            low, high = np.nanquantile(apart, _TAILS) if np.isfinite(apart).any() else (np.nan, np.nan)
            gain = row[metric] - rows[place - 1][metric] if place else np.nan
            row |= {f"{metric} gain": gain, f"{metric} low": low, f"{metric} high": high}
    return pd.DataFrame(rows)


def depth_said(depths: "pd.DataFrame") -> str:
    """Up to which depth boxes and masks gain beyond the interval, in a sentence."""
    words = []
    for metric, name in (("AP", "boxes"), ("mask_AP", "masks")):
        sure = depths.decoder_layers[depths[f"{metric} low"] > 0]
        lost = depths.decoder_layers[depths[f"{metric} high"] < 0]
        if sure.empty:
            text = f"for {name} no step gains beyond its interval"
        else:
            text = f"for {name} the last step that gains beyond its interval ends at layer {int(sure.max())}"
        if len(lost):
            text += f", and the step to {', '.join(str(int(depth)) for depth in lost)} loses"
        words.append(text)
    return f"{words[0][0].upper()}{words[0][1:]}; {words[1]}."
