"""Tensor names of the published checkpoints, and what each becomes here.

Source: the published state dicts (names and shapes in paper/parity/*.keys.json) and the state dicts of the
Transformers package's classes for the same model, which are renamed to the published names first.
"""

import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rfdetr.model.config import ModelConfig

ENCODER = "backbone.0.encoder.encoder."
PROJECTOR = "backbone.0.projector.stages.0."
MASK_TOKEN = ENCODER + "embeddings.mask_token"


def _flat_groups(t: Tensor, config: ModelConfig) -> Tensor:
    return t.unflatten(0, (config.groups, -1))


def names(config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(our name, published names, how to join them); how is "same", "rows", "stack", "groups" or "table"."""

    def pair(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
        for part in ("weight", "bias"):
            yield f"{ours}.{part}", (f"{theirs}.{part}",), "same"

    embeddings = ENCODER + "embeddings."
    yield "backbone.class_token", (embeddings + "cls_token",), "same"
    yield "backbone.positions", (embeddings + "position_embeddings",), "same"
    yield "backbone.patch_kernel", (embeddings + "patch_embeddings.projection.weight",), "same"
    yield "backbone.patch_bias", (embeddings + "patch_embeddings.projection.bias",), "same"
    for i in range(config.depth):
        ours, theirs = f"backbone.blocks.{i}.", f"{ENCODER}encoder.layer.{i}."
        attention = theirs + "attention.attention."
        for part in ("weight", "bias"):
            yield (
                f"{ours}attention.qkv.{part}",
                tuple(f"{attention}{n}.{part}" for n in ("query", "key", "value")),
                "rows",
            )
        yield from pair(ours + "attention.proj", theirs + "attention.output.dense")
        yield ours + "scale1", (theirs + "layer_scale1.lambda1",), "same"
        yield ours + "scale2", (theirs + "layer_scale2.lambda1",), "same"
        for name, published in (
            ("norm1", "norm1"),
            ("norm2", "norm2"),
            ("fc1", "mlp.fc1"),
            ("fc2", "mlp.fc2"),
        ):
            yield from pair(ours + name, theirs + published)
    yield from pair("backbone.norm", ENCODER + "layernorm")

    def conv(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
        yield ours + ".conv.weight", (theirs + ".conv.weight",), "same"
        yield from pair(ours + ".norm", theirs + ".bn")

    yield from conv("projector.split", PROJECTOR + "0.cv1")
    yield from conv("projector.mix", PROJECTOR + "0.cv2")
    for i in range(3):
        for j in range(2):
            yield from conv(f"projector.bottlenecks.{i}.{j}", f"{PROJECTOR}0.m.{i}.cv{j + 1}")
    yield from pair("projector.norm", PROJECTOR + "1")

    def groups(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
        for part in ("weight", "bias"):
            yield f"{ours}.{part}", tuple(f"{theirs.format(g)}.{part}" for g in range(config.groups)), "stack"

    yield from groups("selection.projection", "transformer.enc_output.{}")
    yield from groups("selection.norm", "transformer.enc_output_norm.{}")
    yield from groups("selection.classes", "transformer.enc_out_class_embed.{}")
    for i in range(3):
        yield from groups(f"selection.boxes.{i}", f"transformer.enc_out_bbox_embed.{{}}.layers.{i}")
    if config.decoder_layers:
        yield "query_features", ("query_feat.weight",), "groups"
        yield "reference_deltas", ("refpoint_embed.weight",), "groups"
        yield from pair("class_head", "class_embed")
        for i in range(3):
            yield from pair(f"box_head.layers.{i}", f"bbox_embed.layers.{i}")
        yield from pair("decoder.norm", "transformer.decoder.norm")
        for i in range(2):
            yield from pair(f"decoder.position.layers.{i}", f"transformer.decoder.ref_point_head.layers.{i}")
    for i in range(config.decoder_layers):
        ours, theirs = f"decoder.layers.{i}.", f"transformer.decoder.layers.{i}."
        yield ours + "self_attention.in_weight", (theirs + "self_attn.in_proj_weight",), "same"
        yield ours + "self_attention.in_bias", (theirs + "self_attn.in_proj_bias",), "same"
        for name, published in (
            ("self_attention.output", "self_attn.out_proj"),
            ("norm1", "norm1"),
            ("cross_attention.offsets", "cross_attn.sampling_offsets"),
            ("cross_attention.weights", "cross_attn.attention_weights"),
            ("cross_attention.value", "cross_attn.value_proj"),
            ("cross_attention.output", "cross_attn.output_proj"),
            ("norm2", "norm2"),
            ("fc1", "linear1"),
            ("fc2", "linear2"),
            ("norm3", "norm3"),
        ):
            yield from pair(ours + name, theirs + published)
    if config.segmentation:
        head = "segmentation_head."
        yield "mask_head.bias", (head + "bias",), "same"
        for i in range(config.decoder_layers):
            for name, published in (("depthwise", "dwconv"), ("norm", "norm"), ("pointwise", "pwconv1")):
                yield from pair(f"mask_head.blocks.{i}.{name}", f"{head}blocks.{i}.{published}")
        if config.decoder_layers:
            yield from pair("mask_head.pixel", head + "spatial_features_proj")
        yield from pair("mask_head.norm", head + "query_features_block.norm_in")
        yield from pair("mask_head.fc1", head + "query_features_block.layers.0")
        yield from pair("mask_head.fc2", head + "query_features_block.layers.2")
        yield from pair("mask_head.query", head + "query_features_proj")


JOIN: dict[str, Callable[[list[Tensor], ModelConfig], Tensor]] = {
    "same": lambda parts, config: parts[0],
    "rows": lambda parts, config: torch.cat(parts),
    "stack": lambda parts, config: torch.stack(parts),
    "groups": lambda parts, config: _flat_groups(parts[0], config),
}


SPLIT: dict[str, Callable[[Tensor, int], list[Tensor]]] = {
    "same": lambda tensor, count: [tensor],
    "rows": lambda tensor, count: list(tensor.chunk(count)),
    "stack": lambda tensor, count: list(tensor.unbind()),
    "groups": lambda tensor, count: [tensor.flatten(0, 1)],
}
"""The inverse of `JOIN`: a tensor of ours into the `count` published ones that it is made of."""


def to_published(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict, of a network of exactly these sizes, under the published names (see
    `from_published`).
    """
    found: dict[str, Tensor] = {}
    for ours, published, how in names(config):
        parts = SPLIT[how](state[ours], len(published))
        found |= {name: part.contiguous() for name, part in zip(published, parts, strict=True)}
    return found


def from_published(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A published state dict in our names and shapes, for a network of exactly these sizes.

    Raises KeyError naming a published tensor that is missing.
    """
    return {
        ours: JOIN[how]([state[name] for name in published], config) for ours, published, how in names(config)
    }


def published_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our tensor name -> the published tensors that it is made of, in order."""
    return {ours: published for ours, published, _ in names(config)}


UNUSED = {
    "_kp_active_mask": "empty placeholder of a key-point head",
    MASK_TOKEN: "used in DINOv2's pre-training only",
}
"""Published tensors that no prediction needs -> why they are dropped."""

# Names of the Transformers classes in memory; their saved files have the published names already.
_TRANSFORMERS = [
    (r"model\.backbone\.backbone\.(.*)", ENCODER + r"\1"),
    (r"(.*\.encoder\.layer\.\d+\.attention)\.o_proj\.(\w+)", r"\1.output.dense.\2"),
    (r"model\.backbone\.projector\.projector_layer\.conv(\d)\.(.*)", PROJECTOR + r"0.cv\1.\2"),
    (
        r"model\.backbone\.projector\.projector_layer\.bottlenecks\.(\d)\.conv(\d)\.(.*)",
        PROJECTOR + r"0.m.\1.cv\2.\3",
    ),
    (r"(backbone\.0\.projector\..*)\.norm\.(\w+)", r"\1.bn.\2"),
    (r"model\.backbone\.projector\.layer_norm\.(\w+)", PROJECTOR + r"1.\1"),
    (r"model\.reference_point_embed\.weight", "refpoint_embed.weight"),
    (r"model\.query_feat\.weight", "query_feat.weight"),
    (r"model\.decoder\.layernorm\.(\w+)", r"transformer.decoder.norm.\1"),
    (
        r"model\.(decoder|enc_output|enc_output_norm|enc_out_bbox_embed|enc_out_class_embed)\.(.*)",
        r"transformer.\1.\2",
    ),
    (r"(.*\.self_attn)\.o_proj\.(\w+)", r"\1.out_proj.\2"),
    (r"(transformer\.decoder\.layers\.\d+)\.self_attn_layer_norm\.(\w+)", r"\1.norm1.\2"),
    (r"(transformer\.decoder\.layers\.\d+)\.cross_attn_layer_norm\.(\w+)", r"\1.norm2.\2"),
    (r"(transformer\.decoder\.layers\.\d+)\.layer_norm\.(\w+)", r"\1.norm3.\2"),
    (r"(transformer\.decoder\.layers\.\d+)\.mlp\.fc(\d)\.(\w+)", r"\1.linear\2.\3"),
    (r"segmentation_bias", "segmentation_head.bias"),
    (r"blocks\.(\d+)\.layernorm\.(\w+)", r"segmentation_head.blocks.\1.norm.\2"),
    (r"blocks\.(\d+)\.depthwise_conv\.(\w+)", r"segmentation_head.blocks.\1.dwconv.\2"),
    (r"blocks\.(\d+)\.pointwise_conv\.(\w+)", r"segmentation_head.blocks.\1.pwconv1.\2"),
    (r"query_features_block\.norm\.(\w+)", r"segmentation_head.query_features_block.norm_in.\1"),
    (r"query_features_block\.mlp\.fc1\.(\w+)", r"segmentation_head.query_features_block.layers.0.\1"),
    (r"query_features_block\.mlp\.fc2\.(\w+)", r"segmentation_head.query_features_block.layers.2.\1"),
    (r"(spatial_features_proj|query_features_proj)\.(\w+)", r"segmentation_head.\1.\2"),
]
_QKV = {"q": "query", "k": "key", "v": "value"}


def from_transformers(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """State dict of `RfDetrForObjectDetection` or `RfDetrForInstanceSegmentation` under the published names.

    Also returns, for every published name, the names it was made of. Unknown names are kept as they are.
    """
    nested = any(key.startswith("model.model.") for key in state)
    published: dict[str, Tensor] = {}
    origin: dict[str, tuple[str, ...]] = {}
    fused: dict[str, dict[str, str]] = {}
    for key, value in state.items():
        name = key.removeprefix("model.") if nested else key
        for pattern, replacement in _TRANSFORMERS:
            name = re.sub(rf"^{pattern}$", replacement, name)
        part = re.fullmatch(r"(.*)\.([qkv])_proj\.(weight|bias)", name)
        if part is None:
            published[name], origin[name] = value, (key,)
        elif part[1].endswith("self_attn"):
            fused.setdefault(f"{part[1]}.in_proj_{part[3]}", {})[part[2]] = key
        else:
            name = f"{part[1]}.attention.{_QKV[part[2]]}.{part[3]}"
            published[name], origin[name] = value, (key,)
    for name, parts in fused.items():
        keys = tuple(parts[letter] for letter in "qkv" if letter in parts)
        published[name], origin[name] = torch.cat([state[key] for key in keys]), keys
    return published, origin
