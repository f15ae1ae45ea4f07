"""Chapter H: unseen patch sizes, the law of the tokens, steps of knobs, queries; the kept benchmark in
part.
"""

import numpy as np
import pandas as pd
import pytest

from rfdetr.arch import TRAINING_GRID, Arch
from rfdetr.errors import UserError
from rfdetr.experiments import ch05_knobs, ch09_reading, ch_h_claims
from rfdetr.experiments import ch_h_architectures as found
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.experiments.ch09_intervals import FEW
from rfdetr.paper import tables

SPACE = PROFILES["full"].recipe.search


@pytest.mark.parametrize(
    "space", [TRAINING_GRID, *(p.recipe.training for p in PROFILES.values())], ids=lambda s: len(s)
)
def test_a_family_has_unseen_patch_sizes_at_one_resolution_and_seen_twins(space):
    family = found.unseen_family(space, 3, 30)
    assert len(family) <= 3 and family["side"].is_unique
    for row in family.itertuples():
        assert row.arch.patch_size not in space.patch_sizes
        assert row.arch.resolution > max(space.resolutions) - row.arch.patch_size
        assert row.twin.encoder in space.triples() and row.twin.grid == row.arch.grid == row.side
        assert row.arch.queries == row.twin.queries
    assert family["twin"].map(lambda a: a.patch_size).nunique() <= 1


def test_the_printed_grid_has_a_whole_family():
    family = found.unseen_family(TRAINING_GRID, 6, 300, count=20)
    assert len(family) >= 3 and {row.arch.resolution for row in family.itertuples()} != {960}


