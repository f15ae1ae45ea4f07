"""What must stay in float32 when the rest of a forward pass is bfloat16 or float16."""

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, scramble

from rfdetr import RFDETR, Arch
from rfdetr.model.deformable import DeformableAttention
from rfdetr.model.flex import resize_kernel, resize_positions

LOW = [torch.bfloat16, torch.float16]


def relative_error(found, expected):
    return float((found.float() - expected).norm() / expected.norm())


def attention_case(grid, seed=0):
    """Deformable attention of nano's size, 100 boxes, and a map of white noise: the hardest to sample."""
    torch.manual_seed(seed)
    attention = DeformableAttention(256, 16, 2)
    torch.nn.init.normal_(attention.offsets.weight, std=0.05)
    centre, size = torch.rand(2, 100, 2), torch.rand(2, 100, 2) * 0.4 + 0.05
    return attention, torch.randn(2, 100, 256), torch.cat([centre, size], -1), torch.randn(2, grid, grid, 256)


@pytest.mark.parametrize("dtype", LOW)
def test_deformable_attention_samples_where_float32_does(dtype, monkeypatch):
    """On a map of 112 tokens a side, coordinates of which any part is bfloat16 lie 0.1 tokens elsewhere."""
    attention, *inputs = attention_case(112)
    grids = []
    sample = F.grid_sample

    def watched(value, grid, **options):
        grids.append(grid)
        return sample(value, grid, **options)

    monkeypatch.setattr(F, "grid_sample", watched)
    with torch.no_grad():
        attention(*inputs)
        with torch.autocast("cpu", dtype):
            found = attention(*inputs)
    tokens = (grids[1].float() - grids[0]).abs().max() * 112 / 2
    assert grids[1].dtype == torch.float32 and tokens < 1e-3
    assert found.dtype == dtype


def test_deformable_attention_in_bfloat16_errs_as_its_products_do():
    """Relative error of the operator at 56 tokens a side: 6.5 % with rounded coordinates, 0.4 % without."""
    attention, *inputs = attention_case(56)
    with torch.no_grad():
        expected = attention(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = attention(*inputs)
    assert relative_error(found, expected) < 0.01


@pytest.mark.parametrize("dtype", LOW)
def test_shared_weights_are_resized_in_their_own_precision(dtype):
    torch.manual_seed(0)
    kernel, positions = torch.randn(8, 3, 16, 16), torch.randn(1, 1 + 24**2, 8)
    plain = [resize_kernel(kernel, side) for side in (10, 20)] + [resize_positions(positions, 15)]
    with torch.autocast("cpu", dtype):
        mixed = [resize_kernel(kernel, side) for side in (10, 20)] + [resize_positions(positions, 15)]
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def test_a_weight_without_data_can_be_resized():
    """Networks on the meta device are counted without memory for their weights."""
    kernel = torch.empty(8, 3, 16, 16, device="meta")
    assert resize_kernel(kernel, 16) is kernel
    assert resize_positions(torch.empty(1, 1 + 16, 8, device="meta"), 4).shape == (1, 17, 8)


@pytest.mark.parametrize("dtype", LOW)
def test_gradients_of_a_mixed_pass_reach_every_weight(dtype):
    torch.manual_seed(0)
    model = scramble(RFDETR(**TINY)).train()
    arch = Arch(60, 6, 2, 2, 10)
    with torch.autocast("cpu", dtype):
        output = model(torch.randn(2, 3, 60, 60), arch)
        total = sum(p.logits.float().sum() + p.boxes.sum() for p in [*output.layers, output.encoder])
    total.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
