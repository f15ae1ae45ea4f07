"""Evidence of every chapter as its notebook makes it, small: what the tests of verdicts mutate.

Chapters that only count use their own functions. Those that train get made-up results in which the claims
hold, since a network trained for a second shows nothing.
"""

from functools import cache

import numpy as np
import pandas as pd
import torch

from rfdetr.arch import PRESETS
from rfdetr.benchmark.flops import analytic
from rfdetr.data.dataset import Target
from rfdetr.experiments import (
    ch00_introduction,
    ch01_exactness,
    ch02_search_space,
    ch03_flexible_patches,
    ch04_share,
    ch05_knobs,
    ch07_families,
    ch09_within,
    ch10_ablation,
    ch12_configurations,
    ch_a_recipe,
    ch_c_counting,
    ch_e_larger_variants,
)
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.model.config import preset_config
from rfdetr.training.config import TrainConfig


def _interval(names, values):
    columns = ["low", "high"]
    return pd.DataFrame(values, columns=[*names, *columns])


def _unseen():
    names = ["side", "arch", "below", "above", "AP", "neighbours", "difference"]
    rows = [(13, "r104", "r96", "r112", 0.70, 0.70, 0.001, -0.01, 0.012)]
    return _interval(names, [*rows, (15, "r120", "r112", "r128", 0.71, 0.715, -0.004, -0.013, 0.006)])


def _parity():
    quantities = ("logits", "boxes", "enc_logits", "enc_boxes", "projector", "masks")
    return pd.DataFrame(
        [("seg-nano", quantity, 2e-6, ch01_exactness.LIMIT) for quantity in quantities],
        columns=["configuration", "quantity", "difference", "limit"],
    )


@cache
def _kept():
    return kept.load("full-search").tables["table"]


def _architecture():
    blocks = pd.DataFrame(
        {"kind": ["windowed", "windowed", "global"] * 2, "windows_reached": [1, 1, 4, 1, 1, 4]}
    )
    cuts = pd.DataFrame({"decoder_layers": [0, 1, 2], "difference": [0.0, 1e-16, 0.0]})
    subnets = pd.DataFrame({"arch": ["a", "b"], "difference": [0.0, 1e-15]})
    lists = pd.DataFrame({"list": ["released models", "Appendix A"], "difference": [0.06, -1.28]})
    return {"blocks": blocks, "lists": lists, "parity": _parity(), "subnets": subnets, "cuts": cuts}


def _search():
    chosen = _interval([], [])
    chosen = pd.DataFrame(
        {
            "predicted_ms": [1.0, 2.0, 4.0],
            "test_AP": [0.4, 0.6, 0.7],
            "test_low": [0.37, 0.57, 0.67],
            "test_high": [0.43, 0.63, 0.73],
        }
    )
    table = _kept()
    return {
        "chosen": chosen,
        "kept": table,
        "kept_nominal": ch05_knobs.nominal_table(table, PROFILES["full"].recipe.search),
        "by_domain": ch09_within.smaller_patches(kept.load("fourteen-domains")),
        "recheck": pd.DataFrame({"AP": [0.5, 0.6], "kept_AP": [0.5, 0.6001]}),
    }


def _half_precision():
    accuracy = _interval(["what", "AP", "difference"], [("a", 0.7, 0, 0, 0), ("b", 0.7, 0, 0, 0)])
    accuracy.loc[2] = ["c", 0.7, -0.0001, -0.0004, 0.0002]
    overflow = _interval(
        ["what", "AP", "difference"],
        [("a", 0.7, 0, 0, 0), ("b", 0.01, -0.69, -0.7, -0.68), ("c", 0.7, 0.0, -0.001, 0.001)],
    )
    t4 = pd.DataFrame(
        {
            "model": ["nano"] * 3,
            "requested": ["fp16"] * 3,
            "protocol": ["buffered"] * 3,
            "pause_ms": [0, 200, 400],
            "latency_ms": [2.5, 2.3, 2.3],
            "throttle": ["throttled", "clean", "clean"],
        }
    )
    return {"accuracy": accuracy, "overflow": overflow, "t4_rows": t4}


def _drops():
    changes = ["decoder_layers", "queries", "AP", "change", "gflops_ratio"]
    queries = _interval(changes, [(d, 20, 0.7, -0.003, 0.97, -0.006, 0.001) for d in (0, 1, 2, 3)])
    layers = _interval(
        ["dropped", *changes],
        [(1, 2, 30, 0.7, -0.02, 0.95, -0.025, -0.014), (3, 0, 30, 0.4, -0.3, 0.85, -0.33, -0.27)],
    )
    depths = _interval(
        ["decoder_layers", "AP", "gflops"],
        [(0, 0.41, 0.4, 0.38, 0.44), (1, 0.6, 0.5, 0.57, 0.63), (3, 0.72, 0.6, 0.7, 0.74)],
    )
    return {"depths": depths, "queries": queries, "last_layer": layers}


