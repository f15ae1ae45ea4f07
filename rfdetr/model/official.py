"""Published checkpoints become networks here: `load_official`.

Source: the published configurations (Tables 7 and 8) and state dicts. A fixed-size checkpoint is a supernet
at once: any other resolution, patch size, number of windows, fewer decoder layers and fewer queries work
through `model(images, arch)`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rfdetr.arch import PRESETS
from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError
from rfdetr.model.checkpoint_files import read_tensors, unwrap
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.model.detector import RFDETR
from rfdetr.model.downloads import fetch, verify
from rfdetr.model.file_classes import categories_of, labels_beside, names_in
from rfdetr.model.flex import resize_kernel, resize_positions
from rfdetr.model.load_report import LoadReport
from rfdetr.model.published_names import (
    ENCODER,
    JOIN,
    UNUSED,
    from_published,
    from_transformers,
    names,
    published_names,
)
from rfdetr.model.weights import with_classes

__all__ = ["from_published", "load_official", "published_names"]

_ANCHORS = ("backbone.", "transformer.", "class_embed.", "model.backbone.backbone.", "model.model.backbone.")
_POSITIONS = ENCODER + "embeddings.position_embeddings"
_KERNEL = ENCODER + "embeddings.patch_embeddings.projection.weight"


def load_official(
    name: str,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    checksum: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    categories: CategoryMap | None = None,
    base_patch: int | None = None,
    position_grid: int | None = None,
) -> RFDETR:
    """A network with published weights, in evaluation mode.

    name           a key of `PRESETS`: which configuration the weights are for
    path_or_state_dict   path of a `.pth`, `.pt` or `.safetensors` file, of a folder that `save_pretrained`
                         wrote (whole
                   or in shards), or a state dict (or checkpoint dict), with the published names or those of
                   the Transformers classes for this model; None downloads the public file by name
    checksum       "md5:..." or "sha256:..." that a given file must have. The tensors of a `.pth` file are
                   compared with the file's own checksums anyway; a `.safetensors` file has none
    num_classes    K for fine-tuning: where the file has another number, the class layers are new (see
                   `with_classes`)
    class_names, categories   what the K classes are: a name per class index, or a whole `CategoryMap`.
                   Default: the names in the file (fine-tuned ones have them); COCO's where K = 91 and there
                   are none
    base_patch, position_grid   store kernel and positions at another size than the file has, for training a
                                supernet
                   (position_grid 120 serves resolution 960 with patch size 8)

    Number of classes, queries, query groups and the position grid are taken from the file, since fine-tuned
    and released files differ from the named configuration there. `model.load_report` tells what became of
    every tensor. Raises UserError for a file that is missing, damaged, unsafe, of another architecture, or
    has a tensor that has no explanation. Float64 weights give a float64 network, all others a float32 one.
    """
    preset_config(name)
    if path_or_state_dict is None:
        path_or_state_dict = fetch("official_checkpoints", name)
    elif checksum is not None:
        verify(path_or_state_dict, checksum)
    state, origin_name, others = read_tensors(path_or_state_dict)
    state = unwrap(state, _ANCHORS)
    if any("backbone.backbone." in key for key in state):
        layout = "Transformers"
        state, origin = from_transformers(state)
    else:
        layout, origin = "published", {key: (key,) for key in state}
    report = LoadReport(origin_name, layout)
    stored = _read_config(name, state, origin_name, report)
    given = categories or (None if class_names is None else CategoryMap.from_class_names(class_names))
    if num_classes is None and given is not None:
        num_classes = given.num_classes
    same_count = num_classes in (None, stored.num_classes)
    found = _categories(path_or_state_dict, others, stored.num_classes, report)
    stored = stored.replace(categories=given if given is not None and same_count else found)
    _check_keys(name, stored, state, origin, report)
    tensors = _convert(name, stored, state, origin, report)
    config = stored.replace(
        base_patch=base_patch or stored.base_patch, position_grid=position_grid or stored.position_grid
    )
    _resize(tensors, stored, config, origin, report)

    model = _network(config, tensors)
    if not same_count:
        model, change = with_classes(model, num_classes, categories=given)
        report.new_layers(change)
    model.load_report = report
    return model


def _network(config: ModelConfig, tensors: dict[str, Tensor]) -> RFDETR:
    """A network of these weights in evaluation mode: float64 if they are, else float32."""
    with torch.device("meta"):
        model = RFDETR(**config.to_dict())
    dtype = torch.float64 if tensors["backbone.patch_kernel"].dtype == torch.float64 else torch.float32
    model.load_state_dict({key: value.to(dtype).clone() for key, value in tensors.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _categories(
    source: Any, others: dict[str, Any], num_classes: int, report: LoadReport
) -> CategoryMap | None:
    """The classes that the file names; COCO's for a file of 91 classes that names none."""
    names, holder = names_in(others)
    names = names or labels_beside(source)
    found = None if names is None else categories_of(names, num_classes)
    report.note_others(name for name in others if found is None or name != holder)
    if found is not None:
        report.notes.append(f"the file names its classes: {found}")
    elif names is not None:
        report.notes.append(
            f"the file's {len(names)} class names do not fit its {num_classes} classes: not used"
        )
    official = CategoryMap.official()
    if names is None and num_classes == official.num_classes:
        report.notes.append("the file names no classes; with 91 they are taken to be COCO's")
        return official
    return found


