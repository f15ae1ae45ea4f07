import math

import pandas as pd
import pytest

from rfdetr.errors import UserError
from rfdetr.experiments import (
    ch07_families,
    ch10_ablation,
    ch12_configurations,
    ch_a_recipe,
    ch_c_counting,
    ch_e_larger_variants,
)
from rfdetr.experiments.base.chapter import Chapter
from rfdetr.peers import catalogue as peers
from rfdetr.peers.building import build
from rfdetr.plots import counting as figures
from rfdetr.training.config import TrainConfig


def test_every_peer_record_is_complete():
    entries = peers.entries()
    assert len(entries) == 38
    for entry in entries:
        assert entry["params_m"] > 0 and entry["gflops_with_attention"] >= entry["gflops_no_attention"]
        assert peers.one_convention(entry) > 0


def test_one_convention_takes_the_deployed_graph():
    assert peers.one_convention(peers.find("D-FINE", "S")) == 25.497
    assert peers.one_convention(peers.find("LW-DETR", "S")) == 31.573


def test_unknown_peers_are_named():
    with pytest.raises(KeyError, match="T, S, M, L, X"):
        peers.find("LW-DETR", "XXL")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="transformers"):
        build("lw-detr-t")
    df = ch_c_counting.recount((("D-FINE", "N"),))
    assert df.params_again.isna().all() and df.gflops[0] == 7.434


def test_default_counter_leaves_attention_out_and_the_other_does_not():
    df = ch_c_counting.default_counter()
    assert df.missing[0] == pytest.approx(9.1, abs=0.1)
    assert df.missing[1] == pytest.approx(0, abs=0.01)


def test_conventions_are_ordered_and_one_is_the_print():
    df = ch_c_counting.conventions()
    assert (df.published > df.deployed).all() and (df.deployed > df.deployed_no_attention).all()
    assert (df.gmacs * 2 == df.deployed).all()
    assert ((df.published / df.printed - 1).abs() < 0.002).all()
    assert len(figures.conventions(df).axes[0].containers) == 5


def test_the_public_package_counts_nearly_the_print():
    """An independent count of the same networks: no heads or boxes of unselected tokens are missing here."""
    df = ch_c_counting.conventions((*ch_c_counting.FAMILY, "base"))
    assert (df.published / df.package).between(1, 1.004).all()
    bare = ch_c_counting.public_package()["no_attention"]
    assert (df.published_no_attention / df.configuration.map(bare)).between(1, 1.005).all()


def test_segmentation_prints_the_masks_of_every_layer():
    df = ch_c_counting.mask_conventions()
    assert ((df.published / df.printed - 1).abs() < 1e-3).all() and (df.not_deployed > 8).all()
    exported = df.configuration.map(ch_c_counting.public_package()["deployed"])
    assert ((df.deployed - exported).abs() < 0.06).all()
    heads = ch_c_counting.lw_detr_heads()
    assert ((heads.every_layer / heads.printed - 1).abs() < 0.003).all()
    assert (heads.last_layer < heads.every_layer).all() and (heads.no_attention < heads.last_layer).all()


def test_formula_agrees_with_the_counter():
    assert ch_c_counting.formula_check(("nano", "seg-nano")).difference.abs().max() < 0.5


def test_table_9_is_measured_but_for_one_cell():
    nine = ch_c_counting.table_9()
    assert len(nine) == 9 and nine.measured.notna().sum() == 8


@pytest.fixture(scope="module")
def steps():
    return ch10_ablation.step_counts()


def test_every_step_of_table_5_is_reproduced(steps):
    assert len(steps) == 10
    assert steps.difference.abs().max() < 0.2
    assert (steps.params_m - steps.params_printed).abs().max() < 0.06


def test_merging_windows_costs_more_but_prints_less(steps):
    change = ch10_ablation.changes(steps).set_index("step")
    assert change.gflops[7] > 3 > 0 > change.gflops_printed[7]
    assert change.gflops[9] == 0
    assert ch10_ablation.query_row().gflops.is_monotonic_decreasing
    assert len(figures.ablation(steps).axes[0].lines) == 3


def test_global_blocks_do_not_show_without_attention(steps):
    blocks = ch10_ablation.base_blocks()
    assert blocks.gflops_no_attention.nunique() == 1 and blocks.gflops[1] > blocks.gflops[0] + 3
    assert blocks.gflops[0] == steps.set_index("step").gflops[4]
    # The chapter on the configurations builds the released base model.
    assert blocks.gflops[1] == ch12_configurations.count_table(["base"]).gflops[0]


def test_both_ends_of_table_5_on_one_convention(steps):
    by = steps.set_index("step")
    assert by.deployed[0] == peers.one_convention(peers.find("LW-DETR", "M"))
    assert by.deployed[9] == ch_c_counting.conventions(("medium",)).deployed[0] < by.gflops[9]
    assert (by.deployed_no_attention < by.deployed).all()


@pytest.fixture(scope="module")
def detection():
    return ch07_families.family_table(ch07_families.DETECTION)


def test_families_list_every_printed_model_once(detection):
    assert len(detection) == 31
    assert not detection.duplicated(["family", "size"]).any()
    assert (detection.source == "counted here").sum() == 7
    ours = detection[detection.source == "counted here"]
    assert ours.difference.abs().max() < 0.2


