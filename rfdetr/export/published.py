"""Handing a sub-network on to other packages: the published package's checkpoint, and a Transformers folder.

Patch kernel and positions are resized to the sub-network's sizes and what it does not use is cut off, so that
the other package needs no architecture search to run it. All query groups are kept: it can be trained further
there.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact
from rfdetr.export.onnx import export_onnx, write_graph
from rfdetr.files import atomic_path, write_json
from rfdetr.model.config import ModelConfig
from rfdetr.model.detector import RFDETR, cut_weights
from rfdetr.model.published_names import MASK_TOKEN, to_published


def fixed_network(model: RFDETR, arch: Arch | None = None) -> tuple[ModelConfig, dict[str, Tensor]]:
    """(sizes, weights) of a network whose only full-size sub-network is `arch`, with all query groups."""
    arch = model.resolve(arch)
    config = model.config.cut_to(arch).replace(groups=model.config.groups)
    return config, cut_weights(model, config, arch)


def constructor(config: ModelConfig, arch: Arch) -> dict[str, Any]:
    """Arguments that build this network with the published package, whose `num_classes` is one less than
    K.
    """
    return {
        "encoder": "dinov2_windowed_small" if config.embed_dim == 384 else "dinov2_windowed_base",
        "resolution": arch.resolution,
        "patch_size": arch.patch_size,
        "num_windows": arch.windows,
        "positional_encoding_size": arch.grid,
        "dec_layers": arch.decoder_layers,
        "num_queries": arch.queries,
        "num_select": arch.queries,
        "num_classes": config.num_classes - 1,
        "hidden_dim": config.hidden_dim,
        "sa_nheads": config.self_heads,
        "ca_nheads": config.cross_heads,
        "dec_n_points": config.points,
        "group_detr": config.groups,
        "out_feature_indexes": list(config.feature_layers),
        "segmentation_head": config.segmentation,
    }


if TYPE_CHECKING:
    import onnx

PUBLISHED_IO = {"images": "input", "boxes": "dets", "logits": "labels", "masks": "masks"}
"""Our tensor names of a graph -> those of the published package's export, in its order of outputs."""
PUBLISHED_OPSET = 17
# New in 18; the graphs have them with the values that 17 means.
_NEW = {"Split": ("num_outputs",), "Resize": ("keep_aspect_ratio_policy", "antialias")}
_AXES_AS_INPUT = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceProd")


def export_published_io(model: RFDETR, arch: Arch | None, path: str | Path, **options: Any) -> Artifact:
    """An ONNX file whose tensors are called as in the published package's export, for parsers that expect
    these.

    Input `input`; outputs `dets` (centre x, centre y, width, height in 0..1), `labels` (logits), with a mask
    head `masks`; opset 17. Preprocessing is the same. options: of `export_onnx`.
    """
    import onnx

    artifact = export_onnx(model, arch, path, **options)
    proto = onnx.load(artifact.file)
    graph = proto.graph
    _lower_opset(proto)
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = PUBLISHED_IO.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = PUBLISHED_IO.get(value.name, value.name)
    order = list(PUBLISHED_IO.values())
    outputs = sorted(graph.output, key=lambda value: order.index(value.name))
    copies = [type(value).FromString(value.SerializeToString()) for value in outputs]
    del graph.output[:]
    graph.output.extend(copies)
    onnx.checker.check_model(proto, full_check=True)
    write_graph(proto, path, {**artifact.metadata, "io": "published", "opset": str(PUBLISHED_OPSET)})
    return load_artifact(path)


