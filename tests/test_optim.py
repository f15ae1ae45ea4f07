import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import RFDETR, UserError
from rfdetr.model.config import preset_config
from rfdetr.training.config import TrainConfig
from rfdetr.training.ema import EMA
from rfdetr.training.optim import build_optimizer, is_decayed, lr_factor, lr_of, parameter_groups, set_lr


@pytest.mark.parametrize("segmentation", [False, True])
def test_every_parameter_is_in_exactly_one_group(segmentation):
    model = RFDETR(**TINY, segmentation=segmentation)
    groups = parameter_groups(model, TrainConfig())
    seen = [id(p) for group in groups for p in group["params"]]
    assert sorted(seen) == sorted(id(p) for p in model.parameters())
    names = {name for group in groups for name in group["names"]}
    assert names == {name for name, _ in model.named_parameters()}
    build_optimizer(model, TrainConfig())


def test_frozen_parameters_are_left_out():
    model = RFDETR(**TINY)
    model.backbone.requires_grad_(False)
    names = [name for group in parameter_groups(model, TrainConfig()) for name in group["names"]]
    assert names and not any(name.startswith("backbone") for name in names)


def test_what_decays():
    """Matrices and kernels only, and no embedding; tensors with fewer than two dimensions are spared whatever
    their name.
    """
    model = RFDETR(**TINY, segmentation=True)
    decayed = {name for name, _ in model.named_parameters() if is_decayed(name)}
    assert all(p.dim() >= 2 for n, p in model.named_parameters() if n in decayed)
    assert {"backbone.blocks.0.attention.qkv.weight", "class_head.weight"} <= decayed
    assert {"decoder.layers.0.self_attention.in_weight", "projector.split.conv.weight"} <= decayed
    assert {"selection.classes.weight", "mask_head.pixel.weight"} <= decayed
    spared = {
        "backbone.patch_kernel",
        "backbone.positions",
        "backbone.class_token",
        "query_features",
        "reference_deltas",
        "backbone.blocks.1.scale1",
        "selection.norm.weight",
        "selection.classes.bias",
        "mask_head.norm.weight",
        "projector.norm.weight",
        "projector.split.norm.weight",
        "decoder.layers.0.self_attention.in_bias",
        "decoder.layers.1.norm2.weight",
    }
    assert spared <= {name for name, _ in model.named_parameters()} - decayed


@pytest.mark.parametrize(("preset", "layers"), [("nano", 13), ("seg-2xlarge", 13), ("base", 12)])
def test_learning_rates_follow_layers_and_components(preset, layers):
    """The public code counts the last feature stage plus one layers: block i is layers - i below the top."""
    config = TrainConfig(lr=1e-4, encoder_lr=2e-4, layer_decay=0.8, component_decay=0.7)
    sizes = preset_config(preset)
    top = 2e-4 * 0.7**2
    for block in range(12):
        found = lr_of(f"backbone.blocks.{block}.fc1.weight", config, sizes)
        assert found == pytest.approx(top * 0.8 ** (layers - block))
    assert lr_of("backbone.norm.weight", config, sizes) == pytest.approx(top)
    assert lr_of("backbone.positions", config, sizes) == pytest.approx(top * 0.8 ** (layers + 1))
    assert lr_of("backbone.patch_kernel", config, sizes) == pytest.approx(top * 0.8 ** (layers + 1))
    assert lr_of("decoder.layers.0.fc1.weight", config, sizes) == pytest.approx(0.7e-4)
    assert lr_of("projector.norm.weight", config, sizes) == lr_of("class_head.weight", config, sizes) == 1e-4


def test_no_part_of_the_backbone_learns_faster_than_its_top():
    """Also where blocks follow the last feature stage."""
    config, sizes = TrainConfig(), preset_config("nano", feature_layers=(1, 3))
    top = lr_of("backbone.norm.weight", config, sizes)
    rates = [lr_of(f"backbone.blocks.{block}.fc1.weight", config, sizes) for block in range(12)]
    assert rates == sorted(rates) and rates[-1] == top and rates[0] < rates[1] < rates[2]


