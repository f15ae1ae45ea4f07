"""Linear layers whose float32 products on a processor go to oneDNN instead of the BLAS that torch is built with.

Torch sends float32 products to MKL, which on AMD processors does without AVX-512; oneDNN, which torch already uses for
convolutions, does not. `benchmarks/bench_products.py` measures both. Everywhere else (other types and devices, autocast,
tracing, export, compilation, operator counting) a layer is `torch.nn.functional.linear` and nothing more.
"""

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


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear(x, weight)` goes to oneDNN: plain eager float32 on a processor with AVX-512, and large enough."""
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
        return _product(x, weight, bias, activation)
    # The gradient of ReLU can be had from its result, that of GELU cannot.
    fused = activation == "relu"
    x = _Product.apply(x, weight, bias, fused)
    return F.gelu(x) if activation == "gelu" else x


class Linear(nn.Linear):
    """`torch.nn.Linear` with an activation that is fused where the processor can; parameters and names are the same."""

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """x [..., in] -> [..., out]; activation as in `linear`."""
        return linear(x, self.weight, self.bias, activation)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    assert _FUSED is not None
    return _FUSED(x, weight, bias, activation, [], "none" if activation == "gelu" else "")


class _Product(torch.autograd.Function):
    """The product with its three gradients, optionally with ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        y = _product(x, weight, bias, "relu" if relu else "none")
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        by_x, by_weight, by_bias = ctx.needs_input_grad[:3]
        rows = gradient.flatten(0, -2)
        return (
            _product(gradient, weight.t(), None) if by_x else None,
            _weight_gradient(rows, x.flatten(0, -2)) if by_weight else None,
            rows.sum(0) if by_bias else None,
            None,
        )


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """`gradient.T @ x`: [rows, out], [rows, in] -> [out, in]."""
    # oneDNN is at its best when the first factor, which it has to turn round, is the smaller one.
    if gradient.shape[1] > x.shape[1]:
        return _product(x.t(), gradient.t(), None).t()
    return _product(gradient.t(), x.t(), None)
