import math

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

from rfdetr import RFDETR, Arch, UserError
from rfdetr.model.dinov2 import load_dinov2

DIM, DEPTH, HEADS, PATCH, GRID = 48, 4, 3, 14, 5


def dinov2_state():
    """A tiny state dict in the layout of the original repository, float64."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[-1])

    state = {
        "cls_token": draw(1, 1, DIM),
        "pos_embed": draw(1, 1 + GRID**2, DIM),
        "mask_token": draw(1, DIM),
        "patch_embed.proj.weight": 0.1 * draw(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": draw(DIM),
    }
    for i in range(DEPTH):
        for name, rows, columns in (
            ("attn.qkv", 3 * DIM, DIM),
            ("attn.proj", DIM, DIM),
            ("mlp.fc1", 4 * DIM, DIM),
            ("mlp.fc2", DIM, 4 * DIM),
        ):
            state[f"blocks.{i}.{name}.weight"] = draw(rows, columns)
            state[f"blocks.{i}.{name}.bias"] = draw(rows)
        for name in ("norm1", "norm2"):
            state[f"blocks.{i}.{name}.weight"], state[f"blocks.{i}.{name}.bias"] = 1 + draw(DIM), draw(DIM)
        for name in ("ls1.gamma", "ls2.gamma"):
            state[f"blocks.{i}.{name}"] = 1 + draw(DIM)
    state["norm.weight"], state["norm.bias"] = 1 + draw(DIM), draw(DIM)
    return state


def transformers_layout(state):
    """The same weights under the names of the Transformers package."""
    renamed = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            block, part = key.split(".")[1], key.split(".")[-1]
            for name, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"encoder.layer.{block}.attention.attention.{name}.{part}"] = piece
            continue
        for old, new in (
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("cls_token", "embeddings.cls_token"),
            ("mask_token", "embeddings.mask_token"),
        ):
            key = key.replace(old, new)
        renamed["layernorm" + key[4:] if key.startswith("norm.") else key] = value
    return renamed


def plain_forward(state, images):
    """DINOv2's forward pass as its paper describes it: patches, class token, pre-norm blocks with
    LayerScale.
    """
    x = F.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH
    ).flatten(2)
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), x.transpose(1, 2)], dim=1)
    x = x + state["pos_embed"]
    outputs = []
    for i in range(DEPTH):
        weight = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
        y = F.layer_norm(x, (DIM,), weight["norm1.weight"], weight["norm1.bias"], 1e-6)
        qkv = (y @ weight["attn.qkv.weight"].T + weight["attn.qkv.bias"]).reshape(*y.shape[:2], 3, HEADS, -1)
        q, k, v = qkv.unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(DIM // HEADS)
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
        x = x + weight["ls1.gamma"] * (mixed @ weight["attn.proj.weight"].T + weight["attn.proj.bias"])
        y = F.layer_norm(x, (DIM,), weight["norm2.weight"], weight["norm2.bias"], 1e-6)
        y = F.gelu(y @ weight["mlp.fc1.weight"].T + weight["mlp.fc1.bias"])
        x = x + weight["ls2.gamma"] * (y @ weight["mlp.fc2.weight"].T + weight["mlp.fc2.bias"])
        outputs.append(F.layer_norm(x, (DIM,), state["norm.weight"], state["norm.bias"], 1e-6)[:, 1:])
    return outputs


def network(patch=PATCH, grid=GRID, **sizes):
    torch.manual_seed(0)
    return RFDETR(**{**TINY, "base_patch": patch, "position_grid": grid, **sizes}).double().eval()


@pytest.mark.parametrize("layout", [dict, transformers_layout])
def test_neutral_knobs_give_the_plain_features(layout):
    state = dinov2_state()
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("backbone.")}
    report = load_dinov2(model, layout(state))
    images = torch.randn(
        2, 3, PATCH * GRID, PATCH * GRID, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    arch = Arch(PATCH * GRID, PATCH, 1, 1, 10)
    with torch.no_grad():
        maps = model.backbone(images, arch)
    for found, expected in zip(maps, plain_forward(state, images), strict=True):
        torch.testing.assert_close(found.flatten(1, 2), expected, atol=1e-10, rtol=0)
    assert not report.resized and len(report.dropped) == 1
    assert {e.key for e in report.loaded + report.dropped} == set(layout(state))
    assert {e.key for e in report.initialised} == set(before)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_features_equal_those_of_the_transformers_package(tmp_path):
    """Its `Dinov2Model` as another reference; in memory it has other names than in its saved files."""
    transformers = pytest.importorskip("transformers", minversion="5.23")
    torch.manual_seed(0)
    sizes = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    reference = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=PATCH * GRID)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    reference.save_pretrained(tmp_path)
    reference.double()
    images = torch.randn(2, 3, PATCH * GRID, PATCH * GRID, dtype=torch.float64)
    with torch.no_grad():
        output = reference(pixel_values=images, output_hidden_states=True)
        expected = [reference.layernorm(stage)[:, 1:] for stage in output.hidden_states[1:]]
        for source in (reference.state_dict(), tmp_path):
            model = network()
            report = load_dinov2(model, source)
            assert {e.target for e in report.loaded} == {f"backbone.{k}" for k in model.backbone.state_dict()}
            for found, features in zip(
                model.backbone(images, Arch(PATCH * GRID, PATCH, 1, 1, 10)), expected, strict=True
            ):
                torch.testing.assert_close(found.flatten(1, 2), features, atol=1e-9, rtol=0)


def test_kernel_and_grid_are_resized_and_reported():
    state = dinov2_state()
    model = network(patch=20, grid=9)
    report = load_dinov2(model, state)
    assert {e.target for e in report.resized} == {"backbone.patch_kernel", "backbone.positions"}
    assert "14 to 20 px" in str(report)
    # An enlarged picture seen with the enlarged kernel has the embedding of the picture itself.
    from rfdetr.model.flex import resize_matrix

    enlarge = resize_matrix(PATCH, 20)
    patch = torch.randn(1, 3, PATCH, PATCH, dtype=torch.float64)
    same = F.conv2d(enlarge @ patch @ enlarge.T, model.backbone.patch_kernel)
    torch.testing.assert_close(same, F.conv2d(patch, state["patch_embed.proj.weight"]), atol=1e-9, rtol=0)
    assert torch.equal(model.backbone.positions[:, 0], state["pos_embed"][:, 0])


def test_what_does_not_fit_is_refused_and_changes_nothing():
    state = dinov2_state()
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cases = [
        ({**state, "register_tokens": torch.zeros(1, 4, DIM)}, "register_tokens"),
        ({k: v for k, v in state.items() if k != "blocks.3.ls1.gamma"}, "blocks.3.ls1.gamma is missing"),
        ({**state, "blocks.4.ls1.gamma": torch.ones(DIM)}, "without a place"),
        ({k: torch.zeros([2 * s for s in v.shape]) for k, v in state.items()}, "does not fit this network"),
    ]
    for broken, message in cases:
        with pytest.raises(UserError, match=message):
            load_dinov2(model, broken)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    with pytest.raises(UserError, match="no public DINOv2 of width 48"):
        load_dinov2(model)