def made(rule):
    """A table of all sub-networks whose AP follows `rule(side, resolution, patch)` and the decoder."""
    rows = [
        {**arch.to_dict(), "AP": rule(arch.grid, arch.resolution, arch.patch_size)
         + 0.05 * arch.decoder_layers + 0.001 * arch.queries, "gflops": float(arch.tokens)}
        for arch in SPACE.distinct()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_what_decides_is_what_explains():
    by_side = found.regressions(made(lambda s, r, p: 0.1 * np.log2(s)), 20).set_index("explained by")
    assert by_side.loc["tokens a side", "r_squared"] > 0.999
    assert by_side.iloc[-1]["r_squared"] == pytest.approx(0, abs=1e-6)
    by_resolution = found.regressions(made(lambda s, r, p: 0.1 * np.log2(r)), 20).set_index("explained by")
    assert by_resolution.loc["resolution", "r_squared"] > 0.999
    assert by_resolution.loc["tokens a side", "r_squared"] < 0.7
    assert by_resolution.iloc[-1]["low"] > 0.2
    # The more general curve never fits worse.
    free = by_resolution.loc[found.FREE, "r_squared"]
    assert free >= by_resolution.drop(index=[found.FREE])["r_squared"].max() - 1e-9
    assert np.isnan(found.regressions(made(lambda s, r, p: 0.0), 0)["r_squared"]).all()


def test_steps_of_knobs_and_windows_have_their_sizes():
    table = made(lambda s, r, p: 0.02 * s)
    table["AP"] -= 0.01 * np.log2(table["windows"])
    windows = found.window_steps(table)
    assert windows["gain"].tolist() == pytest.approx([-0.01, -0.01, -0.02])
    assert (windows["high"] - windows["low"]).max() < 1e-9
    steps = found.knob_steps(ch05_knobs.nominal_table(table, SPACE))
    layers = steps[steps["knob"] == "decoder_layers"]
    assert layers["gain"].tolist() == pytest.approx([0.05] * 6)
    counts = {knob: len(rows) for knob, rows in steps.groupby("knob")}
    assert counts == {"resolution": 10, "patch_size": 6, "windows": 2, "decoder_layers": 6, "queries": 3}


def test_the_front_is_ordered_and_a_constant_knob_has_no_trend():
    table = made(lambda s, r, p: 0.02 * s)
    table = table[table["windows"] == 1]
    best, along = found.front_scaling(table)
    assert best["gflops"].is_monotonic_increasing and best["AP"].is_monotonic_increasing
    taus = along.set_index("knob")["tau"]
    assert taus["side"] == pytest.approx(1) and np.isnan(taus["windows"])
    assert len(found.spread(best, 3)) == 3 and len(found.spread(best.iloc[:2], 8)) == 2


def test_the_printed_slope_and_its_interval_agree_with_the_printed_p():
    printed = found.printed_queries_slope()
    assert (printed["low"] <= 0 <= printed["high"]) == (printed["p_value"] > 0.05)
    row = tables.find_row(17, relationship="Average Objects per Image vs Number of Queries")
    assert printed["slope"] == float(row["slope"])


def test_the_regression_of_objects_on_queries():
    rng = np.random.default_rng(0)
    queries = np.arange(10.0, 10 + 5 * FEW, 5)
    table = pd.DataFrame({"queries": queries, "objects_per_image": 0.1 * queries + rng.normal(0, 0.1, FEW)})
    again = found.queries_slope(table)
    assert again["low"] < 0.1 < again["high"] and again["low"] > 0 and again["points"] == FEW
    # With fewer domains there is a slope and no interval, with two nothing.
    few = found.queries_slope(table.iloc[: FEW - 1])
    assert few["slope"] == pytest.approx(0.1, abs=0.03) and np.isnan([few["low"], few["p_value"]]).all()
    for count in range(3):
        assert np.isnan(found.queries_slope(table.iloc[:count])["slope"])
    assert np.isnan(found.queries_slope(table.assign(queries=10.0))["slope"])


def test_queries_rise_with_objects_when_they_do():
    table = pd.DataFrame({"queries": [10.0, 20, 30, 40, 50, 60], "objects_per_image": 2.0 ** np.arange(6)})
    rises = found.queries_per_doubling(table)
    assert rises["slope"] == pytest.approx(10) and rises["low"] > 0 and rises["tau"] == pytest.approx(1)
    falls = found.queries_per_doubling(table.assign(queries=table["queries"].to_numpy()[::-1]))
    assert falls["high"] < 0 and falls["tau"] == pytest.approx(-1)
    mixed = found.queries_per_doubling(table.assign(queries=[10.0, 60, 20, 50, 30, 40]))
    assert mixed["low"] < 0 < mixed["high"]
    assert np.isnan(found.queries_per_doubling(table.iloc[:1])["tau"])
    # A domain without objects has no logarithm, and takes no part.
    empty = found.queries_per_doubling(table.assign(objects_per_image=[0, *table["objects_per_image"][1:]]))
    assert empty["points"] == 5 and empty["slope"] == pytest.approx(10)


def choices(counts):
    rows = [
        {"domain": f"d{i}", "seed": s, "target": t, "kind": "nas", "arch": f"r64-p8-w1-d2-q{q}", "AP": 0.5}
        for i, q in enumerate(counts)
        for s in (0, 1)
        for t in ("N", "M")
    ]
    return found.low_latency_queries(pd.DataFrame(rows), {"N": "r64-p8-w1-d2-q30"})


def test_fewer_queries_than_the_base_can_come_out_either_way():
    words = {
        name: ch_h_claims.c175(choices(counts)).verdict
        for name, counts in {"fewer": [10] * 6, "more": [40] * 6, "mixed": [10, 20, 50, 60, 10, 40]}.items()
    }
    assert words == {"fewer": "consistent", "more": "contradicted", "mixed": "not resolved"}
    assert ch_h_claims.c175(None).verdict.startswith("needs")
    assert ch_h_claims.c175(choices([10, 10])).verdict.startswith("needs")


def part_of_a_study(folder, domains, kinds=("nas", "fixed")):
    rows = [
        {"domain": d, "seed": s, "kind": k, "target": t, "arch": Arch(80, 8, 1, 1, 10).id, "AP": 0.5}
        for d in domains for s in (0, 1) for k in kinds for t in ("N", "S", "M")
    ]  # fmt: skip
    kept.keep(
        folder, {"tests": pd.DataFrame(rows)}, {"profile": "cpu"}, fixed={}, missing=["first-tune-kuih"]
    )


def test_the_kept_benchmark_in_part_or_not_at_all(tmp_path):
    assert ch09_reading.load(tmp_path) is None
    assert "Not in this copy" in ch09_reading.words(None)
    assert (ch09_reading.coverage(None)["searched"] == 0).all()
    part_of_a_study(tmp_path / "fourteen-domains", ["bccd", "crowd"])
    result = ch09_reading.load(tmp_path)
    by = ch09_reading.coverage(result).set_index("domain")
    assert by.loc["bccd", "searched"] == 2 and by.loc["raccoon", "searched"] == 0 and len(by) == 20
    assert by["fine_tuned"].sum() == 0 and ch09_reading.names(result) == ["bccd", "crowd"]
    text = ch09_reading.words(result)
    assert "2 of 20 planned domains searched: bccd, crowd." in text and "raccoon" in text.split("Not in")[1]
    assert "0 of 20" in ch09_reading.words(result, "fine_tuned")
    assert ch09_reading.few_words(2) and not ch09_reading.few_words(FEW)
    (tmp_path / "fourteen-domains" / "tests.csv").write_text("domain\nbccd\n")
    with pytest.raises(UserError, match="is not the table"):
        ch09_reading.load(tmp_path)
