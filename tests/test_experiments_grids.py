import math

import numpy as np
import pytest
import torch

from rfdetr import PRESETS, SearchSpace
from rfdetr.arch import Arch
from rfdetr.benchmark.flops import analytic
from rfdetr.experiments import ch02_search_space, ch03_flexible_patches, ch12_configurations
from rfdetr.plots import configurations as configuration_figures
from rfdetr.plots import flexible_patches as patch_figures
from rfdetr.plots import search_space as grid_figures
from rfdetr.plots.tables import html_table

SPACE = SearchSpace((320, 384), (16, 24), (1, 2, 4), (0, 2), (50, 300))


@pytest.fixture(scope="module")
def grid():
    return ch02_search_space.costs(SPACE)


def test_rounding_down_explains_every_published_resolution():
    df = ch02_search_space.rounding_table()
    assert len(df) == len(PRESETS) and df.from_grid.notna().all()
    assert (df.from_grid - df.printed).between(0, df.unit - 1).all()
    assert set(df.configuration[df.nearest != df.printed]) == {
        "seg-nano",
        "seg-medium",
        "seg-xlarge",
        "seg-max",
    }


def test_counts():
    number = ch02_search_space.count_table().set_index("what")["count"]
    assert list(number[:3]) == [6468, 6468, 7392]
    assert number.iloc[3] < 6468
    assert number["drawn in training"] == 231 and number.iloc[6] == 221 and number.iloc[7] == 135


def test_costs_are_those_of_the_counter_formula(grid):
    assert len(grid) == len(SPACE)
    config = ch02_search_space.supernet_config(SPACE)
    for position, arch in list(enumerate(SPACE.archs()))[::7]:
        assert grid.gflops[position] == pytest.approx(analytic(config, arch).gflops)
        assert grid.resolution[position] == arch.resolution and grid.queries[position] == arch.queries


def test_knob_effects_compare_equal_settings(grid):
    df = ch02_search_space.knob_effects(grid, SPACE).set_index("knob")
    assert list(df.index) == [k.replace("_", " ") for k in Arch.KNOBS]
    assert df.dear["resolution"] == 384 and df.dear["patch size"] == 16
    assert (df.smallest <= df["median"]).all() and (df["median"] <= df.largest).all()


def test_class_tokens_cost_more_with_more_windows():
    df = ch02_search_space.window_costs(("nano",))
    assert df.class_tokens.is_monotonic_increasing and (df.class_tokens > 0).all()
    # One class token among 577 tokens adds a little more than 1/576 to everything that is linear in the
    # tokens.
    assert df.class_tokens.iloc[0] == pytest.approx(100 / 576, rel=0.3)


def test_cost_figure_has_a_panel_per_knob(grid):
    panels = [axes for axes in grid_figures.cost_by_knob(grid).axes if axes.get_xlabel()]
    assert len(panels) == 5


@pytest.fixture(scope="module")
def patch_errors():
    return ch03_flexible_patches.errors(60, sizes=(12, 16, 20), seed=1)


def test_enlarging_is_exact_and_shrinking_is_not(patch_errors):
    wide = ch03_flexible_patches.summary(patch_errors).set_index("size")
    assert wide["PI-resize"][20] < 1e-12 and wide["PI-resize"][16] == 0
    assert 1e-4 < wide["PI-resize"][12] < wide["bicubic, rescaled"][12] < wide["bicubic"][12]
    noise = patch_errors[(patch_errors.content == "noise") & (patch_errors.method == "PI-resize")]
    assert noise[noise["size"] == 12].error.min() > wide["PI-resize"][12]


def test_fitted_kernels_are_optimal_for_the_patches_they_were_fitted_on():
    kernels = ch03_flexible_patches.photograph_kernels(4)
    patches = ch03_flexible_patches.photograph_patches(16, 900, seed=3)
    fitted = ch03_flexible_patches.optimal_kernels(kernels, patches, 8)
    pi = ch03_flexible_patches.resize_by("PI-resize", kernels, 8)
    best = ch03_flexible_patches.embedding_error(kernels, patches, fitted, 8)
    assert best < ch03_flexible_patches.embedding_error(kernels, patches, pi, 8)
    nudged = fitted + 1e-3 * torch.randn(fitted.shape, dtype=fitted.dtype)
    assert best < ch03_flexible_patches.embedding_error(kernels, patches, nudged, 8)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="nearest"):
        ch03_flexible_patches.resize_by("nearest", ch03_flexible_patches.random_kernels(1), 20)