def _lower_opset(proto: "onnx.ModelProto") -> None:
    """From opset 18 to 17: the axes of reductions are an attribute there, and Split knows no number of
    outputs.

    ONNX's own converter cannot do it: it does not find axes that are initialisers.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in _AXES_AS_INPUT and len(node.input) > 1:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
            del node.input[1:]
            node.attribute.append(helper.make_attribute("axes", axes))
        kept = [attribute for attribute in node.attribute if attribute.name not in _NEW.get(node.op_type, ())]
        if len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)
    for opset in proto.opset_import:
        if not opset.domain:
            opset.version = PUBLISHED_OPSET


def write_published(model: RFDETR, path: str | Path, arch: Arch | None = None) -> dict[str, Any]:
    """Write a checkpoint in the published layout; returns the arguments of the constructor that opens it.

    The file holds `model` (float32 weights) and `args` (those arguments and the class names, one per class
    index). UserError for a network without decoder layers.
    """
    arch = model.resolve(arch)
    _refuse_without_decoder(arch, "published")
    config, weights = fixed_network(model, arch)
    arguments = constructor(config, arch)
    args = argparse.Namespace(**arguments, class_names=_class_names(config))
    with atomic_path(path) as temporary:
        torch.save({"model": _published(weights, config), "args": args}, temporary)
    return arguments


def _refuse_without_decoder(arch: Arch, package: str) -> None:
    """Both packages stop at such a network: they take class numbers and outputs from decoder layers."""
    if arch.decoder_layers == 0:
        raise UserError(
            f"{arch.id} has no decoder layer, and the {package} package opens no such network: take one with"
            " at least one, or another format"
        )


def write_transformers(model: RFDETR, folder: str | Path, arch: Arch | None = None) -> Path:
    """Write a folder for `RfDetrForObjectDetection.from_pretrained` (or `...InstanceSegmentation`); returns
    it.

    Needs nothing of that package: `config.json` and `model.safetensors` are written here. UserError for a
    network without decoder layers.
    """
    from safetensors.torch import save_file

    arch = model.resolve(arch)
    _refuse_without_decoder(arch, "Transformers")
    config, weights = fixed_network(model, arch)
    folder = Path(folder)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(_published(weights, config), temporary, metadata={"format": "pt"})
    write_json(folder / "config.json", transformers_config(config, arch))
    return folder


def transformers_config(config: ModelConfig, arch: Arch) -> Mapping[str, Any]:
    """The `config.json` of such a folder."""
    names = _class_names(config)
    kind = "InstanceSegmentation" if config.segmentation else "ObjectDetection"
    return {
        "model_type": "rf_detr",
        "architectures": [f"RfDetrFor{kind}"],
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            "hidden_size": config.embed_dim,
            "num_attention_heads": config.heads,
            "num_hidden_layers": config.depth,
            "mlp_ratio": (
                int(config.mlp_ratio) if config.mlp_ratio == int(config.mlp_ratio) else config.mlp_ratio
            ),
            "image_size": arch.resolution,
            "patch_size": arch.patch_size,
            "num_windows": arch.windows,
            "out_features": [f"stage{i}" for i in config.feature_layers],
            "window_block_indexes": [i for i in range(config.depth) if i not in config.feature_layers],
            "apply_layernorm": True,
        },
        "d_model": config.hidden_dim,
        "decoder_layers": arch.decoder_layers,
        "decoder_ffn_dim": config.ffn_dim,
        "decoder_n_points": config.points,
        "decoder_self_attention_heads": config.self_heads,
        "decoder_cross_attention_heads": config.cross_heads,
        "intermediate_size": 4 * config.hidden_dim,
        "num_queries": arch.queries,
        "group_detr": config.groups,
        "dropout": 0.0,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "dtype": "float32",
    }


def _published(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """float32 weights under the published names, with a blank mask token, which only DINOv2's pre-training
    uses.
    """
    state = {name: value.float() for name, value in to_published(dict(weights), config).items()}
    return {**state, MASK_TOKEN: torch.zeros(1, config.embed_dim)}


def _class_names(config: ModelConfig) -> list[str]:
    """One name per class index."""
    if config.categories is None:
        return [f"class {index}" for index in range(config.num_classes)]
    return [config.categories.name_of(index) for index in range(config.num_classes)]
