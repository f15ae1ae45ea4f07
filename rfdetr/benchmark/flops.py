"""Operations (FLOPs) and parameters of any sub-network: counted by torch, and by formula for whole search
grids.

Source: Tables 2, 3, 5, 11, 12 and 13. One multiply-accumulate is two operations. Attention products are
counted and given apart, because the published tables do not agree on them: torch's counter knows no fused
attention kernel on a CPU and leaves it out in silence. Here attention always runs on the plain matrix-product
backend while it is counted.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, ArchError
from rfdetr.benchmark.formula import CONVENTIONS, STAGES, Knobs, operations, parameters
from rfdetr.model.config import ModelConfig

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from rfdetr.model.detector import RFDETR, SubNet

__all__ = [
    "CONVENTIONS",
    "STAGES",
    "FlopCount",
    "analytic",
    "analytic_table",
    "count",
    "count_module",
    "params_by_part",
]


@dataclass(frozen=True)
class FlopCount:
    """What one image costs. GFLOPs are 1e9 operations; parameters are absolute numbers."""

    gflops: float
    """All convolutions and matrix products, attention included."""
    gflops_no_attention: float
    """Without the products of query and key, and of weights and values."""
    params: int
    """Parameters with all groups of queries, as published counts have it."""
    params_deployed: int
    """Parameters with the one group that inference uses."""
    by_stage: dict[str, float] = field(default_factory=dict)
    """GFLOPs (attention included) by stage, in the order of the forward pass."""
    attention_by_stage: dict[str, float] = field(default_factory=dict)
    """The attention products in `by_stage`, for the stages that have any."""

    @property
    def gmacs(self) -> float:
        """1e9 multiply-accumulates, attention included: half of the operations."""
        return self.gflops / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for tables and JSON."""
        return {**asdict(self), "gmacs": self.gmacs}


def count(
    network: "RFDETR | SubNet | ModelConfig", arch: Arch | None = None, convention: str = "deployed"
) -> FlopCount:
    """Count the deployed sub-network with torch's `FlopCounterMode`, batch 1, on a copy without data.

    network     a supernet, a sub-network, or only its sizes
    arch        the sub-network; None takes the default one
    convention  "deployed": what `network.subnet(arch)` computes. "published": plus what a plain call of the
                training code computes and no deployed network needs, which is what the paper prints. This
                part is not run, so torch does not count it: it is the formula's (`formula.operations`)

    The network itself is not run and not changed. Raises ArchError when there is no such sub-network.
    """
    config, arch = _resolve(network, arch)
    # Also refuses an unknown convention before the work starts.
    extra = _difference(config, arch, convention)
    totals, products = _counted(config, arch)
    for stage in STAGES:
        totals[stage] += extra[stage]
        products[stage] += extra[stage, "attention"]
    return _flop_count(config, arch, totals, products)


def analytic(
    network: "RFDETR | SubNet | ModelConfig", arch: Arch | None = None, convention: str = "deployed"
) -> FlopCount:
    """The same figures as `count`, from the formula, in microseconds."""
    config, arch = _resolve(network, arch)
    counts = operations(config, _knobs(arch), convention)
    totals = {stage: int(linear + products) for stage, (linear, products) in counts.items()}
    return _flop_count(config, arch, totals, {stage: int(pair[1]) for stage, pair in counts.items()})


def analytic_table(
    network: "RFDETR | SubNet | ModelConfig", archs: Iterable[Arch], convention: str = "deployed"
) -> "pd.DataFrame":
    """One row per architecture, in the given order; the formula is evaluated for all at once.

    Columns: the five knobs, gflops, gflops_no_attention, gmacs, params, params_deployed, and the GFLOPs of
    every stage ("gflops: projector"). The 6,468 sub-networks of the search take a fraction of a second.
    """
    import pandas as pd

    config = _config(network)
    archs = list(archs)
    for limits in {(a.decoder_layers, a.queries): a for a in archs}.values():
        config.check(limits)
    columns = {name: np.array([getattr(a, name) for a in archs], dtype=np.int64) for name in Arch.KNOBS}
    knobs = Knobs(**columns)
    counts = operations(config, knobs, convention)
    rows = len(archs)
    stages = {stage: np.broadcast_to(linear + products, rows) for stage, (linear, products) in counts.items()}
    total = sum(stages.values(), np.zeros(rows, dtype=np.int64))
    attention = sum((pair[1] for pair in counts.values()), np.zeros(rows, dtype=np.int64))
    table: dict[str, Any] = {
        **columns,
        "gflops": total / 1e9,
        "gflops_no_attention": (total - attention) / 1e9,
        "gmacs": total / 2e9,
        "params": sum(parameters(config, knobs, config.groups).values()),
        "params_deployed": sum(parameters(config, knobs, 1).values()),
    }
    return pd.DataFrame({**table, **{f"gflops: {stage}": value / 1e9 for stage, value in stages.items()}})


def params_by_part(
    network: "RFDETR | SubNet | ModelConfig", arch: Arch | None = None, groups: int | None = None
) -> dict[str, int]:
    """Parameters of one sub-network by part; `groups` is the number of query groups (default: all; 1 is
    deployed).
    """
    config, arch = _resolve(network, arch)
    parts = parameters(config, _knobs(arch), config.groups if groups is None else groups)
    return {part: int(value) for part, value in parts.items()}