def _counts():
    """`ch12_configurations.count_table` by formula instead of torch's counter, which takes longer."""
    rows = []
    for name, preset in PRESETS.items():
        found = analytic(preset_config(name), convention="published")
        rows.append((name, preset.params_m, found.params / 1e6, preset.gflops, found.gflops))
    columns = ["configuration", "params_printed", "params_m", "gflops_printed", "gflops"]
    return pd.DataFrame(rows, columns=columns)


def _introduction():
    """Three queries near two objects, and what is done with them by hand."""
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.2]])
    target = Target(torch.tensor([0, 1]), boxes, None, image_id=1, size=(96, 96))
    logits = torch.tensor([[2.0, -1.0], [-2.0, 1.0], [0.5, 0.0]])
    answer = ch00_introduction.Answer(
        np.zeros((96, 96, 3), np.uint8),
        target,
        ("a", "b"),
        logits,
        torch.cat([boxes * 1.05, boxes[:1] * 0.9]),
    )
    pairs = ch00_introduction.pairs(answer)
    chosen = pairs.loc[pairs.matched, ["query", "object"]]
    loss = ch00_introduction.training_loss(answer)
    by_hand = ch00_introduction.average_precision(ch00_introduction.ranking(answer))
    coco = ch00_introduction.evaluated(answer)["AP50"]
    return {
        "pairs": pairs,
        "by_hand": chosen,
        "loss": pd.DataFrame({"by_hand": [loss], "training": [loss]}),
        "ap": pd.DataFrame({"by_hand": [by_hand], "pycocotools": [coco]}),
    }


PREFIX = "rfdetr.experiments"
EVIDENCE = {
    f"{PREFIX}.ch00_claims": _introduction(),
    f"{PREFIX}.ch01_claims": _architecture(),
    f"{PREFIX}.ch02_claims": {
        "windows": ch02_search_space.window_costs(),
        "drawn": ch02_search_space.drawn_token_grids(),
        "training": ch04_share.step_costs(),
    },
    f"{PREFIX}.ch03_claims": {
        "errors": ch03_flexible_patches.errors(40, sizes=(12, 16, 20), seed=1),
        "positions": ch03_flexible_patches.position_errors(),
    },
    f"{PREFIX}.ch04_claims": {"unseen_grids": _unseen(), "unseen_patches": _unseen()},
    f"{PREFIX}.ch05_claims": _search(),
    f"{PREFIX}.ch06_claims": _half_precision(),
    f"{PREFIX}.ch07_claims": {"families": ch07_families.family_table(ch07_families.DETECTION)},
    f"{PREFIX}.ch10_claims": {
        "steps": ch10_ablation.step_counts(),
        "backbones": ch10_ablation.backbone_depths(),
    },
    f"{PREFIX}.ch12_claims": {
        "counts": _counts(),
        "steps": ch12_configurations.decoder_steps(),
        "masks": ch12_configurations.mask_head_cost(),
        "positions": ch12_configurations.position_grids(),
        "widths": ch12_configurations.width_table(),
    },
    f"{PREFIX}.ch_a_claims": {
        "rates": ch_a_recipe.learning_rates(),
        "layer_decay": TrainConfig().layer_decay,
        "accumulation": ch_a_recipe.accumulation(),
        "padding": ch_a_recipe.padding(),
    },
    f"{PREFIX}.ch_b_claims": _drops(),
    f"{PREFIX}.ch_c_claims": {
        "nine": ch_c_counting.table_9(),
        "checks": ch_c_counting.formula_check(("nano",)),
        "default": ch_c_counting.default_counter(),
    },
    f"{PREFIX}.ch_e_claims": {"family": ch_e_larger_variants.family_counts()},
    f"{PREFIX}.ch09_claims": {"twice": pd.DataFrame({"AP": [0.5, 0.6], "difference": [1e-5, 2e-5]})},
    f"{PREFIX}.ch_f_claims": {
        "longer": pd.DataFrame({"difference": [0.02], "low": [0.01], "high": [0.03], "domains": [14]})
    },
    f"{PREFIX}.ch_i_claims": {
        "counted": pd.DataFrame({"network": ["a", "b"], "false_per_picture": [0.5, 1.5]})
    },
    f"{PREFIX}.ch_h_claims": {
        "low_latency": pd.DataFrame(
            {"domain": list("abcdef"), "queries": [10.0, 20, 10, 10, 20, 10], "base": [40] * 6}
        )
    },
}  # fmt: skip
"""Module of claims -> its evidence by name."""
