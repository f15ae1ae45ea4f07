"""Appendix C, further: operations by kind, the batch, and Table 9 counted again where the packages are."""

from typing import TYPE_CHECKING, Any

from rfdetr.arch import PRESETS
from rfdetr.experiments.ch_c_counting import table_9
from rfdetr.model.config import preset_config
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "aten.convolution": "convolutions",
    "aten.mm": "matrix products",
    "aten.addmm": "matrix products with a bias",
    "aten.bmm": "batched matrix products (attention)",
}
BATCHES = (1, 2, 4, 8)
_MODELS = {"D-FINE": "d-fine-s", "LW-DETR": "lw-detr-s", "YOLOv11": "yolo11-s"}


def _counted(name: str, batch: int) -> tuple[float, dict[str, float]]:
    """GFLOPs of the deployed graph and by operator, on a copy without data, attention written out."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from rfdetr.model.detector import RFDETR

    config, arch = preset_config(name), PRESETS[name].arch
    with torch.device("meta"):
        network = RFDETR(**config.cut_to(arch).to_dict()).eval().requires_grad_(False)
        images = torch.empty(batch, 3, arch.resolution, arch.resolution)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            _ = network(images, arch, every_layer=False).masks
    by_operator = {str(op): flops / 1e9 for op, flops in counter.get_flop_counts()["Global"].items()}
    return counter.get_total_flops() / 1e9, by_operator


def by_operator(name: str = "nano") -> "pd.DataFrame":
    """Operations of the deployed graph by operator. Columns: operator (torch's name), kind, gflops, gmacs,
    share (%).
    """
    import pandas as pd

    total, found = _counted(name, 1)
    rows = [
        (operator, KINDS.get(operator.removesuffix(".default"), ""), gflops, gflops / 2, 100 * gflops / total)
        for operator, gflops in sorted(found.items(), key=lambda pair: -pair[1])
    ]
    return pd.DataFrame(rows, columns=["operator", "kind", "gflops", "gmacs", "share"])


def by_batch(name: str = "nano", batches: tuple[int, ...] = BATCHES) -> "pd.DataFrame":
    """Does the batch explain the factor of two? Columns: batch, gflops, per_image, gmacs_per_image, ratio (of
    the batch's GFLOPs to those of one image).
    """
    import pandas as pd

    counts = [_counted(name, batch)[0] for batch in batches]
    one = counts[0] / batches[0]
    rows = [(b, c, c / b, c / b / 2, c / one) for b, c in zip(batches, counts, strict=True)]
    return pd.DataFrame(rows, columns=["batch", "gflops", "per_image", "gmacs_per_image", "ratio"])


def table_9_again(models: tuple[str, ...] = tuple(_MODELS)) -> "pd.DataFrame":
    """The rows of `ch_c_counting.table_9` for two counters, with the counts made here.

    Columns: model, counter, printed, measured (the record), again (None where the package is not installed).
    """
    import pandas as pd

    nine = table_9()
    nine = nine[nine.model.isin(models) & (nine.counter != "reported")].reset_index(drop=True)
    again = [_again(model, counter) for model, counter in zip(nine.model, nine.counter, strict=True)]
    found = nine[["model", "size", "counter", "printed", "measured"]]
    return found.assign(again=pd.Series(again, dtype=float))


def _again(model: str, counter: str) -> float | None:
    name = _MODELS[model]
    entry = catalogue.named(name)
    if not catalogue.available(entry):
        return None
    from rfdetr.peers import counting

    if counter == "calflops":
        if not counting.has_calflops():
            return None
        return counting.calflops(name, deployed=model == "D-FINE", every_layer=model == "LW-DETR")
    if model == "YOLOv11":
        return counting.recount(name, variants=False)["gflops_with_attention"]
    found: dict[str, Any] = counting.recount(name)["variants"]
    return found["deploy_with_attention" if model == "D-FINE" else "all_layer_heads_with_attention"]