def _shape(state: dict[str, Tensor], key: str, source: str) -> torch.Size:
    if key not in state:
        raise UserError(
            f"{source} is no checkpoint of this model: {key} is missing. Expected the published layout or"
            " that of the Transformers classes RfDetrForObjectDetection and RfDetrForInstanceSegmentation"
        )
    return state[key].shape


def _count(state: dict[str, Tensor], pattern: str) -> int:
    """One more than the largest number that `pattern` finds in the names."""
    return max((int(m[1]) + 1 for m in map(re.compile(pattern).match, state) if m), default=0)


def _read_config(name: str, state: dict[str, Tensor], source: str, report: LoadReport) -> ModelConfig:
    """Sizes of the network in the file; raises UserError where they cannot belong to the named
    configuration.
    """
    preset = preset_config(name)
    kernel = _shape(state, _KERNEL, source)
    found: dict[str, Any] = {
        "embed_dim": kernel[0],
        "base_patch": kernel[-1],
        "depth": _count(state, re.escape(ENCODER) + r"encoder\.layer\.(\d+)\."),
        "decoder_layers": _count(state, r"transformer\.decoder\.layers\.(\d+)\."),
        "segmentation": any(key.startswith("segmentation_head.") for key in state),
        "hidden_dim": _shape(state, "transformer.enc_output.0.weight", source)[0],
    }
    grid = round((_shape(state, _POSITIONS, source)[1] - 1) ** 0.5)
    wrong = {key: value for key, value in found.items() if value != getattr(preset, key)}
    twins = [other for other in PRESETS if _matches(other, found, grid)]
    # Sizes M and L differ in their grid alone; a grid that no configuration has is somebody's own.
    if not wrong and twins and name not in twins and grid != preset.position_grid:
        wrong = {"position_grid": grid}
    if wrong:
        details = ", ".join(f"{key} is {value}, not {getattr(preset, key)}" for key, value in wrong.items())
        hint = f"; it fits {' or '.join(twins)}" if twins else ""
        raise UserError(f"{source} is not a checkpoint of {name}: {details}{hint}")

    groups = _count(state, r"transformer\.enc_output\.(\d+)\.")
    rows = _shape(state, "query_feat.weight", source)[0]
    if rows % groups:
        raise UserError(f"{source} is damaged: {rows} queries cannot be shared by {groups} groups")
    read = {
        "num_classes": _shape(state, "class_embed.weight", source)[0],
        "queries": rows // groups,
        "groups": groups,
        "position_grid": grid,
    }
    report.notes += [
        f"{key} is {value} in the file, {getattr(preset, key)} in the configuration {name}"
        for key, value in read.items()
        if value != getattr(preset, key)
    ]
    arch = PRESETS[name].arch
    arch = arch.replace(queries=min(arch.queries, read["queries"]))
    return preset.replace(**read, default_arch=arch)