def test_limits_are_as_announced():
    df = ch03_flexible_patches.identity_limits(60)
    assert (df.error[df.expected] < 1e-5).all() and (df.error[~df.expected] > 1e-3).all()


def test_slow_positions_survive_and_the_class_token_is_kept():
    df = ch03_flexible_patches.position_errors()
    assert df.class_token_kept.all()
    slow, fast = (df[df.waves == waves].set_index("grid").error for waves in (2, 8))
    assert slow.max() < 0.02 and (fast > slow).all()


def test_patch_figures_are_drawn(patch_errors):
    figure = patch_figures.error_by_size(patch_errors, 16)
    assert [axes.get_title() for axes in figure.axes] == ["patches of photographs", "patches of noise"]
    assert len(patch_figures.kernels(ch03_flexible_patches.kernel_example((8, 16))).axes) == 4
    assert len(patch_figures.positions(ch03_flexible_patches.position_example((24,))).axes) == 2


@pytest.fixture(scope="module")
def counts():
    return ch12_configurations.count_table(("nano", "seg-nano", "base"))


def test_counts_agree_with_the_print(counts):
    df = ch12_configurations.within(counts).set_index("configuration")
    assert df.params_ok.all() and df.gflops_ok.all()
    assert list(df.matches) == ["attention counted", "attention counted", "attention left out"]
    assert (df.deployed < df.gflops).all()


def test_a_wrong_print_is_found(counts):
    wrong = counts.assign(params_printed=counts.params_printed + 0.3, difference=5.0)
    df = ch12_configurations.within(wrong)
    assert not df.params_ok.any() and not df.gflops_ok.any()


def test_stage_shares_add_up():
    df = ch12_configurations.stage_shares(("nano", "seg-nano"))
    assert np.allclose(df.groupby("configuration").share.sum(), 100)
    figure = configuration_figures.stage_bars(df)
    ends = [bar.get_x() + bar.get_width() for bar in figure.axes[0].patches]
    assert max(ends) == pytest.approx(100)


def test_mask_head_is_all_that_segmentation_adds():
    masks = ch12_configurations.mask_head_cost()
    assert masks.params_m[1] - masks.params_m[0] == pytest.approx(masks.mask_head_m[1])


def test_position_grid_of_the_search_space_is_not_in_the_print():
    grids = ch12_configurations.position_grids()
    assert (grids.params_m - grids.printed).abs().round(1).tolist() == [0.0, 5.3]


def test_token_grids_are_not_equally_likely():
    drawn = ch02_search_space.drawn_token_grids()
    assert drawn.points.sum() == 231 and drawn.points.max() > 5 * drawn.points.min()


def test_difference_figure_shows_three_conventions(counts):
    assert len(configuration_figures.differences(counts).axes[0].collections) == 3


def test_table_formats_values():
    import pandas as pd

    df = pd.DataFrame(
        {"a": [1.25, math.nan], "n": [12345, 2], "b": [True, False], "t": [(1, 2), ()], "s": ["<x>", "y"]}
    )
    html = html_table(df, caption="c", decimals={"a": 2})
    for text in ("1.25", "–", "12,345", "yes", "no", "1, 2", "&lt;x&gt;", "<caption>c</caption>"):
        assert text in html
    with pytest.raises(KeyError):
        html_table(df, columns=["missing"])


def test_a_number_of_many_digits_is_written_by_its_power_of_ten():
    import pandas as pd

    html = html_table(pd.DataFrame({"v": [3.40282e38, -65504.0, 2.5e-9, 0.0]}), decimals=0)
    for text in (">3.4e+38<", ">-65,504<", ">2.5e-09<", ">0<"):
        assert text in html
