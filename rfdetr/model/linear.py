"""Linear layers whose float32 products on a processor go to oneDNN instead of the BLAS that torch is built
with.

Torch sends float32 products to MKL, which on two Zen 5 cores reaches 215 GFLOP/s at the shapes of nano;
oneDNN, which torch already uses for convolutions, reaches 410 (`benchmarks/bench_products.py`). Everywhere
else (other types and devices, autocast, tracing, export, compilation, operator counting) a layer is
`torch.nn.functional.linear` and nothing more.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# oneDNN's product with a fused activation: an operator that torch's own compiler calls.
_FUSED = None
if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
    _FUSED = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

# Multiplications below which the choice of library does not pay for itself.
SMALLEST = 2**21

_ACTIVATIONS = {"none": None, "relu": F.relu, "gelu": F.gelu}


def own_precision(weight: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the weight's device: for products whose results are coordinates or
    weights, which bfloat16 would round too coarsely.
    """
    kind = weight.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear(x, weight)` goes to oneDNN: plain eager float32 on a processor with AVX-512, and large
    enough.
    """
    # Whoever looks at the operators of a pass (export, compilation, a counter) must find the ordinary ones.
    observed = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or bool(torch._C._len_torch_dispatch_stack())
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
    return (
        _FUSED is not None
        and not observed
        and type(x) is Tensor
        and x.dtype is weight.dtype is torch.float32
        and x.is_cpu
        and weight.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and x.numel() * weight.shape[0] >= SMALLEST
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """`activation(x @ weight.T + bias)`: x [..., in], weight [out, in], bias [out] or None -> [..., out].

    activation: "none", "relu" or "gelu" (the exact one).
    """
    if not takes_onednn(x, weight):
        x = F.linear(x, weight, bias)
        function = _ACTIVATIONS[activation]
        return x if function is None else function(x)
    if not torch.is_grad_enabled():
        return _product(x, weight, bias, activation).unflatten(0, x.shape[:-1])
    # The gradient of ReLU can be had from its result, that of GELU cannot.
    x = _Product.apply(x, weight, bias, activation == "relu")
    return F.gelu(x) if activation == "gelu" else x


class Linear(nn.Linear):
    """`torch.nn.Linear` with an activation that is fused where the processor can; parameters and names are
    the same.
    """

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """x [..., in] -> [..., out]; activation as in `linear`."""
        return linear(x, self.weight, self.bias, activation)


def scaled(layer: nn.Linear, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of `scale * layer(x)`, scale [out]: no pass over the tokens for it."""
    return layer.weight * scale[:, None], layer.bias * scale


def feed_forward(x: Tensor, fc1: Linear, fc2: Linear, activation: str, scale: Tensor | None = None) -> Tensor:
    """`scale * fc2(activation(fc1(x)))`: [..., in] -> [..., out]; activation "relu" or "gelu", scale [out] or
    None.
    """
    if torch.is_grad_enabled() and takes_onednn(x, fc1.weight):
        last = (fc2.weight, fc2.bias) if scale is None else scaled(fc2, scale)
        return _FeedForward.apply(x, fc1.weight, fc1.bias, *last, activation == "relu")
    hidden = fc1(x, activation)
    return fc2(hidden) if scale is None else linear(hidden, *scaled(fc2, scale))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    assert _FUSED is not None
    x = _dense(x.flatten(0, -2))
    return _FUSED(x, _dense(weight), bias, activation, [], "none" if activation == "gelu" else "")


def _dense(matrix: Tensor) -> Tensor:
    """The matrix, copied unless its rows or columns lie side by side: oneDNN has no fast product for other
    layouts.
    """
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class _Product(torch.autograd.Function):
    """The product with its three gradients, optionally with ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        y = _product(x, weight, bias, "relu" if relu else "none")
        ctx.save_for_backward(x, weight, y if relu else None)
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        gradient = gradient.flatten(0, -2)
        if y is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        return (*_gradients(gradient, x, weight, ctx.needs_input_grad[:3]), None)


class _FeedForward(torch.autograd.Function):
    """Two products with ReLU or GELU between them. Nothing else sees the hidden gradient, so it is changed in
    place.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, relu: bool
    ) -> Tensor:
        before = _product(x, weight1, bias1, "relu" if relu else "none")
        hidden = before if relu else F.gelu(before)
        ctx.save_for_backward(x, weight1, None if relu else before, hidden, weight2)
        return _product(hidden, weight2, bias2).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, before, hidden, weight2 = ctx.saved_tensors
        needs = ctx.needs_input_grad
        inner, by_weight2, by_bias2 = _gradients(
            gradient.flatten(0, -2), hidden, weight2, (True, *needs[3:5])
        )
        assert inner is not None
        if before is None:
            torch.ops.aten.threshold_backward.grad_input(inner, hidden, 0, grad_input=inner)
        else:
            torch.ops.aten.gelu_backward.grad_input(inner, before, grad_input=inner)
        return (*_gradients(inner, x, weight1, needs[:3]), by_weight2, by_bias2, None)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients by x [..., in], weight [out, in] and bias, as far as needed, from that of the result [rows,
    out].
    """
    return (
        _product(gradient, weight.t(), None).unflatten(0, x.shape[:-1]) if needs[0] else None,
        _weight_gradient(gradient, x.flatten(0, -2)) if needs[1] else None,
        gradient.sum(0) if needs[2] else None,
    )


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """`gradient.T @ x`: [rows, out], [rows, in] -> [out, in]."""
    # oneDNN is at its best when the first factor, which it has to turn round, is the smaller one.
    if gradient.shape[1] > x.shape[1]:
        return _product(x.t(), gradient.t(), None).t()
    return _product(gradient.t(), x.t(), None)
