import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfdetr import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch, ArchError, SearchSpace
from rfdetr.arch import SEARCH_GRID_WITH_UNSEEN, effective, round_resolution
from rfdetr.paper import tables

knobs = st.tuples(
    st.integers(1, 1200), st.integers(1, 40), st.integers(1, 5), st.integers(0, 6), st.integers(1, 400)
)


@given(knobs)
def test_every_architecture_is_valid_or_names_valid_neighbours(values):
    _, _, _, depth, queries = values
    try:
        arch = Arch(*values)
    except ArchError as error:
        # The neighbours are real: they were constructed, so they are valid, and they keep what was not wrong.
        for neighbour in error.neighbours:
            assert neighbour.resolution % (neighbour.patch_size * neighbour.windows) == 0
            assert neighbour.queries <= neighbour.tokens
            assert neighbour.decoder_layers == depth
        assert error.neighbours
        assert error.neighbours[0].id in str(error) or "queries" in str(error)
    else:
        assert arch.grid % arch.windows == 0
        assert arch.tokens == arch.grid**2 >= queries
        assert Arch.parse(arch.id) == arch


@given(st.integers(1, 2000), st.integers(1, 40), st.integers(1, 5))
def test_rounding_goes_down_to_the_nearest_multiple(nominal, patch, windows):
    unit = patch * windows
    if nominal < unit:
        with pytest.raises(ArchError, match="smaller than one window"):
            round_resolution(nominal, patch, windows)
        return
    rounded = round_resolution(nominal, patch, windows)
    assert rounded % unit == 0
    assert nominal - unit < rounded <= nominal


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.name != "base"], ids=lambda p: p.name)
def test_every_published_resolution_follows_from_the_grid(preset):
    arch = preset.arch
    rounded = {round_resolution(r, arch.patch_size, arch.windows) for r in TRAINING_GRID.resolutions}
    assert arch.resolution in rounded


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"resolution": 500}, "multiple"),
        ({"queries": 577}, "at most 576"),
        ({"queries": 0}, "at least 1"),
        ({"decoder_layers": -1}, "at least 0"),
        ({"patch_size": 16.0}, "whole number"),
        ({"windows": True}, "whole number"),
    ],
)
def test_error_names_the_knob(values, word):
    with pytest.raises(ArchError, match=word):
        Arch(**values)


def test_grid_sizes_are_the_printed_ones():
    printed = tables.document("search_grid")["printed_totals"]["configurations"]
    derived = tables.document("search_grid")["derived_not_printed"]
    assert len(SEARCH_GRID) == printed == len(SEARCH_GRID.archs())
    assert len(SEARCH_GRID_WITH_UNSEEN) == derived["product_with_eight_patch_sizes"]
    assert len(TRAINING_GRID) == derived["training_configurations"]
    assert len(TRAINING_GRID.triples()) == derived["resolution_rule"]["distinct_training_configurations"]
    assert SEARCH_GRID.position_grid == 120
    assert SEARCH_GRID.largest.resolution == 960
    assert SEARCH_GRID.smallest.resolution < 320


def test_a_coarse_grid_point_keeps_as_many_queries_as_it_has_tokens():
    assert effective(320, 32, 4, 6, 300) == Arch(256, 32, 4, 6, 64)


def test_an_empty_or_impossible_space_is_refused():
    with pytest.raises(ArchError, match="no queries"):
        SearchSpace((64,), (8,), (1,), (1,), ())
    with pytest.raises(ArchError, match="smaller than one window"):
        SearchSpace((64,), (32,), (4,), (1,), (10,))


def test_presets_hold_the_printed_numbers():
    assert set(PRESETS) >= {
        "nano",
        "small",
        "medium",
        "large",
        "xlarge",
        "2xlarge",
        "max",
        "base",
        "seg-nano",
        "seg-max",
    }
    for row in tables.rows(7):
        matches = [
            p for p in PRESETS.values() if p.arch.resolution == int(row["resolution"]) and not p.segmentation
        ]
        assert any(p.arch.queries == int(row["queries"]) for p in matches)
    assert PRESETS["nano"].ap == float(tables.find_row(2, model="RF-DETR", size="N")["ap"])


def test_unknown_names_are_explained():
    with pytest.raises(ArchError, match="r384-p16"):
        Arch.parse("r384")
    with pytest.raises(KeyError, match="no Table 99"):
        tables.rows(99)


def test_import_is_light():
    code = (
        "import sys, json, rfdetr; print(json.dumps([m for m in sys.modules if m in "
        "('torch', 'pandas', 'matplotlib', 'papermill', 'onnx', 'onnxruntime', 'IPython')]))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(loaded) == []
