"""The paper's other detectors: measured sizes, and how to build them again with random weights.

`peers.yaml` beside this module holds 38 of them: package, class, configuration, and what was counted
(parameters, operations with and without attention, other conventions), with the printed figures. Building
needs the optional extra `peers`; reading the counts does not.
"""

import warnings
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError

if TYPE_CHECKING:
    from torch import nn

BUILDABLE = ("LW-DETR", "D-FINE", "RT-DETR")
"""Families that `build` can make: those of the package `transformers` that take an image and nothing else."""

_ONE_CONVENTION = {
    "D-FINE": "deploy_with_attention",
    "RT-DETR": "merged_with_attention",
}


@cache
def document() -> dict[str, Any]:
    """Content of `peers.yaml`. Do not modify it."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("peers.yaml").read_text(encoding="utf-8"))


def entries() -> list[dict[str, Any]]:
    """All detectors that were measured."""
    return document()["peers"]


def find(name: str, size: str) -> dict[str, Any]:
    """One detector, e.g. `find("LW-DETR", "S")`. KeyError listing the sizes of that name otherwise."""
    for entry in entries():
        if (entry["name"], entry["size"]) == (name, size):
            return entry
    sizes = [entry["size"] for entry in entries() if entry["name"] == name]
    raise KeyError(
        f"no {name} {size} among the measured detectors; sizes of {name}: {', '.join(sizes) or 'none'}"
    )


def one_convention(entry: Mapping[str, Any]) -> float:
    """GFLOPs on the convention that is fair to all: attention counted, graph as deployed."""
    return entry.get("variants", {}).get(
        _ONE_CONVENTION.get(entry["name"], ""), entry["gflops_with_attention"]
    )


def available() -> bool:
    """Whether `build` has the package that it needs."""
    return find_spec("transformers") is not None


def build(name: str, size: str) -> "nn.Module":
    """The detector with random weights, in evaluation mode. UserError without the package or for another
    family.
    """
    entry = find(name, size)
    if name not in BUILDABLE:
        raise UserError(f"{name} cannot be built here; choose one of {', '.join(BUILDABLE)}")
    if not available():
        raise UserError(f"building {name} needs the package transformers: pip install '.[peers]'")
    with warnings.catch_warnings():
        # The package asks for a notebook widget at import; it is not needed.
        warnings.filterwarnings("ignore", message="IProgress not found")
        parts = {
            key: _configuration(entry["config"][key])
            for key in ("backbone_config", "text_config")
            if key in entry["config"]
        }
        return _named(entry["class"])(_configuration(entry["config"], **parts)).eval()


def _configuration(spec: Mapping[str, Any], **parts: Any) -> Any:
    return _named(spec["class"])(**spec.get("kwargs", {}), **parts)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def recount(name: str, size: str) -> dict[str, float]:
    """Build and count again: params_m, gflops_with_attention, gflops_no_attention (batch 1, the entry's input
    size).

    UserError as `build`. Operations as the model is built, without the changes that deployment would bring.
    """
    import torch

    from rfdetr.benchmark.flops import count_module

    entry = find(name, size)
    model = build(name, size)
    with_attention, without = count_module(model, torch.zeros(1, 3, *entry["input"]))
    return {
        "params_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "gflops_with_attention": with_attention,
        "gflops_no_attention": without,
    }
