"""Public DINOv2 weights as the start of a supernet's backbone.

Source: Section 3 and Appendix L of the paper; the public ViT-S and ViT-B (patch 14, positions of 518 px). The
kernel is resized with the pseudo-inverse, the position grid bicubically, to whatever the network stores.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rfdetr.errors import UserError
from rfdetr.model.checkpoint_files import read_tensors, unwrap
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR
from rfdetr.model.downloads import fetch, verify
from rfdetr.model.flex import resize_kernel, resize_positions
from rfdetr.model.load_report import LoadReport

_ANCHORS = ("blocks.", "cls_token", "embeddings.", "encoder.")
_UNUSED = {
    "mask_token": "used in DINOv2's pre-training only",
    "embeddings.mask_token": "used in DINOv2's pre-training only",
}


def load_dinov2(
    model: RFDETR,
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    checksum: str | None = None,
) -> LoadReport:
    """Copy DINOv2's weights into the backbone of `model`, in place; everything else is left as it is.

    source: path of a `.pth` or `.safetensors` file or a state dict, in the layout of the original repository
    (`blocks.0.attn.qkv.weight`) or of Transformers (`encoder.layer.0.attention...`, as saved or as in
    memory); None downloads the public file for the network's width. checksum: "md5:..." or "sha256:..." of a
    given file.

    Returns what became of every tensor of the file, and which parts of the network stayed at their initial
    values. Raises UserError when the widths or depths differ or a tensor has no explanation; `model` is then
    unchanged.
    """
    config = model.config
    if source is None:
        widths = {384: "dinov2-s", 768: "dinov2-b"}
        if config.embed_dim not in widths:
            raise UserError(
                f"there is no public DINOv2 of width {config.embed_dim}; build the network with embed_dim 384"
                " or 768"
            )
        source = fetch("dinov2", widths[config.embed_dim])
    elif checksum is not None:
        verify(source, checksum)
    state, name, others = read_tensors(source)
    state = {key.removeprefix("dinov2."): value for key, value in unwrap(state, _ANCHORS).items()}
    layout = _layout(state)
    report = LoadReport(name, f"DINOv2 {layout}")
    report.note_others(others)

    backbone = model.backbone.state_dict()
    tensors: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, keys in _names(config, layout):
        missing = [key for key in keys if key not in state]
        if missing:
            raise UserError(
                f"{name} is no DINOv2 checkpoint with {config.depth} blocks: {missing[0]} is missing;"
                " expected the layout of the original repository or of Transformers, without register tokens"
            )
        used.update(keys)
        value = torch.cat([state[key] for key in keys]) if len(keys) > 1 else state[keys[0]]
        value, change = _fit(ours, value, config)
        if value.shape != backbone[ours].shape:
            raise UserError(
                f"{name} does not fit this network: {keys[0]} {list(state[keys[0]].shape)} would give"
                f" {list(value.shape)} for backbone.{ours}, expected {list(backbone[ours].shape)}; use the"
                f" DINOv2 of width {config.embed_dim}"
            )
        tensors[ours] = value
        report.add("resized" if change else "loaded", keys, f"backbone.{ours}", change)
    unknown = sorted(set(state) - used - set(_UNUSED))
    if unknown:
        raise UserError(
            f"{name} holds {len(unknown)} tensors without a place here, first {unknown[0]}: register tokens,"
            " another depth or another network"
        )
    for key in sorted(set(state) & set(_UNUSED)):
        report.add("dropped", [key], reason=_UNUSED[key])
    rest = [key for key in model.state_dict() if not key.startswith("backbone.")]
    report.add("initialised", rest, reason="not part of DINOv2, left at its initial value")
    model.backbone.load_state_dict(tensors)
    model.load_report = report
    return report


def _fit(ours: str, value: Tensor, config: ModelConfig) -> tuple[Tensor, str]:
    """The tensor at the size that the network stores, and what was done to it."""
    value = value.to(torch.float64 if value.dtype == torch.float64 else torch.float32)
    if ours == "patch_kernel" and value.shape[-1] != config.base_patch:
        return (
            resize_kernel(value, config.base_patch),
            f"pseudo-inverse resize of the patch kernel, {value.shape[-1]} to {config.base_patch} px",
        )
    if ours == "positions":
        side = round((value.shape[1] - 1) ** 0.5)
        if side != config.position_grid:
            return (
                resize_positions(value, config.position_grid),
                f"bicubic resize of the position grid, {side} to {config.position_grid} per side",
            )
    return value, ""


def _layout(state: Mapping[str, Tensor]) -> str:
    """Which names a state dict has; the Transformers package saves other ones than its classes have in
    memory.
    """
    if "pos_embed" in state:
        return "original"
    return "Transformers in memory" if any(".q_proj." in key for key in state) else "Transformers"


# Layout -> names of (query, key, value), or of all three fused, and of the output projection, inside a block.
_ATTENTION = {
    "original": (("attn.qkv",), "attn.proj"),
    "Transformers": (
        tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
    ),
    "Transformers in memory": (tuple(f"attention.{letter}_proj" for letter in "qkv"), "attention.o_proj"),
}


def _names(config: ModelConfig, layout: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our name inside the backbone, names in the file that are joined along the first dimension)."""
    original = layout == "original"
    head = "" if original else "embeddings."
    projection = "patch_embed.proj" if original else "embeddings.patch_embeddings.projection"
    joined, output = _ATTENTION[layout]
    yield "class_token", (head + "cls_token",)
    yield "positions", ("pos_embed" if original else "embeddings.position_embeddings",)
    yield "patch_kernel", (projection + ".weight",)
    yield "patch_bias", (projection + ".bias",)
    for i in range(config.depth):
        ours = f"blocks.{i}."
        theirs = f"blocks.{i}." if original else f"encoder.layer.{i}."
        for part in ("weight", "bias"):
            yield f"{ours}attention.qkv.{part}", tuple(f"{theirs}{name}.{part}" for name in joined)
            yield f"{ours}attention.proj.{part}", (f"{theirs}{output}.{part}",)
            for name in ("norm1", "norm2", "fc1", "fc2"):
                inside = f"mlp.{name}" if name.startswith("fc") else name
                yield f"{ours}{name}.{part}", (f"{theirs}{inside}.{part}",)
        for number in (1, 2):
            scale = f"ls{number}.gamma" if original else f"layer_scale{number}.lambda1"
            yield f"{ours}scale{number}", (theirs + scale,)
    for part in ("weight", "bias"):
        yield f"norm.{part}", (("norm." if original else "layernorm.") + part,)
