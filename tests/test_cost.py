"""Operations of a shared search: what torch really counts, and the paper-sized ratio."""

import pytest
import torch
from conftest import TINY
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rfdetr import RFDETR, Arch
from rfdetr.arch import SEARCH_GRID, SearchSpace
from rfdetr.data.scenes import scenes
from rfdetr.model.config import preset_config
from rfdetr.search import cost, grid

SPACE = SearchSpace((64,), (8, 16), (1, 2), (0, 1, 2), (4, 10))


@pytest.mark.parametrize("segmentation", [False, True])
def test_shared_operations_are_those_that_run(segmentation):
    model = RFDETR(**TINY, segmentation=segmentation).eval().requires_grad_(False)
    data = scenes("digits", "val", size=1, canvas=64)
    triple, pairs = next(iter(grid.units(SPACE).items()))
    # Masks are products of embeddings, computed for the selected queries only; they are counted apart below.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        images = torch.zeros(len(data), 3, triple[0], triple[0])
        memory = model.encode(images, Arch(*triple, 0, 10))
        selected = model.selection(memory, 10, 1)
        for queries in (4, 10):
            output = model.decode(memory, triple[0], 2, queries, selected=selected)
            for prediction in (output.encoder, *output.layers):
                _ = prediction.masks
    expected = cost.unit_flops(model, [Arch(*triple, *pair) for pair in pairs])["shared_gflops"].sum()
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=1e-9)


def test_printed_grid_at_paper_size():
    network = preset_config("nano", decoder_layers=6, queries=300, position_grid=120)
    table = cost.grid_flops(network, SEARCH_GRID).set_index("stage")
    assert table.loc["total", "ratio"] > 20
    assert table.loc["projector", "ratio"] == pytest.approx(28, rel=0.01)
    assert table["share"].drop("total").sum() == pytest.approx(1)
    assert (table["ratio"].dropna() > 0.999).all()


def test_seconds_account_adds_up():
    seconds = dict.fromkeys(grid.STAGES, 1.0)
    table = cost.grid_seconds(RFDETR(**TINY), SPACE, seconds, evaluation_alone=0.5).set_index("stage")
    assert table.loc["images", "ratio"] == len(SPACE.distinct()) / len(SPACE.triples())
    assert table.loc["evaluation", "one_by_one_seconds"] == 0.5 * len(SPACE.distinct())
    assert table.loc["total", "shared_seconds"] == 5.0
    assert table.loc["total", "one_by_one_seconds"] == table["one_by_one_seconds"].drop("total").sum()
