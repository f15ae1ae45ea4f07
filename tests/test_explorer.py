"""The explorer: what the page is given equals the numbers of the Python code."""

import json

import numpy as np
import pytest
from explorer_case import CONFIG, SMALL, arch_at, random_cells, searched, value

from rfdetr import PRESETS
from rfdetr.arch import SEARCH_GRID, Arch
from rfdetr.benchmark.flops import analytic
from rfdetr.plots import explorer
from rfdetr.search.pareto import front_mask


@pytest.fixture(scope="module")
def whole():
    return explorer.payload(CONFIG, SEARCH_GRID, marks=explorer.published("nano", "large", "base"))


def test_numbers_of_the_page_are_those_of_the_code(whole):
    for at in random_cells(whole, 60):
        arch = arch_at(whole, at)
        count = analytic(CONFIG, arch)
        assert value(whole, "resolution", at) == arch.resolution
        assert value(whole, "tokens", at) == arch.tokens
        assert value(whole, "queries", at) == arch.queries
        assert value(whole, "gflops", at) == round(count.gflops, 1)
        assert value(whole, "params", at) == round(count.params_deployed / 1e6, 1)
        stages = [value(whole, stage["column"], at) for stage in whole["stages"]]
        assert sum(stages) == pytest.approx(count.gflops, abs=0.05 * len(stages) + 1e-9)


def test_every_stage_is_in_one_part():
    parts = [stage for part in explorer._PARTS.values() for stage in part]
    assert sorted(parts) == sorted(explorer.STAGES)


def test_data_of_the_whole_grid_stays_small(whole):
    assert len(json.dumps(whole, separators=(",", ":"))) < 300_000
    # A number that the decoder does not change is held once for each encoder setting.
    assert whole["columns"]["tokens"]["shape"] == [11, 7, 3, 1, 1]


def test_published_sizes_are_marked_where_they_are_in_the_grid(whole):
    assert [mark["label"] for mark in whole["marks"]] == ["nano", "large"]
    nano = whole["marks"][0]
    assert arch_at(whole, nano["at"]) == PRESETS["nano"].arch and whole["start"] == nano["at"]
    assert f"{PRESETS['nano'].latency_ms:g} ms" in nano["note"]


def test_a_search_shows_accuracy_latency_and_the_way_to_the_front():
    found = searched(SMALL, missing=4)
    data = explorer.payload(CONFIG, SMALL, found)
    by_arch = found.set_index(list(Arch.KNOBS))
    missing = 0
    for at in np.ndindex(3, 2, 3, 2, 2):
        arch = arch_at(data, at)
        key = tuple(arch.to_dict().values())
        if key not in by_arch.index:
            missing += 1
            assert [value(data, name, at) for name in ("AP", "latency", "regret")] == [None] * 3
            continue
        row = by_arch.loc[key]
        assert value(data, "AP", at) == round(row.AP, 3)
        assert value(data, "latency", at) == round(row.predicted_ms, 2)
        best = found[found.predicted_ms <= row.predicted_ms].AP.max()
        assert value(data, "regret", at) == pytest.approx(best - row.AP, abs=6e-4)
    assert missing
    front = found[front_mask(found.AP.to_numpy(), found.predicted_ms.to_numpy())]
    assert sorted(data["front"]) == sorted(
        [round(x, 2), round(y, 3)] for x, y in front[["predicted_ms", "AP"]].to_numpy()
    )
    assert {mark["label"] for mark in data["marks"]} == {"fastest", "middle of the front", "most accurate"}
    assert value(data, "regret", data["marks"][0]["at"]) == 0


def test_a_search_without_latencies_is_drawn_over_operations():
    data = explorer.payload(CONFIG, SMALL, searched(SMALL).drop(columns="predicted_ms"))
    assert data["x"]["column"] == "gflops" and "latency" not in data["columns"]
    nothing = explorer.payload(CONFIG, SMALL, searched(SMALL).assign(AP=np.nan))
    assert nothing["front"] == [] and nothing["marks"] == []


def test_a_name_cannot_end_the_script():
    marks = {"</script><b>": explorer.Mark(PRESETS["nano"].arch)}
    text = explorer.html(CONFIG, SEARCH_GRID, marks=marks, ident='a"b')
    assert text.count("</script>") == 2 and 'id="a&quot;b"' in text
