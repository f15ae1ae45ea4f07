"""Figures of the chapters that count: conventions, ablation steps, families, recipe curves."""

from typing import Any

import pandas as pd

from rfdetr.plots.style import COLOURS, PUBLISHED


def conventions(df: pd.DataFrame) -> Any:
    """One network under five conventions, beside the print. df: from `experiments.counting.conventions`."""
    import matplotlib.pyplot as plt

    columns = {
        "published": "plain call",
        "deployed": "deployed",
        "published_no_attention": "plain call, no attention",
        "deployed_no_attention": "deployed, no attention",
        "gmacs": "multiply-accumulates (deployed)",
    }
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    width = 0.8 / len(columns)
    for i, (column, label) in enumerate(columns.items()):
        positions = [n + (i - 2) * width for n in range(len(df))]
        axes.bar(positions, df[column], width=width, color=COLOURS[i], label=label)
    for n, printed in enumerate(df.printed):
        axes.hlines(
            printed,
            n - 0.45,
            n + 0.45,
            color=PUBLISHED,
            linewidth=1.2,
            label="printed" if n == 0 else "_printed",
        )
    axes.set(xticks=range(len(df)), xticklabels=df.configuration, ylabel="G")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def ablation(df: pd.DataFrame) -> Any:
    """GFLOPs along the steps of Table 5: printed, and counted with and without attention. df: from
    `step_counts`.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    axes.plot(df.step, df.gflops, marker="o", color=COLOURS[0], label="attention counted")
    axes.plot(df.step, df.gflops_no_attention, marker="s", color=COLOURS[1], label="attention left out")
    axes.plot(
        df.step,
        df.gflops_printed,
        marker="x",
        linestyle="none",
        markersize=9,
        color=PUBLISHED,
        label="Table 5",
    )
    short = [label.lstrip("+# ").replace("Additional ", "").split(",")[0] for label in df.label]
    axes.set(ylabel="GFLOPs", ylim=(0, None))
    axes.set_xticks(list(df.step), short, rotation=35, ha="right", fontsize=8)
    axes.legend()
    return figure


def families(df: pd.DataFrame) -> Any:
    """Printed AP against GFLOPs on one convention (filled) and as printed (hollow), one colour per family."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    built = df.dropna(subset=["gflops"])
    for colour, (family, part) in zip(COLOURS, built.groupby("family", sort=False), strict=False):
        part = part.sort_values("gflops")
        axes.plot(part.gflops, part.ap, marker="o", color=colour, label=family)
        moved = part[(part.gflops / part.gflops_printed - 1).abs() > 0.02]
        axes.scatter(moved.gflops_printed, moved.ap, facecolors="none", edgecolors=colour, zorder=3)
        axes.hlines(moved.ap, moved.gflops, moved.gflops_printed, color=colour, linewidth=0.8, linestyle=":")
    axes.set(
        xscale="log",
        xlabel="GFLOPs, attention counted, deployed graph",
        ylabel="COCO AP as printed, not from 0",
    )
    axes.legend(fontsize=9)
    return figure


def over_latency(df: pd.DataFrame, data: str = "COCO") -> Any:
    """Printed AP on `data` against printed latency, one line per family. df: family, size, latency_ms, ap."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    for colour, (family, part) in zip(COLOURS, df.groupby("family", sort=False), strict=False):
        part = part.sort_values("latency_ms")
        axes.plot(part.latency_ms, part.ap, marker="o", color=colour, label=family)
        for size, ms, ap in zip(part["size"], part.latency_ms, part.ap, strict=True):
            axes.annotate(size, (ms, ap), xytext=(3, -11), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="latency (ms, as printed)", ylabel=f"{data} AP (as printed)")
    axes.set_xticks([2, 3, 5, 10, 20, 50, 100], ["2", "3", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend(fontsize=9)
    return figure


def miniature(front: pd.DataFrame, family: pd.DataFrame) -> Any:
    """AP against predicted latency: a front, and one architecture at every resolution (both with AP and
    predicted_ms).
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    axes.step(front.predicted_ms, front.AP, where="post", color=COLOURS[1], label="the search's front")
    axes.plot(family.predicted_ms, family.AP, marker="o", color=COLOURS[0], label="one network, scaled")
    for row in family.iloc[[0, len(family) // 2, len(family) - 1]].itertuples():
        place = (row.predicted_ms, row.AP)
        axes.annotate(f"{row.resolution} px", place, xytext=(0, -14), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="latency (ms, one thread)", ylabel="AP on embedded validation scenes")
    # Where both are; the front begins far to the left and below.
    axes.set(xlim=(family.predicted_ms.min() / 2, None), ylim=(family.AP.min() - 0.25, None))
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.legend(fontsize=9)
    return figure


def mask_front(table: pd.DataFrame, front: pd.DataFrame, depths: pd.DataFrame) -> Any:
    """Left: mask AP of every sub-network over its operations, and the front. Right: AP of boxes and masks
    over the decoder's depth. table, front, depths: of `ch08_miniature.Segmented`.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.6))
    for colour, (depth, part) in zip(COLOURS, table.groupby("decoder_layers"), strict=False):
        left.plot(part.gflops, part.mask_AP, ".", color=colour, markersize=5, label=str(depth))
    left.step(front.gflops, front.mask_AP, where="post", color=PUBLISHED, linewidth=1)
    left.set(xscale="log", xlabel="GFLOPs", ylabel="mask AP, embedded scenes", ylim=(0, None))
    shown = [
        x for x in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if front.gflops.min() / 2 < x < table.gflops.max() * 2
    ]
    left.set_xticks(shown, [f"{x:g}" for x in shown])
    left.minorticks_off()
    left.legend(title="decoder layers", fontsize=8, title_fontsize=8, ncols=2)
    for colour, metric, name in ((COLOURS[0], "AP", "boxes"), (COLOURS[1], "mask_AP", "masks")):
        right.plot(depths.decoder_layers, depths[metric], "o-", color=colour, label=name)
    right.set(xlabel="decoder layers of one network", ylabel="AP", ylim=(0, None))
    right.set_xticks(list(depths.decoder_layers))
    right.legend(fontsize=9)
    return figure


def learning_rates(df: pd.DataFrame) -> Any:
    """Learning rate from input to output. df: from `experiments.recipe.learning_rates`."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    backbone = df.part.str.startswith(("block", "embeddings", "final"))
    for part, colour, label in ((df[backbone], COLOURS[0], "backbone"), (df[~backbone], COLOURS[1], "rest")):
        axes.plot(part.order, part.lr, "o", color=colour, label=label)
    axes.set(yscale="log", ylabel="learning rate")
    axes.set_xticks(list(df.order), list(df.part), rotation=60, ha="right", fontsize=8)
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def averaging(df: pd.DataFrame) -> Any:
    """The averaging decay and what it leaves of the initial weights. df: from
    `experiments.recipe.averaging`.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.0))
    left.plot(df["update"], df.decay)
    left.set(xlabel="update", ylabel="decay", ylim=(0, 1.02))
    right.plot(df["update"], df.start_constant, color=COLOURS[1], label="constant decay")
    right.plot(df["update"], df.start, color=COLOURS[0], label="growing decay")
    right.set(xlabel="update", ylabel="initial weights left", xlim=(0, 600))
    right.legend()
    return figure