def test_schedules():
    assert {lr_factor(s, TrainConfig(steps=10)) for s in range(10)} == {1.0}, (
        "the paper: no warm-up, no schedule"
    )
    warm = TrainConfig(steps=12, warmup_steps=2, schedule="linear")
    assert [lr_factor(s, warm) for s in (0, 1, 2, 7)] == pytest.approx([0.5, 1, 1, 0.5])
    cosine = TrainConfig(steps=100, schedule="cosine")
    assert lr_factor(50, cosine) == pytest.approx(0.5) and lr_factor(99, cosine) < 0.001
    model = RFDETR(**TINY)
    optimizer = build_optimizer(model, cosine)
    set_lr(optimizer, 50, cosine)
    assert all(g["lr"] == pytest.approx(g["base_lr"] / 2) for g in optimizer.param_groups)


def test_average_follows_the_formula():
    model = torch.nn.Linear(2, 2, bias=False).double()
    model.register_buffer("count", torch.tensor(0))
    ema, expected = EMA(model, decay=0.9, tau=3), model.weight.detach().clone()
    for update in range(1, 6):
        with torch.no_grad():
            model.weight.add_(update)
            model.count += 1
        ema.update(model)
        decay = 0.9 * (1 - math.exp(-update / 3))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(ema.weights["weight"], expected)
    assert ema.weights["count"] == 5 and ema.decay_at(10**6) == pytest.approx(0.9)


def test_average_continues_from_its_state():
    model = torch.nn.Linear(2, 2)
    first, second = EMA(model), EMA(model)
    model.weight.data += 1
    first.update(model)
    second.load_state_dict(first.state_dict())
    model.weight.data *= 2
    first.update(model)
    second.update(model)
    assert torch.equal(first.weights["weight"], second.weights["weight"])


def test_recipe_survives_plain_values():
    config = TrainConfig(sampling="biased", odds=(((64, 8, 2), 1.0),), lr=3e-4)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig().lr == 1e-4 and TrainConfig().clip_norm == 0.1 and TrainConfig().ema_decay == 0.993


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be a whole number at least 1, not 0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"max_bad_steps": 0}, "max_bad_steps must be"),
        ({"ema_tau": 0}, "ema_tau must be a number above 0"),
        ({"ema_decay": 1.5}, r"ema_decay must be a number at least 0 and below 1 \(or none\), not 1.5"),
        ({"warmup_steps": -5}, "warmup_steps must be"),
        ({"clip_norm": -1}, "clip_norm must be a number above 0"),
        ({"clip_norm": math.nan}, "clip_norm must be .* not nan"),
        ({"seed": -1}, "seed must be"),
        ({"lr": math.inf}, "lr must be"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": (0.9, 1.0)}, "betas must be a number at least 0 and below 1"),
        ({"weights": {"label": -1.0}}, "weights.label must be"),
        ({"weights": {"lable": 1.0}}, "unknown training field lable in weights"),
        ({"weights": 3}, "weights must be a LossWeights"),
        ({"costs": {"alpha": 2.0}}, "costs.alpha must be"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"sampling": "biased"}, "needs odds"),
        ({"lr": 0.0}, "lr must be a number above 0"),
        ({"learning_rate": 1.0}, "unknown training field learning_rate"),
    ],
)
def test_wrong_recipes(values, message):
    with pytest.raises(UserError, match=message):
        TrainConfig.from_dict(values)


NUMBERS = [f.name for f in fields(TrainConfig) if type(getattr(TrainConfig(), f.name)) in (int, float)]


@given(
    st.sampled_from([*NUMBERS, "mask_points"]),
    st.one_of(
        st.integers(-3, 3),
        st.floats(allow_nan=True, allow_infinity=True),
        st.sampled_from([True, None, "1", [], 10**400, np.float32(0.5), np.int64(2)]),
    ),
)
def test_any_number_gives_a_recipe_or_one_line_that_names_the_field(name, value):
    try:
        config = TrainConfig.from_dict({name: value})
    except UserError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    stored = getattr(config, name)
    assert stored is None or (type(stored) in (int, float) and math.isfinite(stored))
    assert stored == value and type(value) is not bool
    assert TrainConfig.from_dict(config.to_dict()) == config
    # What a run does first with these numbers.
    assert math.isfinite(lr_factor(0, config))
    if config.ema_decay is not None:
        assert 0 <= EMA(torch.nn.Linear(1, 1), config.ema_decay, config.ema_tau).decay_at(1) < 1