def _matches(name: str, found: dict[str, Any], grid: int) -> bool:
    config = preset_config(name)
    # The base checkpoint keeps DINOv2's own position grid.
    grids = (config.position_grid, 37) if name == "base" else (config.position_grid,)
    return grid in grids and all(getattr(config, key) == value for key, value in found.items())


def _check_keys(
    name: str,
    config: ModelConfig,
    state: dict[str, Tensor],
    origin: dict[str, tuple[str, ...]],
    report: LoadReport,
) -> None:
    """Every tensor of the file must be needed or be known to be unused, and every needed one be there and
    fit.
    """
    needed = {key for keys in published_names(config).values() for key in keys}
    missing = sorted(needed - set(state))
    if missing:
        raise UserError(
            f"{report.source} is not a complete checkpoint of {name}: {len(missing)} tensors are missing,"
            f" first {missing[0]}"
        )
    unknown = sorted(set(state) - needed - set(UNUSED))
    if unknown:
        raise UserError(
            f"{report.source} holds {len(unknown)} tensors that {name} has no place for, first"
            f" {origin[unknown[0]][0]} {list(state[unknown[0]].shape)}: another architecture, or a release"
            " that this version does not know"
        )
    for key, reason in UNUSED.items():
        report.add("dropped", origin.get(key, ()), reason=reason)


def _convert(
    name: str,
    config: ModelConfig,
    state: dict[str, Tensor],
    origin: dict[str, tuple[str, ...]],
    report: LoadReport,
) -> dict[str, Tensor]:
    """The tensors under our names; raises UserError where a shape does not fit."""
    with torch.device("meta"):
        expected = {key: value.shape for key, value in RFDETR(**config.to_dict()).state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for ours, keys, how in names(config):
        for key in keys:
            if not state[key].is_floating_point():
                raise UserError(
                    f"{report.source} holds {key} as {state[key].dtype}, not as floating-point numbers:"
                    " quantised weights cannot be used"
                )
        shapes = ", ".join(f"{key} {list(state[key].shape)}" for key in keys[:3])
        try:
            tensors[ours] = JOIN[how]([state[key] for key in keys], config)
        except RuntimeError as error:
            raise UserError(f"{report.source} does not fit {name}: {shapes} do not fit together") from error
        if tensors[ours].shape != expected[ours]:
            raise UserError(
                f"{report.source} does not fit {name}: {shapes} would give {list(tensors[ours].shape)} for"
                f" {ours}, expected {list(expected[ours])}"
            )
        for key in keys:
            report.add("loaded", origin[key], ours)
    return tensors


def _resize(
    tensors: dict[str, Tensor],
    stored: ModelConfig,
    config: ModelConfig,
    origin: dict[str, tuple[str, ...]],
    report: LoadReport,
) -> None:
    """Store kernel and positions at the sizes that were asked for."""
    for ours, key, old, new, resize, reason in (
        (
            "backbone.patch_kernel",
            _KERNEL,
            stored.base_patch,
            config.base_patch,
            resize_kernel,
            "pseudo-inverse resize of the patch kernel",
        ),
        (
            "backbone.positions",
            _POSITIONS,
            stored.position_grid,
            config.position_grid,
            resize_positions,
            "bicubic resize of the position grid",
        ),
    ):
        if old != new:
            tensors[ours] = resize(tensors[ours], new)
            report.entries = [e for e in report.entries if e.target != ours]
            report.add("resized", origin[key], ours, f"{reason}, {old} to {new} per side")
