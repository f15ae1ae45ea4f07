"""Equalities that must hold: published outputs, sub-network and supernet, cut decoder and full decoder."""

import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rfdetr.arch import PRESETS, Arch
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.paper import tables

if TYPE_CHECKING:
    from torch import Tensor

    from rfdetr.model.outputs import Output

LIMIT = 1e-4
"""Largest allowed difference from the references, in double precision."""

MINIATURE = ModelConfig(
    num_classes=10,
    embed_dim=96,
    depth=6,
    heads=3,
    feature_layers=(1, 3, 5, 6),
    position_grid=24,
    hidden_dim=64,
    decoder_layers=4,
    queries=100,
    groups=2,
    self_heads=4,
    cross_heads=8,
    ffn_dim=128,
    segmentation=True,
)
"""A small supernet with every part of the real one."""

MINIATURE_ARCHS = (
    Arch(192, 16, 2, 4, 100),
    Arch(192, 8, 4, 3, 100),
    Arch(160, 10, 1, 2, 50),
    Arch(224, 14, 4, 1, 100),
    Arch(144, 18, 2, 0, 25),
    Arch(256, 32, 1, 4, 64),
)
"""Sub-networks of `MINIATURE` that differ in every knob."""


def reference_folder() -> Path:
    """Folder of the reference outputs, in a checkout and in an installed package."""
    return tables.FOLDER / "parity"


def rule_weights(shapes: dict[str, list[int]]) -> "dict[str, Tensor]":
    """Weights that anyone can repeat: each tensor is drawn from a generator seeded by the CRC of its
    published name.

    Two or more dimensions: normal / sqrt(fan in); scales: 1 + 0.1 normal; everything else: 0.1 normal. Double
    precision.
    """
    import torch

    weights = {}
    for name, shape in shapes.items():
        if 0 in shape:
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        z = torch.randn(shape, generator=generator)
        if len(shape) >= 2:
            z = z / math.sqrt(shape[-1] if len(shape) == 3 else math.prod(shape[1:]))
        else:
            z = 0.1 * z + name.endswith(("weight", "lambda1", "gamma"))
        weights[name] = z.double()
    return weights


def parity(name: str) -> pd.DataFrame:
    """Compare one configuration with the published implementation's outputs; empty if the references are
    absent.

    name: `nano` or `seg-nano`. Columns: configuration, quantity, difference (largest, masks relative to the
    largest reference value), limit.
    """
    import numpy as np
    import torch

    from rfdetr.model.detector import RFDETR
    from rfdetr.model.official import from_published

    columns = ["configuration", "quantity", "difference", "limit"]
    keys, outputs = (reference_folder() / f"{name}.{ending}" for ending in ("keys.json", "npz"))
    if not keys.is_file() or not outputs.is_file():
        return pd.DataFrame(columns=columns)
    config = preset_config(name)
    # Built without data: every weight comes from the rule.
    with torch.device("meta"):
        model = RFDETR(**config.to_dict())
    weights = rule_weights(json.loads(keys.read_text(encoding="utf-8")))
    model.load_state_dict(from_published(weights, config), assign=True)
    model.eval()
    side = PRESETS[name].arch.resolution
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ours = _named_outputs(model(images))
    rows = []
    with np.load(outputs) as reference:
        for quantity in reference.files:
            expected = torch.from_numpy(reference[quantity]).double()
            difference = float((ours[quantity] - expected).abs().max())
            if quantity == "masks":
                difference /= float(expected.abs().max())
            rows.append((name, quantity, difference, LIMIT))
    return pd.DataFrame(rows, columns=columns)


def _named_outputs(output: "Output") -> "dict[str, Tensor]":
    """Our outputs under the names of the reference files."""
    named = {
        "logits": output.logits,
        "boxes": output.boxes,
        "enc_logits": output.encoder.logits,
        "enc_boxes": output.encoder.boxes,
        "projector": output.projector[:, ::16],
    }
    for index, layer in enumerate(output.layers[:-1]):
        named[f"aux{index}_logits"] = layer.logits
        named[f"aux{index}_boxes"] = layer.boxes
    if output.masks is not None:
        named["masks"] = output.masks[:, :8]
    return named


def subnet_equality(
    config: ModelConfig = MINIATURE, archs: tuple[Arch, ...] = MINIATURE_ARCHS, seed: int = 0
) -> pd.DataFrame:
    """`model.subnet(arch)(images)` against `model(images, arch)`, double precision, random weights.

    Columns: the sub-network's id, its parameters in millions, difference (largest over logits, boxes and
    masks).
    """
    import torch

    model = _scrambled(config, seed)
    rows = []
    for arch in archs:
        images = _images(arch, seed)
        with torch.no_grad():
            whole = model(images, arch)
            sub = model.subnet(arch)
            part = sub(images)
        rows.append(
            {
                "arch": arch.id,
                "params_m": sum(p.numel() for p in sub.parameters()) / 1e6,
                "difference": _difference(whole, part),
            }
        )
    return pd.DataFrame(rows)


def cut_decoder(
    config: ModelConfig = MINIATURE, arch: Arch = MINIATURE_ARCHS[0], seed: int = 0
) -> pd.DataFrame:
    """Cut the decoder to 0..max layers and compare with the layers of one full pass, double precision.

    Columns: decoder_layers, params_m of the sub-network, mask_blocks, difference (largest over logits and
    boxes).
    """
    import torch

    model = _scrambled(config, seed)
    images = _images(arch, seed)
    rows = []
    with torch.no_grad():
        full = model(images, arch.replace(decoder_layers=config.decoder_layers))
        for depth in range(config.decoder_layers + 1):
            shallow = arch.replace(decoder_layers=depth)
            cut = model(images, shallow)
            expected = full.layers[depth - 1] if depth else full.encoder
            sub = model.subnet(shallow)
            head = sub.network.mask_head
            rows.append(
                {
                    "decoder_layers": depth,
                    "params_m": sum(p.numel() for p in sub.parameters()) / 1e6,
                    "mask_blocks": len(head.blocks) if head is not None else 0,
                    "difference": max(
                        float((cut.logits - expected.logits).abs().max()),
                        float((cut.boxes - expected.boxes).abs().max()),
                    ),
                }
            )
    return pd.DataFrame(rows)


def _scrambled(config: ModelConfig, seed: int):
    """A supernet in double precision whose weights are all random, so that no zero hides a mistake."""
    import torch

    from rfdetr.model.detector import RFDETR

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RFDETR(**config.to_dict()).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def _images(arch: Arch, seed: int) -> "Tensor":
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, arch.resolution, arch.resolution, generator=generator, dtype=torch.float64)


def _difference(a: "Output", b: "Output") -> float:
    pairs = [(a.logits, b.logits), (a.boxes, b.boxes)]
    if a.masks is not None and b.masks is not None:
        pairs.append((a.masks, b.masks))
    return max(float((x - y).abs().max()) for x, y in pairs)