def test_only_the_mixed_up_row_is_off(detection):
    off = detection[detection.difference.abs() > 2]
    assert list(off.family + " " + off["size"]) == ["RT-DETR R18"]
    swapped = ch07_families.reordered(detection)
    assert "RT-DETR R18" in set(swapped.dearer_printed)
    assert ((swapped.printed >= 1) & (swapped.counted < 1)).all()


def test_every_print_has_its_convention_in_words(detection):
    df = ch07_families.ways(detection)
    assert sum(len(sizes.split(", ")) for sizes in df.sizes) == len(detection)
    assert df.set_index("family").way["LW-DETR"] == "attention counted, heads of all decoder layers"
    assert df[df.way.str.startswith("none")].sizes.tolist() == ["R18"]
    assert df[~df.way.str.startswith("none")].difference.max() < 2
    masks = ch07_families.ways(ch07_families.family_table(ch07_families.SEGMENTATION)).groupby("family")
    assert masks.size()["YOLOv11"] == 2
    assert masks.one_convention.min()["RF-DETR-Seg"] < -15


def test_equal_cost_interpolates_inside_the_range_only(detection):
    df = ch07_families.at_equal_cost(detection, "RF-DETR", "D-FINE")
    assert list(df["size"]) == ["N", "S", "M", "L"]
    assert df.other_ap.between(42.7, 59.3).all()
    same = ch07_families.at_equal_cost(detection, "D-FINE", "D-FINE")
    assert (same.ap - same.other_ap).abs().max() < 1e-9
    with pytest.raises(ValueError, match="Nobody"):
        ch07_families.at_equal_cost(detection, "Nobody", "D-FINE")


def test_families_have_a_line_each(detection):
    assert len(figures.families(detection).axes[0].lines) == 7


def test_segmentation_rows_that_nobody_packages_have_no_count():
    df = ch07_families.family_table(ch07_families.SEGMENTATION)
    missing = df[df.gflops.isna()]
    assert set(missing.family) == {"FastInst", "MaskDINO"} == set(df[df.source == "not built"].family)


def test_table_11_implied_models():
    df = ch_e_larger_variants.table_11()
    known = df[df.same_ap != ""]
    assert list(known.backbone + " " + known["size"] + " " + known.same_ap) == [
        "DINOv2-S S S",
        "DINOv2-B XL XL",
    ]
    assert df.recomputed.notna().sum() == 4


def test_doubling_the_width_more_than_triples_the_cost():
    wide = ch_e_larger_variants.width_swap().pivot(index="knobs_of", columns="backbone", values="gflops")
    assert ((wide["dinov2-b"] / wide["dinov2-s"]).between(3, 4)).all()


def test_recipe_lists_every_setting_with_our_default():
    df = ch_a_recipe.recipe_table().set_index("setting")
    assert df.ours["learning rate"] == df.paper["learning rate"] == "0.0001"
    assert df.lw_detr["learning rate"] == "0.0004"
    assert df.ours.notna().all() and len(ch_a_recipe.not_stated()) > 5


def test_learning_rates_decay_per_block():
    df = ch_a_recipe.learning_rates().set_index("part")
    blocks = [df.lr[f"block {i}"] for i in range(12)]
    assert [b / a for a, b in zip(blocks, blocks[1:], strict=False)] == pytest.approx([1 / 0.8] * 11)
    assert df.lr["embeddings"] < blocks[0] and df.decayed_share["final norm"] == 0
    assert df.params_m.sum() == pytest.approx(33.687, abs=0.01)
    assert len(figures.learning_rates(df.reset_index()).axes[0].lines) > 1


def test_averaging_forgets_the_start():
    df = ch_a_recipe.averaging(TrainConfig(ema_decay=0.9, ema_tau=10), updates=50)
    assert df.decay.is_monotonic_increasing and df.decay.iloc[-1] == pytest.approx(0.9 * (1 - math.exp(-5)))
    assert df.start.iloc[9] < df.start_constant.iloc[9]
    assert len(figures.averaging(df).axes) == 2


def test_layer_norm_adds_up_and_batch_norm_does_not():
    apart = ch_a_recipe.accumulation().set_index("norm").difference
    assert apart["layer norm"] < 1e-5 < 1e-2 < apart["batch norm"]


def test_padding_is_a_matter_of_drawing_per_image():
    share = ch_a_recipe.padding(batches=200).set_index("scheme").padded
    assert share["per batch"] == 0 and 0.3 < share["per image"] < 0.8
    assert ch_a_recipe.padding(batch=1, batches=50).padded.tolist() == [0, 0]


def test_chapter_saves_results(tmp_path):
    chapter = Chapter("x", "smoke", seed=3, output_dir=str(tmp_path))
    chapter.save(pd.DataFrame({"a": [1]}), "table", note="n")
    path = chapter.store.results("smoke", "x") / "table.csv"
    assert path.read_text() == "a\n1\n"
    assert '"note": "n"' in path.with_suffix(".json").read_text()
    with pytest.raises(UserError, match="unknown profile"):
        Chapter("x", "huge")
