"""The picture with which the book opens."""

from typing import TYPE_CHECKING

from rfdetr.plots.pictures import draw_found
from rfdetr.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rfdetr.experiments.front_page import FrontPage


def front_page(page: "FrontPage") -> "Figure":
    """Above, every sub-network as a dot, the front as a line and three networks of it numbered; below, one
    scene with what each of them detects: right blue, wrong orange.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(7.2, 5.6), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(1.15, 1), squeeze=False)
    axis = parts[0, 0].subplots()
    axis.scatter(page.table.gflops, page.table.AP, s=2, color="#B9C6D1", linewidths=0, rasterized=True)
    best = page.best.sort_values("gflops")
    axis.step(best.gflops, best.AP, where="post", color=COLOURS[0])
    axis.set(xscale="log", xlabel="GFLOPs", ylabel="AP", ylim=(0, None))
    axis.xaxis.set_major_formatter("{x:g}")
    words = f"{len(page.table):,} sub-networks, one training"
    axis.text(0.985, 0.05, words, transform=axis.transAxes, ha="right", color="#555555")
    panels = parts[1, 0].subplots(1, len(page.chosen))
    for number, (panel, found) in enumerate(zip(panels, page.found, strict=True)):
        row = page.chosen.iloc[number]
        label = {"fontsize": 9, "color": "white", "ha": "center", "va": "center", "weight": "bold"}
        circle = {"boxstyle": "circle,pad=0.25", "facecolor": COLOURS[1], "edgecolor": "white"}
        axis.text(row.gflops, row.AP, str(number + 1), bbox=circle, zorder=5, **label)
        draw_found(panel, page.pixels, page.target, found)
        text = f"{number + 1}   {row.gflops:.2g} GFLOPs, AP {row.AP:.2f}\n{row.resolution:.0f} px,"
        text += f" patch {row.patch_size:.0f}, {row.windows:.0f} × {row.windows:.0f} windows,\n"
        text += f"{row.decoder_layers:.0f} decoder layers, {row.queries:.0f} queries"
        panel.set_title(text, fontsize=8)
    return figure
