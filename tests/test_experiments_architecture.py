import math

import numpy as np
import pytest
import torch
from conftest import TINY, TINY_ARCH

from rfdetr import RFDETR, Arch
from rfdetr.experiments import ch01_architecture, ch01_exactness
from rfdetr.model.config import ModelConfig
from rfdetr.plots import architecture as figures


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RFDETR(**{**TINY, "feature_layers": (1, 3, 4)}).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_trace_names_every_stage_with_its_shape(model, images):
    df = ch01_architecture.trace(model, images, TINY_ARCH)
    assert list(df.stage.unique()) == ["input", "backbone", "projector", "selection", "decoder", "heads"]
    assert df["shape"].iloc[1] == "4 × 17 × 48"
    assert (df.stage == "decoder").sum() == 2
    assert not model.projector.split._forward_hooks, "the hooks must be gone"


def test_a_windowed_block_reaches_one_window_and_a_global_one_all(model):
    df = ch01_architecture.block_table(model, TINY_ARCH)
    assert list(df.kind) == ["windowed", "global", "windowed", "global"]
    assert list(df.windows_reached) == [1, 4, 1, 4]
    assert list(df.pairs) == [4 * 17**2, 68**2, 4 * 17**2, 68**2]


def test_mask_holds_the_pairs_of_the_table(model):
    df = ch01_architecture.block_table(model, TINY_ARCH)
    for wide, pairs in ((False, df.pairs[0]), (True, df.pairs[1])):
        assert ch01_architecture.attention_mask(TINY_ARCH, wide).sum() == pairs


def test_class_token_copies_start_equal_and_part(model, images):
    df = ch01_architecture.class_token_copies(model, images, TINY_ARCH)
    assert df.distance[0] == 0
    assert (df.distance[1:] > 1e-3).all()
    assert (ch01_architecture.class_token_copies(model, images, Arch(64, 8, 1, 2, 10)).distance == 0).all()


def test_parameter_table_adds_up_to_the_network(model):
    df = ch01_architecture.parameter_table(model.config, TINY_ARCH)
    assert df.params_m.sum() * 1e6 == pytest.approx(sum(p.numel() for p in model.parameters()))
    sub = model.subnet(TINY_ARCH)
    assert df.deployed_m.sum() * 1e6 == pytest.approx(sum(p.numel() for p in sub.parameters()))
    assert df.share.sum() == pytest.approx(100)


def test_published_flops_fit_the_released_list_of_global_blocks_only():
    df = ch01_architecture.windowed_blocks_test().set_index("list")
    assert abs(df.difference["released models"]) < 0.2 < 1 < abs(df.difference["Appendix A"])


def test_rule_weights_follow_the_rule():
    weights = ch01_exactness.rule_weights(
        {"a.weight": [4000], "b.bias": [4000], "c.weight": [50, 400], "d": [0]}
    )
    assert set(weights) == {"a.weight", "b.bias", "c.weight"}
    assert weights["a.weight"].mean() == pytest.approx(1, abs=0.01)
    assert weights["b.bias"].std() == pytest.approx(0.1, abs=0.01)
    assert weights["c.weight"].std() == pytest.approx(1 / math.sqrt(400), rel=0.02)
    again = ch01_exactness.rule_weights({"c.weight": [50, 400]})
    assert torch.equal(again["c.weight"], weights["c.weight"])


def test_parity_without_references_is_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(ch01_exactness, "reference_folder", lambda: tmp_path)
    assert ch01_exactness.parity("nano").empty


SMALL = ModelConfig(**{**TINY, "segmentation": True})


def test_cut_and_subnet_tables_show_equality():
    subnets = ch01_exactness.subnet_equality(SMALL, (TINY_ARCH, Arch(60, 10, 1, 0, 5)))
    assert (subnets.difference < 1e-12).all()
    assert subnets.params_m[0] > subnets.params_m[1]
    cuts = ch01_exactness.cut_decoder(SMALL, TINY_ARCH)
    assert list(cuts.decoder_layers) == [0, 1, 2] == list(cuts.mask_blocks)
    assert (cuts.difference < 1e-12).all()


def test_figures_are_drawn(model, images):
    blocks = ch01_architecture.block_table(model, TINY_ARCH)
    masks = [ch01_architecture.attention_mask(TINY_ARCH, wide) for wide in (False, True)]
    assert len(figures.masks(*masks, blocks, TINY_ARCH.windows).axes) == 3
    copies = ch01_architecture.class_token_copies(model, images, TINY_ARCH)
    drawn = figures.class_tokens(copies).axes[0].lines[0].get_ydata()
    assert np.array_equal(drawn, copies.distance)
    assert figures.windows_on_image(np.zeros((64, 64, 3)), TINY_ARCH).axes[0].lines
