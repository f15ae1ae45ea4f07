"""What the chapters read from a kept run of many detectors: made-up ones of the real form."""

import numpy as np
import pandas as pd
import pytest

from rfdetr.experiments import (
    ch07_conclusions,
    ch07_contest,
    ch07_families,
    ch07_gains,
    ch07_orders,
    ch07_timed,
    ch08_masks,
    ch11_backbones,
)
from rfdetr.experiments.base.kept import Kept
from rfdetr.peers import catalogue

CORE = ch07_contest.CORE
WHOLE = (*ch07_contest.OURS, *ch07_contest.PEERS)
SPEED = {"fp32": 1.0, "bf16": 2.0, "int8": 3.0}


def run(models=CORE, threads=(1, 2), rounds=1, time=None, built=lambda asked: asked):
    """A kept run in which a model takes `time(model)` ms (its GFLOPs) over the speed of the precision."""
    time = time or ch07_timed.gflops_of
    rows = []
    for model in models:
        for runtime, precisions in ch07_contest.PRECISIONS.items():
            for asked in precisions:
                for number in range(rounds):
                    for count in threads:
                        for protocol in ("buffered", "sustained"):
                            ms = time(model) / SPEED[asked] / (1 + 0.8 * (count - 1)) * (1 + 0.01 * number)
                            slower = 1.1 if protocol == "buffered" else 1.0
                            rows.append(
                                {
                                    **{"model": model, "runtime": runtime, "asked": asked, "round": number},
                                    **{"threads": count, "protocol": protocol, "median_ms": ms * slower},
                                    **{"precision": built(asked), "memory_mb": 50.0, "load_s": 1.0},
                                    "noisy": False,
                                }
                            )
    frame = pd.DataFrame(rows)
    return Kept({"rows": frame, "models": ch07_contest.summary(frame)}, {}, None)


def detection(result, **options):
    families = ch07_families.family_table(ch07_families.DETECTION)
    return ch07_timed.beside_print(families, result, **options)


def test_all_times_by_runtime_precision_and_threads():
    found = ch07_timed.times(run())
    ways = [column for column in found if ", " in column]
    assert set(found.model) == set(CORE) and len(ways) == 4 * 2
    assert (
        found.gflops.is_monotonic_increasing and found.spread.isna().all() and (found.memory_mb == 50).all()
    )
    assert np.allclose(found["openvino int8, 2"] * 3 * 1.8, found["onnxruntime fp32, 1"])
    # With more rounds there is a spread.
    assert np.allclose(ch07_timed.times(run(CORE[:3], rounds=3)).spread, 0.02 / 1.01)
    changed = ch07_timed.conditions(run()).set_index("way")
    assert np.allclose(changed.pause, 1.1) and np.allclose(changed.threads, 1.8)
    assert changed.built["openvino int8"] == "int8" and (changed.noisy == 0).all()
    one = ch07_timed.conditions(run(threads=(1,)))
    assert one.threads.isna().all() and np.allclose(one.pause, 1.1)


def test_rank_correlations_come_with_interval_number_and_p():
    found = ch07_orders.orders(detection(run()))
    assert len(found) == 4 * 3 and (found.models == 16).all()
    by = found.set_index(["of", "way"])
    exact = by.loc[("GFLOPs, one convention", "openvino int8")]
    assert exact.tau == pytest.approx(1) and exact.low > 0.99 and exact.p < 1e-6 and exact.resolved
    params = by.loc[("parameters", "openvino int8")]
    assert params.low < params.tau < params.high < 1
    text = ch07_orders.said(found)
    assert "With GFLOPs, one convention: tau 1.00 over 16 models, resolved from zero in every" in text
    # Times that have nothing to do with anything are not resolved.
    random = np.random.default_rng(4)
    noise = {model: float(random.uniform(1, 2)) for model in CORE}
    lost = ch07_orders.orders(detection(run(time=noise.get)))
    assert not lost.resolved.any() and (lost.low < 0).all() and (lost.high > 0).all()
    assert "not resolved from zero in any" in ch07_orders.said(lost)


def test_which_reference_is_closer_can_come_out_either_way():
    pair = ("GFLOPs, one convention", "parameters")
    found = ch07_orders.closer(detection(run()), *pair)
    assert (found.difference > 0).all() and found.resolved.all()
    assert "resolved in all of them" in ch07_orders.closer_said(found, *pair)
    turned = ch07_orders.closer(detection(run()), *pair[::-1])
    assert np.allclose(turned.difference, -found.difference) and np.allclose(turned.low, -found.high)
    few = ch07_orders.closer(detection(run(CORE[:5])), *pair)
    assert few.low.isna().all() and not few.resolved.any()
    assert "not resolved in any" in ch07_orders.closer_said(few, *pair)


def test_four_models_have_a_p_and_no_interval():
    masks = ch07_families.family_table(ch07_families.SEGMENTATION)
    table = ch07_timed.beside_print(masks, run(), masks=True)
    found = ch07_orders.orders(table)
    assert (found.models == 4).all() and found.low.isna().all() and found.p.between(0, 1).all()
    assert not found.resolved.any()
    assert ch07_orders.kendall(np.zeros(0), np.zeros(0))["models"] == 0


