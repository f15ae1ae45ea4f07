"""What a search costs, in operations and in seconds: shared prefixes against one sub-network at a time.

Source: Section 3 and Appendix A (6,468 sub-networks, about 10,000 T4 hours one by one). Operations are per
image, as `rfdetr.benchmark.flops` counts them, attention included.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.flops import STAGES, analytic_table
from rfdetr.search.grid import STAGES as CLOCKED
from rfdetr.search.grid import units

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.config import ModelConfig
    from rfdetr.model.detector import RFDETR

ENCODER_STAGES = STAGES[: STAGES.index("selection")]
"""Stages that depend on the encoder triple alone."""
TRIPLE = ["resolution", "patch_size", "windows"]


def unit_flops(network: "RFDETR | ModelConfig", space: SearchSpace | Iterable[Arch]) -> "pd.DataFrame":
    """GFLOPs per image of every work unit (encoder triple), by stage, shared and one by one.

    Columns: resolution, patch_size, windows, stage, subnetworks (different ones in the unit), passes (decoder
    passes), shared_gflops, one_by_one_gflops. One row per unit and stage.
    """
    import pandas as pd

    work = units(space)
    archs = [Arch(*triple, *pair) for triple, pairs in work.items() for pair in pairs]
    alone = analytic_table(network, archs)
    # A shared decoder pass predicts with every layer and with the proposals: the "published" count of heads
    # and masks.
    every = analytic_table(network, archs, convention="published")
    frames = []
    for stage in STAGES:
        column = f"gflops: {stage}"
        single = alone[column].groupby([alone[k] for k in TRIPLE])
        if stage in ENCODER_STAGES:
            shared = single.first()
        elif stage == "selection":
            shared = single.max()
        else:
            source = every if stage in ("heads", "masks") else alone
            # Deepest sub-network of every query count: one pass.
            shared = source.groupby([*TRIPLE, "queries"])[column].max().groupby(TRIPLE).sum()
        counts = alone.groupby(TRIPLE)["queries"].agg(["size", "nunique"])
        frames.append(
            pd.DataFrame(
                {
                    "stage": stage,
                    "subnetworks": counts["size"],
                    "passes": counts["nunique"],
                    "shared_gflops": shared,
                    "one_by_one_gflops": single.sum(),
                }
            ).reset_index()
        )
    order = pd.concat(frames, ignore_index=True)
    return order.sort_values(TRIPLE, kind="stable", ignore_index=True)


def unit_cost(network: "RFDETR | ModelConfig", space: SearchSpace | Iterable[Arch]) -> "pd.Series":
    """Shared GFLOPs per image of every work unit, indexed by (resolution, patch_size, windows): what a search
    pays.
    """
    return unit_flops(network, space).groupby(TRIPLE)["shared_gflops"].sum()


def grid_flops(network: "RFDETR | ModelConfig", space: SearchSpace | Iterable[Arch]) -> "pd.DataFrame":
    """GFLOPs per image of a whole search, by stage and in total.

    Columns: stage, shared_gflops, one_by_one_gflops, ratio (one by one / shared; NaN for a stage that costs
    nothing), share (part of all shared operations). The last row, "total", is the sum. Equal sub-networks
    count once on both sides.
    """
    import pandas as pd

    by_stage = (
        unit_flops(network, space).groupby("stage", sort=False)[["shared_gflops", "one_by_one_gflops"]].sum()
    )
    table = pd.concat([by_stage, by_stage.sum().to_frame("total").T]).rename_axis("stage").reset_index()
    shared = table["shared_gflops"]
    table["ratio"] = table["one_by_one_gflops"] / shared.where(shared > 0)
    table["share"] = shared / shared.iloc[-1]
    return table


def grid_seconds(
    network: "RFDETR | ModelConfig",
    space: SearchSpace,
    seconds: Mapping[str, float],
    evaluation_alone: float | None = None,
) -> "pd.DataFrame":
    """Measured seconds of a shared search by stage, beside an estimate of the same work one by one.

    seconds           `evaluate_grid(...).attrs["seconds"]`
    evaluation_alone  measured seconds of one sub-network's evaluation by pycocotools; None: as fast as here

    The estimate reads pictures once per sub-network and scales encoder and decoder by their operations. It is
    no measurement; `benchmarks/bench_grid.py` measures both sides on a part of the grid.
    Columns: stage, shared_seconds, one_by_one_seconds, ratio, share.
    """
    import pandas as pd

    flops = unit_flops(network, space)
    subnetworks = len(space.distinct())
    encoder = flops["stage"].isin(ENCODER_STAGES)
    factor = {"images": subnetworks / len(space.triples()), "detections": 1.0, "evaluation": 1.0}
    for stage, rows in (("encoder", flops[encoder]), ("decoder", flops[~encoder])):
        factor[stage] = rows["one_by_one_gflops"].sum() / rows["shared_gflops"].sum()
    alone = {stage: seconds[stage] * factor[stage] for stage in CLOCKED}
    if evaluation_alone is not None:
        alone["evaluation"] = evaluation_alone * subnetworks
    table = pd.DataFrame(
        {
            "stage": [*CLOCKED, "total"],
            "shared_seconds": [*(seconds[s] for s in CLOCKED), sum(seconds[s] for s in CLOCKED)],
            "one_by_one_seconds": [*(alone[s] for s in CLOCKED), sum(alone.values())],
        }
    )
    shared = table["shared_seconds"]
    table["ratio"] = table["one_by_one_seconds"] / shared.where(shared > 0)
    table["share"] = shared / shared.iloc[-1] if shared.iloc[-1] else np.nan
    return table
