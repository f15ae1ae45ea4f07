"""Sub-networks of the kept domains against each other: an unseen patch size and decoder layers (03 and B)."""

import numpy as np
import pytest
from domain_case import SIZES, study

from rfdetr.arch import Arch
from rfdetr.experiments import ch09_within
from rfdetr.experiments.base.kept import Kept
from rfdetr.experiments.ch05_claims import c037
from rfdetr.experiments.ch09_intervals import FEW

ARCHS = [Arch.parse(name) for name in study(["bccd"], ("nas",)).tables["grid"]["arch"]]


def made(rule, count=FEW):
    """A benchmark whose AP follows `rule(arch)`, the same on the resampled pictures, plus a little chance."""
    result = study(SIZES.real[:count], ("nas", "fixed"))
    rng = np.random.default_rng(0)
    ap = np.array([rule(arch) for arch in ARCHS])
    arrays = dict(result.arrays)
    for key in arrays:
        if key.startswith(("test:", "again:")):
            noise = rng.normal(0, 0.002, arrays[key].shape[:-1])
            arrays[key] = np.round((ap + noise[..., None]) * 65535).astype(np.uint16)
    return Kept(result.tables, result.record, result.folder, arrays)


def test_twins_differ_in_patch_size_and_resolution_alone():
    pairs = ch09_within.unseen_pairs(study(["bccd"], ("nas",)))
    assert len(pairs) > 100 and set(pairs["patch_size"]).isdisjoint(SIZES.training.patch_sizes)
    drawn = set(SIZES.training.triples())
    for row in pairs.itertuples():
        one, twin = ARCHS[row.place], ARCHS[row.twin_place]
        assert twin.encoder in drawn and twin.patch_size == row.twin_patch != one.patch_size
        assert one.grid == twin.grid == row.side
        same = ("windows", "decoder_layers", "queries")
        assert [getattr(one, name) for name in same] == [getattr(twin, name) for name in same]
        assert row.pixels == pytest.approx(one.resolution / twin.resolution)


@pytest.mark.parametrize("effect", [0.02, -0.02, 0.0])
def test_an_effect_of_the_unseen_patch_size_is_found_and_no_other(effect):
    unseen = set(SIZES.search.patch_sizes) - set(SIZES.training.patch_sizes)

    def rule(arch):
        return 0.3 + 0.01 * arch.grid + effect * (arch.patch_size in unseen)

    by_domain = ch09_within.unseen_by_domain(made(rule))
    assert len(by_domain) == FEW + 1
    assert by_domain["difference"].to_numpy() == pytest.approx(effect, abs=1e-4)
    by_side = ch09_within.unseen_by_side(made(rule))
    assert by_side["difference"].to_numpy() == pytest.approx(effect, abs=1e-4)
    assert (by_side["domains"] == FEW).all() and (by_side["over"] == "domains").all()
    few = ch09_within.unseen_by_domain(made(rule, 2))
    assert not few["resolved"].any() and len(few) == 3


def test_what_a_layer_brings_is_found():
    result = made(lambda arch: 0.2 + 0.05 * arch.decoder_layers + 0.001 * arch.resolution)
    steps = ch09_within.depth_steps(result)
    assert steps["difference"].to_numpy() == pytest.approx(0.05, abs=1e-4)
    assert steps.loc[steps["domain"] == "all", "resolved"].all()
    assert not steps.loc[steps["domain"] != "all", "resolved"].any()  # one seed each
    by_depth = ch09_within.depths(result)
    layers = [str(depth) for depth in SIZES.search.decoder_layers]
    assert list(by_depth) == ["domain", *layers] and len(by_depth) == FEW
    assert np.diff(by_depth[layers].to_numpy()) == pytest.approx(0.05, abs=1e-4)


def test_what_a_smaller_patch_brings_is_found():
    """Every pair is one step of the patch size; AP by the tokens a side, so that more of them always gain."""
    result = made(lambda arch: 0.2 + 0.01 * arch.grid)
    found = ch09_within.smaller_patches(result)
    assert len(found) == FEW + 1 and (found["dearer"] == 1).all() and (found["pairs"] > 100).all()
    assert found["difference"].min() > 0.01 and found["resolved"].iloc[-1]
    falling = ch09_within.smaller_patches(made(lambda arch: 0.6 - 0.01 * arch.grid))
    assert falling["difference"].to_numpy() == pytest.approx(-found["difference"].to_numpy(), abs=1e-4)
    words = [c037(frame, None).verdict for frame in (found, falling, found.iloc[1:])]
    assert words[:2] == ["consistent", "contradicted"] and words[2].startswith("needs")
    flat = ch09_within.smaller_patches(made(lambda arch: 0.3))
    assert c037(flat, None).verdict == "not resolved"
