import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rfdetr import PRESETS, SEARCH_GRID, Arch, ArchError, ModelConfig
from rfdetr.benchmark import flops
from rfdetr.model.config import preset_config
from rfdetr.model.detector import RFDETR
from rfdetr.paper import tables

TINY = ModelConfig(
    num_classes=4,
    embed_dim=48,
    depth=4,
    heads=3,
    feature_layers=(1, 3),
    base_patch=8,
    position_grid=8,
    hidden_dim=32,
    decoder_layers=3,
    queries=12,
    groups=2,
    self_heads=4,
    cross_heads=4,
    points=2,
    ffn_dim=64,
    segmentation=True,
)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if name != "base"])
def test_printed_gflops_and_parameters(name):
    """Tables 2, 3, 12 and 13 within 0.1 %: attention counted, heads of every layer."""
    preset = PRESETS[name]
    counted = flops.analytic(preset_config(name), convention="published")
    assert counted.gflops == pytest.approx(preset.gflops, rel=1e-3)
    assert counted.params / 1e6 == pytest.approx(preset.params_m, abs=0.051)


@pytest.mark.parametrize(
    "step, knobs",
    [
        ("4", (560, 14, 4, 3, 300)),
        ("5", (640, 16, 4, 3, 300)),
        ("6", (576, 16, 4, 3, 300)),
        ("7", (576, 16, 2, 3, 300)),
        ("8", (576, 16, 2, 4, 300)),
    ],
)
def test_the_ablation_leaves_attention_out(step, knobs):
    """Table 5 agrees within 0.1 % without attention and is far away with it."""
    printed = float(tables.find_row(5, step=step)["gflops"])
    config = preset_config("base", default_arch=Arch(*knobs), decoder_layers=knobs[3])
    counted = flops.analytic(config, convention="published")
    assert counted.gflops_no_attention == pytest.approx(printed, rel=1e-3)
    assert counted.gflops > 1.15 * printed


@pytest.mark.parametrize("name", ["nano", "base", "seg-small", "xlarge"])
def test_counter_and_formula_agree_on_every_stage(name):
    config = preset_config(name)
    counted, formula = flops.count(config), flops.analytic(config)
    assert counted.by_stage == formula.by_stage
    assert counted.attention_by_stage == formula.attention_by_stage
    assert counted.gflops == pytest.approx(sum(counted.by_stage.values()))
    assert counted.gflops > counted.gflops_no_attention
    assert counted.gmacs == counted.gflops / 2


@st.composite
def sizes(draw):
    windows, patch = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([4, 6, 8]))
    grid = windows * draw(st.integers(1, 5))
    queries = draw(st.integers(1, min(12, grid * grid)))
    arch = Arch(grid * patch, patch, windows, draw(st.integers(0, 3)), queries)
    features = draw(st.sampled_from([(1, 3), (2,), (1, 2, 3, 4)]))
    return TINY.replace(
        feature_layers=features, segmentation=draw(st.booleans()), groups=draw(st.integers(1, 3))
    ), arch


@settings(max_examples=6, deadline=None)
@given(sizes())
def test_formula_is_exact_for_any_subnetwork(size):
    config, arch = size
    counted, formula = flops.count(config, arch), flops.analytic(config, arch)
    assert counted.by_stage == formula.by_stage
    assert counted.gflops_no_attention == formula.gflops_no_attention
    exact = config.replace(
        base_patch=arch.patch_size,
        position_grid=arch.grid,
        decoder_layers=arch.decoder_layers,
        queries=arch.queries,
    )
    stored = sum(p.numel() for p in RFDETR(**exact.to_dict()).parameters())
    assert formula.params == stored
    assert sum(flops.params_by_part(config, arch).values()) == stored
    row = flops.analytic_table(config, [arch, arch]).iloc[1]
    assert row["gflops"] == formula.gflops
    assert row["params_deployed"] == formula.params_deployed


def test_deployed_parameters_are_those_of_the_subnet():
    arch = Arch(48, 6, 2, 2, 7)
    subnet = RFDETR(**TINY.to_dict()).subnet(arch)
    counted = flops.count(subnet)
    assert counted.params_deployed == sum(p.numel() for p in subnet.parameters())


def test_counting_is_the_same_on_real_data_and_leaves_the_network_alone():
    torch.manual_seed(0)
    model = RFDETR(**TINY.to_dict()).train()
    arch = Arch(64, 8, 2, 2, 10)
    counted = flops.count(model, arch)
    assert model.training and all(p.requires_grad for p in model.parameters())

    class WithMasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.subnet = model.subnet(arch)

        def forward(self, images):
            return self.subnet(images).masks

    gflops, without = flops.count_module(WithMasks(), torch.zeros(1, 3, 64, 64))
    assert gflops == pytest.approx(counted.gflops, rel=1e-12)
    assert without == pytest.approx(counted.gflops_no_attention, rel=1e-12)


def test_fused_attention_of_other_networks_is_counted():
    class Net(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    with_attention, without = flops.count_module(Net(), torch.zeros(1, 2, 5, 4))
    assert with_attention * 1e9 == pytest.approx(2 * 2 * 5 * 5 * (4 + 4))
    assert without == 0


def test_the_search_grid_is_counted_in_one_evaluation_of_the_formula(monkeypatch):
    """Not one by one: that is what keeps 6,468 sub-networks within milliseconds."""
    calls = []

    def watched(config, knobs, *rest):
        calls.append(len(knobs.queries))
        return operations(config, knobs, *rest)

    operations = flops.operations
    monkeypatch.setattr(flops, "operations", watched)
    config = preset_config("nano", decoder_layers=6, position_grid=120)
    archs = SEARCH_GRID.archs()
    table = flops.analytic_table(config, archs)
    assert calls == [6468] and len(table) == 6468
    assert table["gflops"].idxmax() == archs.index(SEARCH_GRID.largest)
    monkeypatch.undo()
    for i in range(0, 6468, 997):
        assert table["gflops"][i] == flops.analytic(config, archs[i]).gflops


def test_what_does_not_exist_is_refused():
    with pytest.raises(ArchError, match="decoder layers"):
        flops.count(TINY, Arch(64, 8, 2, 6, 10))
    with pytest.raises(ArchError, match="no default architecture"):
        flops.analytic(TINY)
    with pytest.raises(ValueError, match="convention"):
        flops.analytic(TINY, Arch(64, 8, 2, 2, 10), convention="other")