def count_module(module: "nn.Module", *inputs: Any, **named_inputs: Any) -> tuple[float, float]:
    """(GFLOPs with attention, GFLOPs without) of any module for the given inputs, on any device.

    Attention left out are the products of `scaled_dot_product_attention`, which torch's counter misses on a
    CPU; attention that a module writes out as matrix products is always counted. The module runs once, in
    evaluation mode without gradients; its mode and gradient flags are restored.
    """
    import torch

    from rfdetr.model.modes import evaluation_mode

    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        module.requires_grad_(False)
        # The fused encoder layer would be counted as nothing, its projections included.
        torch.backends.mha.set_fastpath_enabled(False)
        with evaluation_mode(module), _counting() as counter, _fused_attention() as products:
            module(*inputs, **named_inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(flags[name])
    total = counter.get_total_flops()
    return total / 1e9, (total - sum(products)) / 1e9


@contextmanager
def _counting() -> Iterator[Any]:
    """Torch's counter with attention written out as matrix products, which it counts on every device."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


@contextmanager
def _fused_attention() -> Iterator[list[int]]:
    """Collect the operations of every `scaled_dot_product_attention` call in the block."""
    import torch
    from torch.overrides import TorchFunctionMode

    products: list[int] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.nn.functional.scaled_dot_product_attention:
                named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
                query, key, value = named["query"], named["key"], named["value"]
                products.append(
                    2 * query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
                )
            return result

    with Watch():
        yield products


def _counted(config: ModelConfig, arch: Arch) -> tuple[dict[str, int], dict[str, int]]:
    """Operations by stage of the deployed graph, and the attention products among them, counted by torch."""
    import torch

    from rfdetr.model.detector import RFDETR

    # The same network as `subnet(arch)`; counting needs its shapes only, so it holds no data.
    with torch.device("meta"):
        network = RFDETR(**config.cut_to(arch).to_dict()).eval().requires_grad_(False)
        images = torch.empty(1, 3, arch.resolution, arch.resolution)
        with _counting() as counter:
            # Masks are computed when asked for.
            _ = network(images, arch, every_layer=False).masks
    modules = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    bmm = {name: ops.get(torch.ops.aten.bmm, 0) for name, ops in counter.get_flop_counts().items()}

    def of(*names: str) -> int:
        return sum(modules.get(f"RFDETR.{name}", 0) for name in names)

    totals: dict[str, int] = dict.fromkeys(STAGES, 0)
    products: dict[str, int] = dict.fromkeys(STAGES, 0)
    for i in range(config.depth):
        stage = "global attention" if network.backbone.is_global(i) else "windowed attention"
        totals[stage] += of(f"backbone.blocks.{i}.attention")
        products[stage] += bmm.get(f"RFDETR.backbone.blocks.{i}.attention", 0)
        totals["backbone MLP"] += of(f"backbone.blocks.{i}") - of(f"backbone.blocks.{i}.attention")
    totals["embedding"] = of("backbone") - sum(
        totals[s] for s in ("windowed attention", "global attention", "backbone MLP")
    )
    for i in range(arch.decoder_layers):
        layer = f"decoder.layers.{i}."
        totals["decoder self-attention"] += of(layer + "self_attention")
        products["decoder self-attention"] += bmm.get(f"RFDETR.{layer}self_attention", 0)
        totals["decoder cross-attention"] += of(layer + "cross_attention")
        totals["decoder FFN"] += of(layer + "fc1", layer + "fc2")
    totals["decoder position"] = of("decoder.position")
    totals["projector"] = of("projector")
    totals["selection"] = of("selection")
    totals["heads"] = of("class_head", "box_head")
    # What is left: the mask head and the products of its pixel and query embeddings.
    totals["masks"] = modules["Global"] - sum(totals.values())
    return totals, products


def _difference(config: ModelConfig, arch: Arch, convention: str) -> dict[Any, int]:
    """What a convention counts on top of the deployed graph, by stage and (stage, "attention")."""
    more, base = (operations(config, _knobs(arch), name) for name in (convention, "deployed"))
    extra: dict[Any, int] = defaultdict(int)
    for stage in STAGES:
        extra[stage] = int(sum(more[stage]) - sum(base[stage]))
        extra[stage, "attention"] = int(more[stage][1] - base[stage][1])
    return extra


def _flop_count(
    config: ModelConfig, arch: Arch, totals: dict[str, int], products: dict[str, int]
) -> FlopCount:
    everything, attention = sum(totals.values()), sum(products.values())
    return FlopCount(
        gflops=everything / 1e9,
        gflops_no_attention=(everything - attention) / 1e9,
        params=sum(params_by_part(config, arch).values()),
        params_deployed=sum(params_by_part(config, arch, groups=1).values()),
        by_stage={stage: totals[stage] / 1e9 for stage in STAGES},
        attention_by_stage={stage: products[stage] / 1e9 for stage in STAGES if products[stage]},
    )


def _config(network: "RFDETR | SubNet | ModelConfig") -> ModelConfig:
    return network if isinstance(network, ModelConfig) else network.config


def _resolve(network: "RFDETR | SubNet | ModelConfig", arch: Arch | None) -> tuple[ModelConfig, Arch]:
    config = _config(network)
    arch = arch or config.default_arch
    if arch is None:
        raise ArchError("this network has no default architecture; pass one: count(network, Arch(...))")
    config.check(arch)
    return config, arch


def _knobs(arch: Arch) -> Knobs:
    return Knobs(arch.resolution, arch.patch_size, arch.windows, arch.decoder_layers, arch.queries)
