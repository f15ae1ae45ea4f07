"""What the paper's protocol on RF100-VL would take on one GPU: operations counted, times and price estimated.

Source: Section 4.2 and Appendix A. Nothing here was run. The operations are those of the networks that this
package builds; how many images a data set has, how fast the device computes and what it costs are stated by
the caller.
"""

from typing import TYPE_CHECKING

from rfdetr.arch import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch, SearchSpace
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.ch04_learning import BACKWARD
from rfdetr.experiments.ch04_share import training_operations
from rfdetr.model.config import ModelConfig
from rfdetr.paper.verdicts import claims

if TYPE_CHECKING:
    import pandas as pd

T4_TFLOPS = 8.0
"""Operations per second that half precision reaches on a T4 in practice, 10^12."""
SIZES = ("nano", "small", "medium")
"""The sizes for which the price is given; all come from one supernet."""
GRIDS = {
    "the printed grid": (TRAINING_GRID, SEARCH_GRID),
    "the grid of the profile t4": (PROFILES["t4"].recipe.training, PROFILES["t4"].recipe.search),
}
"""Training and search grid by name; the largest members of the printed one do not train in a T4's 16 GB."""


def printed_epochs() -> int:
    """Epochs of a training on RF100-VL: implied by the text, not stated as a setting (C049)."""
    return int(claims()["C049"]["values"]["epochs"])


def printed_datasets() -> int:
    """Data sets of RF100-VL (C088)."""
    return int(claims()["C088"]["values"]["datasets"])


def estimate(
    train_images: int, val_images: int, tflops: float, price_per_hour: float, tuned_epochs: int | None = None
) -> "pd.DataFrame":
    """One row per grid and stage: operations (10^15) per data set, hours and price for all data sets.

    train_images, val_images   of a data set, on average
    tflops                     operations per second that the device reaches in practice, 10^12
    tuned_epochs               of every chosen sub-network after the search; default: as many as before
    """
    import pandas as pd

    epochs = printed_epochs()
    rows = []
    for name, (training, search) in GRIDS.items():
        stages = _stages(training, search, train_images, val_images, epochs, tuned_epochs)
        for stage, gflops in stages.items():
            hours = printed_datasets() * gflops / (tflops * 1000) / 3600
            rows.append(
                {
                    "grid": name,
                    "stage": stage,
                    "peta": gflops / 1e6,
                    "hours": hours,
                    "price": hours * price_per_hour,
                }
            )
    table = pd.DataFrame(rows)
    totals = table.groupby("grid", sort=False)[["peta", "hours", "price"]].sum().reset_index()
    return pd.concat([table, totals.assign(stage="all")], ignore_index=True)


def _stages(
    training: SearchSpace,
    search: SearchSpace,
    train_images: int,
    val_images: int,
    epochs: int,
    tuned_epochs: int | None,
) -> dict[str, float]:
    """GFLOPs of each stage on one data set; trainings with all groups of queries."""
    from rfdetr.experiments.ch02_search_space import supernet_config
    from rfdetr.model.config import preset_config
    from rfdetr.search import cost

    config = supernet_config(training)
    step = float(training_operations(config, training.archs(), config.groups).mean()) / 1e9 * (1 + BACKWARD)
    whole = float(cost.grid_flops(supernet_config(search), search)["shared_gflops"].iloc[-1])
    alone = sum(_own_step(preset_config(name), PRESETS[name].arch) for name in SIZES)
    tuned = epochs if tuned_epochs is None else tuned_epochs
    return {
        "training with weight sharing": step * train_images * epochs,
        "search, all sub-networks": whole * val_images,
        f"fine-tuning of {len(SIZES)} sizes": alone * train_images * tuned,
    }


def _own_step(config: ModelConfig, arch: Arch) -> float:
    """GFLOPs of one image's pass forward and back in the training of one architecture."""
    return float(training_operations(config, [arch], config.groups)[0]) / 1e9 * (1 + BACKWARD)
