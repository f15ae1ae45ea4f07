"""Linear layers: the oneDNN path equals torch's own in values and gradients, and nobody who looks at operators meets it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rfdetr.model import linear as module
from rfdetr.model.linear import Linear, linear, takes_onednn

needs_onednn = pytest.mark.skipif(module._FUSED is None, reason="no AVX-512 or no oneDNN in this torch")
ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


def case(rows=(3, 170), inputs=48, outputs=96, dtype=torch.float32):
    """x [*rows, inputs], weight, bias, and the gradient of the result."""
    torch.manual_seed(0)
    shapes = (*rows, inputs), (outputs, inputs), (outputs,), (*rows, outputs)
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@needs_onednn
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 96), (96, 48), (64, 91)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients(activation, inputs, outputs, with_bias) -> None:
    x, weight, bias, gradient = case(inputs=inputs, outputs=outputs)
    assert takes_onednn(x, weight)
    arguments = (x, weight, bias) if with_bias else (x, weight)

    def run(function, dtype):
        leaves = [part.to(dtype, copy=True).requires_grad_() for part in arguments]
        y = function(*leaves)
        y.backward(gradient.to(dtype))
        return [y, *(leaf.grad for leaf in leaves)]

    got = run(lambda *parts: linear(*parts, activation=activation), torch.float32)
    expected = run(lambda *parts: ACTIVATIONS[activation](F.linear(*parts)), torch.float64)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(linear(*arguments, activation=activation), got[0].detach())


@needs_onednn
@pytest.mark.parametrize("layout", ["permuted", "expanded", "sliced"])
def test_any_memory_layout(layout) -> None:
    torch.manual_seed(0)
    base = torch.randn(96, 200, 64)
    x = {
        "permuted": base.permute(1, 2, 0),
        "expanded": base[:1].expand(96, -1, -1),
        "sliced": base[::2, 3:, 5:53],
    }[layout]
    weight = torch.randn(60, 2 * x.shape[-1])[:, ::2].requires_grad_()
    x.requires_grad_()
    assert takes_onednn(x, weight)
    ours, theirs = (
        [y, *torch.autograd.grad(y.square().sum(), (x, weight))]
        for y in (linear(x, weight), F.linear(x, weight))
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


@needs_onednn
def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, bias, gradient = case()
    y = linear(x, weight.requires_grad_(), bias)
    y.backward(gradient)
    assert x.grad is None and bias.grad is None
    torch.testing.assert_close(weight.grad, gradient.flatten(0, 1).T @ x.flatten(0, 1), rtol=1e-4, atol=1e-3)
    assert not linear(x, weight.detach(), bias).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(dtype) -> None:
    x, weight, bias, _ = case(dtype=dtype)
    assert not takes_onednn(x, weight)
    assert torch.equal(linear(x, weight, bias, "gelu"), F.gelu(F.linear(x, weight, bias)))


def test_small_products_are_left_to_torch() -> None:
    x, weight, bias, _ = case(rows=(5,))
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


def test_autocast_gives_bfloat16() -> None:
    x, weight, bias, _ = case()
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype is torch.bfloat16


def test_counter_sees_every_product() -> None:
    x, weight, bias, _ = case()
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias, "relu")
    assert counter.get_total_flops() == 2 * 3 * 170 * 48 * 96


def operators(graph: torch.fx.Graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


def test_export_sees_ordinary_operators() -> None:
    x, *_ = case()
    graph = torch.export.export(Linear(48, 96), (x,)).graph
    assert operators(graph) == {"aten.linear.default"}


def test_tracing_sees_ordinary_operators() -> None:
    x, *_ = case()
    assert "mkldnn" not in str(torch.jit.trace(Linear(48, 96), x).inlined_graph)


def test_compiler_sees_ordinary_operators() -> None:
    x, *_ = case()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.graph)
        return graph.forward

    torch.compile(Linear(48, 96), backend=backend, fullgraph=True)(x)
    assert not any("mkldnn" in name or "_Product" in name for graph in graphs for name in operators(graph))
    assert graphs


def test_vmap_is_left_to_torch() -> None:
    x, weight, bias, _ = case()
    torch.testing.assert_close(
        torch.vmap(lambda part: linear(part, weight, bias))(x), F.linear(x, weight, bias)
    )


def test_state_dict_is_that_of_torch() -> None:
    ours, theirs = Linear(4, 3).state_dict(), nn.Linear(4, 3).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}
