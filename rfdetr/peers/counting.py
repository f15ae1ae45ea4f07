"""Parameters and operations of the peers, counted again, under every convention of the record."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rfdetr.errors import UserError
from rfdetr.peers.building import build
from rfdetr.peers.catalogue import BACKBONE, is_libre, is_yolo, named
from rfdetr.peers.deploying import deploy, merge_branches

if TYPE_CHECKING:
    from torch import nn

PROMPT_TOKENS = 195
"""Text tokens of the prompt that lists COCO's 80 names."""
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of the arguments that are the text's."""
_WORD, _STOP, _FIRST, _LAST = 1000, 1012, 101, 102


def recount(name: str, variants: bool = True) -> dict[str, Any]:
    """Build a peer and count it, batch 1, at the record's input size.

    Returns params_m, gflops_with_attention, gflops_no_attention of the network as its package builds it and,
    with `variants`, the same names as in the record where the network is counted in other ways. UserError as
    `building.build`.
    """
    entry = named(name)
    model = build(name)
    found: dict[str, Any] = {"params_m": millions(model), **_gflops(entry, model)}
    if variants:
        found["variants"] = _variants(entry, model, found)
    return found


def millions(model: "nn.Module") -> float:
    """Parameters, 1e6; buffers, so also frozen batch normalisations, are not among them."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def _gflops(entry: Mapping[str, Any], model: "nn.Module", prefix: str = "gflops") -> dict[str, float]:
    from rfdetr.benchmark.flops import count_module

    arguments, named_arguments = example(entry)
    with_attention, without = count_module(model, *arguments, **named_arguments)
    return {f"{prefix}_with_attention": with_attention, f"{prefix}_no_attention": without}


def example(entry: Mapping[str, Any], length: int = PROMPT_TOKENS) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with which the network of an entry is called: a picture of zeros and, where it needs one, a
    text of `length` tokens.
    """
    import torch

    images = torch.zeros(1, 3, *entry["input"])
    extra = dict(entry["config"].get("forward_kwargs", {}))
    if "text_config" not in entry["config"]:
        return (images,), extra
    tokens = torch.full((1, length), _WORD)
    tokens[0, 2::3] = _STOP  # names of one or two words, each followed by a full stop
    tokens[0, 0], tokens[0, -1] = _FIRST, _LAST
    return (), {
        "pixel_values": images,
        "pixel_mask": torch.ones(images.shape[:1] + images.shape[2:], dtype=torch.long),
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "token_type_ids": torch.zeros_like(tokens),
        **extra,
    }


def _variants(entry: Mapping[str, Any], model: Any, plain: Mapping[str, float]) -> dict[str, float]:
    """Other ways of counting; changes the network."""
    name = entry["name"]
    if is_yolo(entry):
        found = {}
        if name.endswith("-seg"):
            again = _transposed(entry, model)
            found["gflops_legacy_count"] = plain["gflops_with_attention"] + 3 * again
        fused = deploy(entry, model)
        found |= {"params_m_fused": millions(fused)}
        return found | {"gflops_fused": _gflops(entry, fused)["gflops_with_attention"]}
    if is_libre(entry):
        deployed = deploy(entry, model)
        gflops = _gflops(entry, deployed)["gflops_with_attention"]
        return {"params_m_deployed": millions(deployed), "gflops_deployed": gflops}
    if name == "LW-DETR":
        return _lw_detr(model, plain)
    if name in ("RT-DETR", "RT-DETRv2"):
        merge_branches(model)
        return {"params_m_merged": millions(model), **_gflops(entry, model, "merged")}
    if name == "D-FINE":
        merge_branches(model)
        found = {"params_m_merged": millions(model), **_gflops(entry, model, "merged")}
        deployed = deploy(entry, model)
        return {**found, "params_m_deploy": millions(deployed), **_gflops(entry, deployed, "deploy")}
    return {}


def _transposed(entry: Mapping[str, Any], model: Any) -> float:
    """GFLOPs of the transposed convolutions: an old counter takes each of them four times."""
    import torch

    total = 0
    handles = []

    def add(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        total += 2 * module.weight.numel() * inputs[0].shape[-1] * inputs[0].shape[-2]

    for module in model.modules():
        if isinstance(module, torch.nn.ConvTranspose2d):
            handles.append(module.register_forward_hook(add))
    try:
        with torch.no_grad():
            model(*example(entry)[0])
    finally:
        for handle in handles:
            handle.remove()
    return total / 1e9


def _lw_detr(model: Any, plain: Mapping[str, float]) -> dict[str, float]:
    """Heads of every decoder layer, and the parameters of one query group."""
    import torch

    from rfdetr.benchmark.flops import count_module

    config = model.config
    queries = torch.zeros(1, config.num_queries, config.d_model)
    heads = sum(count_module(head, queries)[0] for head in (model.class_embed, model.bbox_embed))
    more = (config.decoder_layers - 1) * heads
    inner = model.model
    grouped: list[Any] = [inner.reference_point_embed, inner.query_feat, inner.enc_output]
    grouped += [inner.enc_output_norm, inner.enc_out_bbox_embed, inner.enc_out_class_embed]
    share = sum(millions(part) for part in grouped) * (1 - 1 / config.group_detr)
    return {
        "all_layer_heads_no_attention": plain["gflops_no_attention"] + more,
        "all_layer_heads_with_attention": plain["gflops_with_attention"] + more,
        "params_m_one_query_group": plain["params_m"] - share,
    }


def text_encoder(name: str = "groundingdino-t") -> dict[str, float]:
    """The text encoder of an open-vocabulary detector alone, for the prompt of `PROMPT_TOKENS` tokens:
    params_m, gflops_with_attention, gflops_no_attention. UserError as `building.build`.
    """
    from rfdetr.benchmark.flops import count_module

    model: Any = build(name)
    _, arguments = example(named(name))
    encoder = model.model.text_backbone
    given = {key: arguments[key] for key in TEXT_INPUTS}
    with_attention, without = count_module(encoder, **given)
    return {
        "params_m": millions(encoder),
        "gflops_with_attention": with_attention,
        "gflops_no_attention": without,
    }


def has_calflops() -> bool:
    """Whether the counter CalFLOPs is installed."""
    return find_spec("calflops") is not None and find_spec("transformers") is not None


def calflops(name: str, deployed: bool = False, every_layer: bool = False) -> float:
    """GFLOPs of a peer by CalFLOPs; UserError without it and for what it cannot run.

    deployed: of the deployed network. every_layer: LW-DETR's heads on all decoder layers, added as an exact
    count.
    """
    if not has_calflops():
        raise UserError("this needs CalFLOPs: pip install 'rf-detr-nas-companion[peers]'")
    import contextlib
    import io

    entry = named(name)
    if entry["size"] == BACKBONE or "text_config" in entry["config"]:
        raise UserError(f"CalFLOPs is asked for detectors of pictures alone, not for {name}")
    model = build(name)
    if deployed:
        model = deploy(entry, model)
    with contextlib.redirect_stdout(io.StringIO()):
        from calflops import calculate_flops

        flops, _, _ = calculate_flops(
            model,
            input_shape=(1, 3, *entry["input"]),
            print_results=False,
            output_as_string=False,
            output_precision=6,
        )
    more = 0.0
    if every_layer:
        plain = {"gflops_no_attention": 0.0, "gflops_with_attention": 0.0, "params_m": 0.0}
        more = _lw_detr(model, plain)["all_layer_heads_no_attention"]
    return float(flops) / 1e9 + more
