"""What chapters 07, 08, 11, C and D compute from the record of peers and from a kept run of many
detectors.
"""

import numpy as np
import pandas as pd
import pytest

from rfdetr.experiments import (
    ch07_contest,
    ch07_families,
    ch07_timed,
    ch08_masks,
    ch11_backbones,
    ch_c_details,
    ch_d_class_names,
)
from rfdetr.experiments.base.kept import Kept
from rfdetr.peers import catalogue


def kept_run(scale=lambda model, way: 1.0):
    """A run in which a model takes its GFLOPs in ms, times `scale`."""
    rows = []
    for model in (*ch07_contest.OURS, *ch07_contest.PEERS):
        name = model.partition(".")[0]
        gflops = catalogue.one_convention(catalogue.named(name)) if name in set(catalogue.keys()) else 30.0
        for way in ("fp32", "int8"):
            for protocol in ("buffered", "sustained"):
                row = {"model": model, "runtime": "openvino", "asked": way, "threads": 1}
                rows.append({**row, "protocol": protocol, "median_ms": gflops * scale(model, way)})
    return Kept({"models": pd.DataFrame(rows)}, {}, None)


def test_every_cause_is_in_a_table_of_a_chapter():
    shown = [*ch07_families.causes(False).model, *ch07_families.causes(True).model]
    wanted = [f"{e['name']} {e['size']}" for e in catalogue.entries() if catalogue.cause(e)]
    assert sorted(shown) == sorted(wanted) and "RT-DETR R18" in shown
    assert all(ch07_families.causes(True).model.str.contains("-seg"))


def test_printed_rows_find_their_models_in_a_run():
    families = ch07_families.family_table(ch07_families.DETECTION)
    assert ch07_timed.beside_print(families, None) is None
    found = ch07_timed.beside_print(families, kept_run())
    assert len(found) >= 12 and {"RF-DETR", "D-FINE", "YOLOv11", "LW-DETR"} <= set(found.family)
    ours = found[found.family == "RF-DETR"].iloc[0]
    assert ours["relative_printed"] == 1 and ours["relative openvino int8"] == 1
    masks = ch07_families.family_table(ch07_families.SEGMENTATION)
    found = ch07_timed.beside_print(masks, kept_run(), masks=True)
    assert {"RF-DETR-Seg", "YOLOv8"} <= set(found.family)


def test_whole_masks_cost_what_their_product_costs():
    gflops, size = ch08_masks.assembling(640)
    assert gflops == pytest.approx(2 * 300 * 32 * 160 * 160 / 1e9) and size == pytest.approx(30.72)
    df = ch08_masks.costs().set_index("model")
    assert df.added["YOLOv8-seg N"] == pytest.approx(100 * gflops / 12.003, rel=1e-3)
    assert (df.added[df.index.str.startswith("RF-DETR")] == 0).all() and (df.masks_gflops > 0).all()
    assert ch08_masks.timed(None) is None
    run = kept_run(lambda model, way: 1.0 if "prototypes" in model else 1.25)
    timed = ch08_masks.timed(run)
    assert len(timed) == 4 and np.allclose(timed.added, 25)
    assert "+25.0 % in the median" in ch08_masks.timed_said(timed)
    assert "0 of them are within 10 %" in ch08_masks.timed_said(timed)


def test_backbones_are_counted_and_their_print_is_one_of_two_counts():
    df = ch11_backbones.detectors().set_index("backbone")
    assert len(df) == 4
    assert df.printed_counts["CAEv2"] == "with attention"
    assert df.printed_counts["SAM2 Hiera"] == "without attention" == df.printed_counts["DINOv2"]
    assert ((df.params_m / df.params_printed - 1).abs() < 0.01).all()
    alone = ch11_backbones.alone().set_index("backbone")
    small, base = (alone.loc[f"DINOv2 ViT-{size}/14"] for size in "SB")
    assert 20 < small.params_m < 24 and 80 < base.params_m < 92
    assert base.gflops > 2 * small.gflops and (alone.gflops > alone.gflops_no_attention).all()
    rates = ch11_backbones.per_operation(df.reset_index()).set_index("backbone")
    assert rates.relative["DINOv2"] == 1


def test_a_token_has_a_price_and_the_counts_come_out():
    slope, base = ch_d_class_names.per_token()
    record = catalogue.named("groundingdino-t")
    assert base + 195 * slope == pytest.approx(record["gflops_with_attention"])
    assert base + 256 * slope == pytest.approx(record["variants"]["gflops_800x1333_256_tokens"][1])
    prompts = ch_d_class_names.prompts().set_index("prompt")
    assert prompts.tokens["80 class indices"] == 162 and prompts.share.between(0, 100).all()
    assert prompts.gflops["COCO's 80 names"] == pytest.approx(1008.355)
    sides = ch_d_class_names.sides().set_index("what")
    parts = sides.gflops[["text encoder alone", "text encoded beforehand"]]
    assert parts.sum() == pytest.approx(1008.355) and sides.params_m["text encoder alone"] > 100
    assert ch_d_class_names.against_rf_detr().ratio.iloc[-1] == 1


def test_a_count_grows_with_the_batch_and_its_operators_add_up():
    batch = ch_c_details.by_batch("nano", (1, 3))
    assert np.allclose(batch.gflops, batch.batch * batch.per_image)
    assert batch.ratio[1] == pytest.approx(3, rel=1e-3)
    operators = ch_c_details.by_operator("nano")
    assert operators.share.sum() == pytest.approx(100) and operators.gflops.sum() == batch.gflops[0]
    assert (operators.kind != "").all() and (operators.gmacs * 2 == operators.gflops).all()


def test_table_9_says_where_nothing_was_counted_again(monkeypatch):
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    again = ch_c_details.table_9_again()
    assert len(again) == 6 and again["again"].isna().all() and again.measured.notna().all()