def test_conclusions_are_decided_by_the_times():
    rows = ch07_conclusions.printed_rows(run())
    assert len(rows) == 16
    printed = dict(zip(rows["name"], rows["latency_ms"], strict=True))
    like = run(time=lambda model: printed.get(model, 5.0))
    table = ch07_conclusions.compact(ch07_conclusions.conclusions(like))
    # With the printed latencies everything is as in print.
    assert len(table) == len(ch07_conclusions.STATEMENTS)
    assert set(table.carries) <= {"yes", "not borne out in print"} and (table.carries == "yes").sum() >= 3
    assert "Carry over to this processor in every way" in ch07_conclusions.said(table)
    pairs = ch07_conclusions.pairs(like)
    assert (pairs.turned == 0).all() and (pairs.near == 0).all() and (pairs.most == "").all()
    # RF-DETR ten times as slow: nothing that praises it is left.
    slow = run(time=lambda model: printed.get(model, 5.0) * (10 if model in ch07_contest.OURS else 1))
    table = ch07_conclusions.compact(ch07_conclusions.conclusions(slow)).set_index("statement")
    assert table.carries["RF-DETR N takes about as long as D-FINE N"] == "no"
    assert table.carries["every RF-DETR is on the front of AP over latency"] == "no"
    assert "front: " in table.decided_by["every RF-DETR is on the front of AP over latency"]
    assert "D-FINE M" in table.decided_by["no other row is above every RF-DETR of similar latency"]
    turned = ch07_conclusions.pairs(slow)
    assert (turned.turned > 10).all() and turned.most.str.contains("RF-DETR").all()
    # Rows that are missing are no answer.
    few = run(("nano", "yolov8-n", "yolov8-m"))
    table = ch07_conclusions.compact(ch07_conclusions.conclusions(few)).set_index("statement")
    assert table.carries["RF-DETR N takes about as long as D-FINE N"] == "not timed"
    assert "Cannot be decided here" in ch07_conclusions.said(table.reset_index())


def test_the_gain_of_a_precision_grows_or_not():
    same = ch07_gains.gains(run())
    assert set(same.way) == {"openvino fp32", "openvino bf16", "openvino int8"} and len(same) == 3 * len(CORE)
    assert np.allclose(same.gain[same.way == "openvino int8"], 3)
    grown = ch07_gains.growth(same).set_index("way")
    assert not grown.resolved["openvino int8"]
    text = ch07_gains.said(same, "nano")
    assert "at the size of nano: openvino fp32 1.00, openvino bf16 2.00, openvino int8 3.00" in text
    assert "not resolved" in text and "in the precision that was asked for" in text
    wide = ch07_gains.beside(same)
    assert len(wide) == len(CORE) and wide.gflops.is_monotonic_increasing

    # Larger networks gain more, and this processor has no bfloat16.
    result = run(built=lambda asked: "fp32" if asked == "bf16" else asked)
    models = result.tables["models"]
    larger = models.asked == "int8"
    models.loc[larger, "median_ms"] /= models[larger].model.map(ch07_timed.gflops_of) ** 0.2
    found = ch07_gains.gains(result)
    assert ch07_gains.growth(found).set_index("way").resolved["openvino int8"]
    text = ch07_gains.said(found, "nano")
    assert "larger ones gain more" in text and "openvino bf16 as fp32" in text and "nothing to gain" in text
    mixed = same.assign(built=same.built.where(same.model + same.way != "nanoopenvino int8", "mixed"))
    text = ch07_gains.said(mixed, "nano")
    assert "59 were executed" in text and "products were: nano (openvino int8)." in text
    assert "nothing to gain" not in text
    alone = Kept({"models": models[models.runtime == "onnxruntime"]}, {}, None)
    assert ch07_gains.gains(alone).empty


def test_what_a_short_run_lacks_is_said_and_a_whole_one_shows():
    short, whole = run(), run(WHOLE)
    assert ch07_gains.inside_and_outside(short) is None and ch08_masks.timed(short) is None
    assert "no run of many" in ch07_timed.without("Hiera-S", None).lower()
    assert "20 models, Hiera-S not among them" in ch07_timed.without("Hiera-S", short)
    ends = ch07_gains.inside_and_outside(whole)
    assert np.allclose(ends.added, 0) and set(ends.model) == {"yolo11-n"}
    assert len(ch08_masks.timed(whole)) == 2 * 4 * 2
    costs = {name: catalogue.named(name)["gflops_with_attention"] for name in ch07_contest.BACKBONES}
    backbones = ch11_backbones.timed(run(ch07_contest.BACKBONES, rounds=2, time=costs.get))
    assert np.allclose(backbones.per_operation, 1) and len(backbones) == 2 * 4 * 2
    assert set(backbones.backbone) == {"CAEv2", "SigLIPv2"} and (backbones.least <= backbones.most).all()
    assert "operations explain it" in ch11_backbones.timed_said(backbones)
    for factor, word in ((2, "is seen on this processor"), (0.5, "the opposite")):
        assert word in ch11_backbones.timed_said(backbones.assign(per_operation=factor))
    mixed = backbones.assign(per_operation=np.linspace(0.7, 1.6, len(backbones)))
    assert "depends on runtime" in ch11_backbones.timed_said(mixed)
