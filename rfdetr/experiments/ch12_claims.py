"""Chapter 12: verdicts on the published configurations that need building and counting."""

from typing import TYPE_CHECKING

from rfdetr.paper.verdicts import Verdict, computed

if TYPE_CHECKING:
    import pandas as pd

PARAMS_M, GFLOPS_PERCENT = 0.1, 1.0
"""Tolerances: tables print one digit of millions; operations within one per cent."""
LIGHT = 0.1
"""Part of a network's parameters up to which a head counts as lightweight."""
_TABLE_2 = ("nano", "small", "medium", "2xlarge")


def _counted(
    counts: "pd.DataFrame", names: tuple[str, ...], params: bool, gflops: bool, latency: bool = False
) -> Verdict:
    """One convention for all rows: attention counted, a plain call of the training code."""
    rows = counts[counts.configuration.isin(names)]
    apart = (rows.params_m - rows.params_printed).abs()
    percent = (100 * (rows.gflops / rows.gflops_printed - 1)).abs()
    good = [len(rows) == len(names)]
    good.append(not params or bool((apart <= PARAMS_M).all()))
    good.append(not gflops or bool((percent <= GFLOPS_PERCENT).all()))
    numbers: dict[str, float] = {"configurations": len(rows)}
    if params:
        numbers["parameters, largest difference, M"] = round(float(apart.max()), 2)
    if gflops:
        numbers["GFLOPs, largest difference, %"] = round(float(percent.max()), 2)
    return Verdict(
        computed(all(good)),
        numbers,
        "Attention counted, a plain call of the training code, for all of them."
        + (" Parameters and GFLOPs; latency was not measured." if latency else ""),
    )


def c014(masks: "pd.DataFrame") -> Verdict:
    """All that segmentation adds is its head, a small part of the parameters.

    masks: from `ch12_configurations.mask_head_cost`.
    """
    detection, segmentation = masks.iloc[0], masks.iloc[1]
    added = float(segmentation.params_m - detection.params_m)
    share = added / float(detection.params_m)
    cost = float(segmentation.gflops / detection.gflops - 1)
    only = abs(added - float(segmentation.mask_head_m)) < 1e-6 and added > 0
    return Verdict(
        computed(only and share <= LIGHT),
        {"parameters added, %": round(100 * share, 1), "operations added, %": round(100 * cost, 1)},
        "The five knobs of seg-medium, without and with masks: all added parameters are the head's."
        " “Lightweight” is taken as at most a tenth of the parameters; of the operations it is more.",
    )


def c032(counts: "pd.DataFrame") -> Verdict:
    """A head on the projector's one map has the printed counts at every segmentation size."""
    names = tuple(name for name in counts.configuration if name.startswith("seg-"))
    found = _counted(counts, names, params=True, gflops=True)
    return Verdict(
        found.verdict if names else "needs the segmentation sizes",
        found.numbers if names else {},
        "Built with a head that reads the projector's single map, every segmentation size has the printed"
        " parameters and GFLOPs. That this was done for latency is the paper's reason.",
    )


def c040(steps: "pd.DataFrame") -> Verdict:
    """The mask head grows with every decoder layer. steps: from `ch12_configurations.decoder_steps`."""
    head = steps[steps.task == "segmentation"].sort_values("decoder_layers").mask_head_m
    return Verdict(
        computed(len(head) > 1 and bool((head.diff().dropna() > 0).all())),
        {"mask head, M": [round(float(v), 2) for v in head]},
        "One block of the head per decoder layer; the printed counts of all segmentation sizes fit it.",
    )


def c044(positions: "pd.DataFrame") -> Verdict:
    """Which position grid the printed parameters of nano hold. positions: from
    `ch12_configurations.position_grids`.
    """
    rows = positions.set_index("grid")
    fits = rows.index[(rows.params_m - rows.printed).abs() <= PARAMS_M].tolist()
    largest, own = int(max(rows.index)), int(min(rows.index))
    return Verdict(
        "reproduced" if largest in fits else "needs the weights of the trained supernet",
        {f"{grid} × {grid} positions, M": round(float(rows.params_m[grid]), 1) for grid in rows.index}
        | {"printed, M": float(rows.printed.iloc[0])},
        f"The printed parameters of nano hold its own {own} × {own} positions, not the {largest} × {largest}"
        " of the grid's corner. What was allocated in training they cannot tell."
        if largest not in fits
        else f"The printed parameters of nano hold {largest} × {largest} positions.",
    )


def c069(counts: "pd.DataFrame") -> Verdict:
    """Parameters of Table 2. counts: from `ch12_configurations.count_table`."""
    return _counted(counts, _TABLE_2, params=True, gflops=False)


def c070(counts: "pd.DataFrame") -> Verdict:
    """GFLOPs of Table 2."""
    return _counted(counts, _TABLE_2, params=False, gflops=True)


def c073(steps: "pd.DataFrame") -> Verdict:
    """Every detection layer from the second on."""
    added = steps[(steps.task == "detection") & (steps.decoder_layers >= 2)].added_m
    return Verdict(
        computed(len(added) and bool(((added - 1.5).abs() < 0.1).all())),
        {"added, M": round(float(added.mean()), 3)},
        "Counted for each layer from the second on.",
    )


def c081(counts: "pd.DataFrame") -> Verdict:
    """Table 3."""
    names = ("seg-nano", "seg-small", "seg-medium", "seg-2xlarge")
    return _counted(counts, names, params=True, gflops=True, latency=True)


def c141(counts: "pd.DataFrame") -> Verdict:
    """Table 12."""
    return _counted(counts, ("large", "xlarge", "max"), params=True, gflops=True, latency=True)


def c176(widths: "pd.DataFrame") -> Verdict:
    """Which widths double with the backbone. widths: from `ch12_configurations.width_table`."""
    ratio = dict(zip(widths.width, (widths.base / widths.small).tolist(), strict=True))
    kept = [name for name, value in ratio.items() if value != 2]
    return Verdict(
        computed(not kept),
        {name: round(value, 2) for name, value in ratio.items()},
        "Widths with which the DINOv2-B sizes have their printed parameters, over those of the DINOv2-S"
        " sizes. " + (f"Not doubled: {', '.join(kept)}." if kept else "All are doubled."),
    )
