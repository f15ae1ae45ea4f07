import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rfdetr.model.flex import (
    merge_windows,
    partition_windows,
    resize_kernel,
    resize_matrix,
    resize_positions,
)

sizes = st.integers(4, 32)


def resize_image(image, side):
    return F.interpolate(image, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


@given(sizes, sizes)
def test_the_matrix_is_the_resize(source, target):
    image = torch.randn(2, 3, source, source, dtype=torch.float64)
    matrix = resize_matrix(source, target)
    torch.testing.assert_close(matrix @ image @ matrix.T, resize_image(image, target))


@given(sizes, sizes)
def test_kernel_resize_has_its_defining_identity(source, target):
    """<resize(x), new kernel> = <x, kernel> when enlarging; the least-squares residual when shrinking."""
    kernel = torch.randn(5, 3, source, source, dtype=torch.float64)
    new = resize_kernel(kernel, target)
    assert new.shape == (5, 3, target, target)
    matrix = resize_matrix(source, target)
    full = torch.kron(matrix, matrix)  # [target^2, source^2]
    flat, flat_new = kernel.flatten(2), new.flatten(2)
    residual = flat_new @ full - flat
    if target >= source:
        assert residual.abs().max() < 1e-8
    # Least squares: the residual is orthogonal to everything that the resize can express.
    assert (residual @ full.T).abs().max() < 1e-8


def test_enlarging_an_image_and_the_kernel_keeps_the_embedding():
    kernel = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    patch = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for side in (9, 14, 16, 32):
        ours = F.conv2d(resize_image(patch, side), resize_kernel(kernel, side)).flatten(1)
        torch.testing.assert_close(ours, F.conv2d(patch, kernel).flatten(1))


@given(st.integers(2, 12), st.integers(1, 16))
def test_positions_keep_the_class_token_and_match_the_image_resize(source, target):
    positions = torch.randn(1, 1 + source**2, 6, dtype=torch.float64)
    resized = resize_positions(positions, target)
    assert torch.equal(resized[:, 0], positions[:, 0])
    grid = positions[:, 1:].reshape(1, source, source, 6).permute(0, 3, 1, 2)
    expected = resize_image(grid, target).permute(0, 2, 3, 1).reshape(1, target**2, 6)
    torch.testing.assert_close(resized[:, 1:], expected)


def test_equal_sizes_return_the_stored_weights():
    positions, kernel = torch.randn(1, 17, 3), torch.randn(2, 3, 8, 8)
    assert resize_positions(positions, 4) is positions
    assert resize_kernel(kernel, 8) is kernel


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_window_partition_round_trips(batch, windows, rows, columns, channels):
    height, width = windows * rows, windows * columns
    tokens = torch.randn(batch, height, width, channels)
    parts = partition_windows(tokens, windows)
    assert parts.shape == (batch * windows**2, rows * columns, channels)
    assert torch.equal(merge_windows(parts, windows, height, width), tokens)


def test_windows_are_row_major():
    tokens = torch.arange(16).reshape(1, 4, 4, 1)
    parts = partition_windows(tokens, 2)
    assert parts[0].flatten().tolist() == [0, 1, 4, 5]
    assert parts[1].flatten().tolist() == [2, 3, 6, 7]
    assert parts[2].flatten().tolist() == [8, 9, 12, 13]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_the_base_weights(dtype):
    kernel = torch.randn(2, 3, 8, 8, dtype=dtype, requires_grad=True)
    resize_kernel(kernel, 13).square().sum().backward()
    assert kernel.grad is not None
    assert (kernel.grad != 0).all()


def test_a_size_first_used_in_inference_can_be_trained_afterwards():
    kernel = torch.randn(2, 3, 11, 11, requires_grad=True)
    positions = torch.randn(1, 1 + 11**2, 4, requires_grad=True)
    with torch.inference_mode():
        resize_kernel(kernel, 17)
        resize_positions(positions, 17)
    (resize_kernel(kernel, 17).sum() + resize_positions(positions, 17).sum()).backward()
    assert kernel.grad is not None
    assert positions.grad is not None
