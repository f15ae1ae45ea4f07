"""Figure 2, followed with one image: shapes of every stage, who attends to whom, class-token copies,
parameters.
"""

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rfdetr.arch import PRESETS, Arch
from rfdetr.benchmark.flops import count, params_by_part
from rfdetr.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from rfdetr.model.detector import RFDETR

APPENDIX_A_WINDOWED = (0, 1, 3, 4, 6, 7, 9, 10)
"""Windowed blocks as Appendix A lists them (claim C115)."""


def trace(model: "RFDETR", images: "Tensor", arch: Arch) -> pd.DataFrame:
    """Shape of every stage of one forward pass, in order, read from the running network.

    images [B, 3, R, R]. Columns: stage, what, shape (as text).
    """
    import torch

    shapes: dict[str, tuple[int, ...]] = {}
    watched = {
        "split": model.projector.split,
        "mix": model.projector.mix,
        **({"decoder": model.decoder.layers[0]} if arch.decoder_layers else {}),
    }
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: shapes.__setitem__(name, tuple(out.shape))
        )
        for name, module in watched.items()
    ]
    try:
        with torch.no_grad():
            tokens = model.backbone.embed(images, arch)
            maps = model.backbone(images, arch)
            output = model(images, arch)
    finally:
        for hook in hooks:
            hook.remove()
    rows = [
        ("input", "image, resized to a square and normalised", tuple(images.shape)),
        (
            "backbone",
            (
                f"{arch.windows**2} windows, each with its own class token and"
                f" {(arch.grid // arch.windows) ** 2} patches"
            ),
            tuple(tokens.shape),
        ),
        *(
            ("backbone", f"feature map after {layer} blocks, windows put back", tuple(feature.shape))
            for layer, feature in zip(model.backbone.feature_layers, maps, strict=True)
        ),
        ("projector", "the maps side by side, through a 1x1 convolution", shapes["split"]),
        ("projector", "three bottlenecks mixed into one map", shapes["mix"]),
        ("selection", "class logits of the kept proposals", tuple(output.encoder.logits.shape)),
        (
            "selection",
            "their boxes, which stay the reference of all decoder layers",
            tuple(output.encoder.boxes.shape),
        ),
    ]
    for number, layer in enumerate(output.layers, 1):
        rows.append(("decoder", f"queries after layer {number}", shapes["decoder"]))
        rows.append(("heads", f"class logits of layer {number}", tuple(layer.logits.shape)))
        rows.append(("heads", f"boxes of layer {number}", tuple(layer.boxes.shape)))
    if output.masks is not None:
        rows.append(("masks", "mask logits of the last layer", tuple(output.masks.shape)))
    return pd.DataFrame(
        [(stage, what, " × ".join(map(str, shape))) for stage, what, shape in rows],
        columns=["stage", "what", "shape"],
    )


def block_table(model: "RFDETR", arch: Arch, seed: int = 0) -> pd.DataFrame:
    """One row per transformer block: its kind by the rule, and what it does, measured.

    Columns: block (0-based), kind, appendix_a (the kind that Appendix A lists), sequence (tokens that attend
    together), pairs (attended pairs of one image), windows_reached (windows whose output moves when one patch
    of the first moves).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    windows, inside = arch.windows**2, 1 + (arch.grid // arch.windows) ** 2
    width = model.config.embed_dim
    tokens = torch.randn(windows, inside, width, generator=generator)
    moved = tokens.clone()
    moved[0, -1] += torch.randn(width, generator=generator)
    rows = []
    for index, block in enumerate(model.backbone.blocks):
        wide = model.backbone.is_global(index)
        merge = windows if wide else 1
        with torch.no_grad():
            change = (block(tokens, merge) - block(moved, merge)).abs().amax(dim=(1, 2))
        sequence = merge * inside
        rows.append(
            {
                "block": index,
                "kind": "global" if wide else "windowed",
                "appendix_a": "windowed" if index in APPENDIX_A_WINDOWED else "global",
                "sequence": sequence,
                "pairs": windows // merge * sequence**2,
                "windows_reached": int((change > 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def attention_mask(arch: Arch, wide: bool) -> np.ndarray:
    """Who may attend to whom: bool [T, T] with T = windows^2 * (1 + tokens of a window), window after window,
    class token first.
    """
    inside = 1 + (arch.grid // arch.windows) ** 2
    window = np.repeat(np.arange(arch.windows**2), inside)
    return np.ones((window.size, window.size), dtype=bool) if wide else window[:, None] == window[None, :]


def class_token_copies(model: "RFDETR", images: "Tensor", arch: Arch) -> pd.DataFrame:
    """How far the class-token copies of one image are apart after each block.

    Columns: after (0 is the embedding), kind of the block, distance: mean distance between two copies,
    divided by their mean length (0 means identical).
    """
    import torch

    rows = []
    with torch.no_grad():
        tokens = model.backbone.embed(images, arch)
        kinds = ["embedding"]
        states = [tokens[:, 0]]
        for index, block in enumerate(model.backbone.blocks):
            wide = model.backbone.is_global(index)
            tokens = block(tokens, merge=arch.windows**2 if wide else 1)
            kinds.append("global" if wide else "windowed")
            states.append(tokens[:, 0])
    for after, (kind, copies) in enumerate(zip(kinds, states, strict=True)):
        pairs = [(a - b).norm() for a, b in itertools.combinations(copies, 2)]
        apart = float(sum(pairs) / len(pairs)) if pairs else 0.0
        rows.append({"after": after, "kind": kind, "distance": apart / float(copies.norm(dim=-1).mean())})
    return pd.DataFrame(rows)


def parameter_table(config: ModelConfig, arch: Arch) -> pd.DataFrame:
    """Parameters by part. Columns: part, params_m (all query groups), deployed_m (the one group of
    inference), share (%).
    """
    everything = params_by_part(config, arch)
    deployed = params_by_part(config, arch, groups=1)
    total = sum(everything.values())
    df = pd.DataFrame(
        {
            "part": list(everything),
            "params_m": [value / 1e6 for value in everything.values()],
            "deployed_m": [deployed[part] / 1e6 for part in everything],
            "share": [100 * value / total for value in everything.values()],
        }
    )
    return df[df.params_m > 0].reset_index(drop=True)


def windowed_blocks_test(name: str = "nano") -> pd.DataFrame:
    """Which list of windowed blocks does the printed GFLOPs number fit? One row per list.

    Columns: blocks (global ones), gflops, printed, difference (%). Source: Table 2 against Appendix A.
    """
    from rfdetr.model.config import preset_config

    preset = PRESETS[name]
    appendix = tuple(sorted(set(range(12)) - set(APPENDIX_A_WINDOWED)))
    rows = []
    for label, features in (("released models", preset.feature_layers), ("Appendix A", appendix)):
        config = preset_config(name, feature_layers=features)
        wide = [block for block in range(config.depth) if block in features]
        gflops = count(config, preset.arch, convention="published").gflops
        rows.append({"list": label, "global_blocks": tuple(wide), "gflops": gflops, "printed": preset.gflops})
    df = pd.DataFrame(rows)
    df["difference"] = 100 * (df.gflops / df.printed - 1)
    return df
