"""Chapter 04, training's share: operations of a training step, ways to get networks, updates against AP."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rfdetr import RFDETR, SearchSpace
from rfdetr.arch import Arch
from rfdetr.experiments import ch04_share
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.model.config import ModelConfig
from rfdetr.training.sampling import draw

PROFILE = get_profile("smoke")
SPACE = SearchSpace((64, 96, 128), (8, 16), (1, 2), (2,), (12,))


def counted(groups, arch, batch):
    """Torch's count of a forward pass in training."""
    torch.manual_seed(0)
    model = RFDETR(num_classes=10, **{**PROFILE.recipe.model, "groups": groups}).train()
    images = torch.rand(batch, 3, arch.resolution, arch.resolution)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images, arch)
    return counter.get_total_flops()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_operations_of_training_are_those_that_torch_counts(groups, depth):
    arch = Arch(96, 16, 2, depth, 9)
    config = ModelConfig(num_classes=10, **PROFILE.recipe.model)
    # Resizing the kernel and the positions is done once for a batch, so one image is a difference.
    one = counted(groups, arch, 2) - counted(groups, arch, 1)
    assert ch04_share.training_operations(config, [arch], groups).tolist() == [one]


def test_masks_are_refused():
    config = ModelConfig(num_classes=10, **{**PROFILE.recipe.model, "segmentation": True})
    with pytest.raises(ValueError, match="detection only"):
        ch04_share.training_operations(config, [Arch(96, 16, 2, 1, 9)], 2)


def test_fewer_groups_cost_less_and_padding_costs_more():
    config = ModelConfig(num_classes=10, **PROFILE.recipe.model)
    groups = ch04_share.group_costs(config, SPACE, (4, 2, 1))
    assert groups["part"].iloc[0] == 1 and groups["part"].is_monotonic_decreasing
    assert ch04_share.resize_costs(config, SPACE, 1, 2)["ratio"] == pytest.approx(1)
    ratio = ch04_share.resize_costs(config, SPACE, 8, 2)["ratio"]
    # The same by drawing: every image its resolution, the batch its patch size and windows.
    costs = ch04_share.training_operations(config, SPACE.archs(), 2).reshape(3, -1).mean(1)
    drawn = np.random.default_rng(0).integers(3, size=(20000, 8)).max(axis=1)
    assert ratio == pytest.approx(costs[drawn].mean() / costs.mean(), rel=0.01)


def kept_networks():
    """A ranking that is not complete: `share` lacks one architecture, `alone` and `tuned` have one seed."""
    archs = ["r96-p16-w2-d1-q9", "r96-p8-w2-d2-q9", "r64-p16-w2-d2-q9"]
    rows = [
        {"kind": kind, "seed": seed, "arch": arch, "AP": ap + 0.01 * i + 0.001 * seed, "updates": 5}
        for kind, seeds, ap in (
            ("inherited", 2, 0.5),
            ("alone", 1, 0.4),
            ("tuned", 1, 0.6),
            ("share", 1, 0.1),
        )
        for seed in range(seeds)
        for i, arch in enumerate(archs[: 2 if kind == "share" else 3])
    ]
    return pd.DataFrame(rows)


def test_ways_are_compared_over_what_all_of_them_have():
    networks, recipe = kept_networks(), {"alone": 40, "tuned": 10, "share": 5}
    ways = ch04_share.ways(networks, recipe, PROFILE).set_index("way")
    assert (ways["architectures"] == 2).all()
    assert ways["AP"]["inherited"] == pytest.approx(0.5055) and ways["AP"]["share"] == pytest.approx(0.105)
    assert ways["seeds"]["inherited"] == (0, 1) and ways["seeds"]["alone"] == (0,)
    assert ways["tflops"]["alone"] == pytest.approx(8 * ways["tflops"]["share"])
    assert ways["tflops"]["tuned"] > ways["tflops"]["inherited"]
    assert ways["networks"]["inherited"] == len(PROFILE.recipe.search.distinct())
    without = ch04_share.ways(networks[networks["kind"] != "share"], recipe, PROFILE)
    assert set(without["way"]) == {"inherited", "tuned", "alone"} and (without["architectures"] == 3).all()


def test_coverage_names_seeds_and_what_is_missing():
    words = ch04_share.coverage(kept_networks())
    assert words == "inherited: seeds 0, 1; alone: seed 0; tuned: seed 0; share: seed 0 (2 of 3)"


def test_updates_are_those_that_training_drew():
    archs = SPACE.distinct()
    table = pd.DataFrame([arch.to_dict() for arch in archs]).assign(AP=[0.1 * arch.grid for arch in archs])
    found = ch04_share.updates_against_ap(table, SPACE, seed=3, steps=50)
    steps = [draw(SPACE, 3, step)[0].encoder for step in range(50)]
    for row in found.itertuples():
        assert row.updates == steps.count((row.resolution, row.patch_size, row.windows))
    assert found["updates"].sum() == 50
    # AP is a function of the tokens here, so at equal tokens nothing is left of it.
    assert np.allclose(found["relative"].dropna(), 0)


def test_agreement_of_updates_and_accuracy_has_its_interval():
    rng = np.random.default_rng(0)
    updates = rng.permutation(40)
    found = pd.DataFrame({"updates": updates, "AP": updates / 40, "relative": rng.normal(size=40)})
    tau = ch04_share.updates_agreement(found, draws=100)
    assert tau["tau"].iloc[0] == pytest.approx(1) and tau["low"].iloc[0] == pytest.approx(1)
    assert tau["low"].iloc[1] < tau["tau"].iloc[1] < tau["high"].iloc[1] and tau["low"].iloc[1] < 0.2
