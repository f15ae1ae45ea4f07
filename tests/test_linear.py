"""Linear layers: the oneDNN path equals torch's own in values and gradients, and nobody who looks at
operators meets it.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rfdetr.model import linear as module
from rfdetr.model.linear import Linear, feed_forward, linear, takes_onednn
from rfdetr.model.projector import ConvNorm
from rfdetr.model.queries import GroupLinear

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
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("hidden", [24, 200])
@pytest.mark.parametrize("with_scale", [True, False])
def test_feed_forward(activation, hidden, with_scale) -> None:
    torch.manual_seed(0)
    # Whole numbers, so that both precisions agree on which side of ReLU's kink a value lies.
    shapes = {
        "x": (3, 900, 48),
        "weight1": (hidden, 48),
        "bias1": (hidden,),
        "weight2": (32, hidden),
        "bias2": (32,),
        "scale": (32,),
    }
    start = {name: torch.randint(-2, 3, shape).float() for name, shape in shapes.items()}
    gradient = torch.randn(3, 900, 32)

    def run(dtype):
        fc1, fc2 = Linear(48, hidden, dtype=dtype), Linear(hidden, 32, dtype=dtype)
        x, scale = (start[name].to(dtype, copy=True).requires_grad_() for name in ("x", "scale"))
        with torch.no_grad():
            for layer, number in ((fc1, 1), (fc2, 2)):
                layer.weight.copy_(start[f"weight{number}"])
                layer.bias.copy_(start[f"bias{number}"])
        y = feed_forward(x, fc1, fc2, activation, scale if with_scale else None)
        y.backward(gradient.to(dtype))
        with torch.no_grad():
            torch.testing.assert_close(
                feed_forward(x, fc1, fc2, activation, scale if with_scale else None), y
            )
        leaves = (x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, *([scale] if with_scale else []))
        return [y, *(leaf.grad for leaf in leaves)]

    assert takes_onednn(start["x"], start["weight1"])
    got, expected = run(torch.float32), run(torch.float64)
    s = {name: value.double() for name, value in start.items()}
    plain = F.linear(
        ACTIVATIONS[activation](F.linear(s["x"], s["weight1"], s["bias1"])), s["weight2"], s["bias2"]
    )
    torch.testing.assert_close(expected[0], plain * s["scale"] if with_scale else plain)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-2)


@needs_onednn
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_have_their_own_layers(groups) -> None:
    torch.manual_seed(0)
    layer = GroupLinear(3, 64, 48)
    torch.nn.init.normal_(layer.bias)
    shared = torch.randn(1, 800, 64, requires_grad=True)
    assert takes_onednn(shared.detach(), layer.weight[0])
    own = shared.expand(groups, -1, -1)
    expected = torch.stack([F.linear(shared[0], layer.weight[g], layer.bias[g]) for g in range(groups)])
    leaves = (shared, layer.weight, layer.bias)
    gradients = torch.autograd.grad(expected.square().sum(), leaves)
    for y in (layer(own), layer.same_for_all(shared, groups)):
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        for a, b in zip(torch.autograd.grad(y.square().sum(), leaves), gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)


@needs_onednn
def test_pointwise_convolution_is_a_product() -> None:
    torch.manual_seed(0)
    block = ConvNorm(64, 32, 1)
    x = torch.randn(2, 30, 30, 64).permute(0, 3, 1, 2)
    assert takes_onednn(x.permute(0, 2, 3, 1), block.conv.weight)
    torch.testing.assert_close(block(x), F.silu(block.norm(F.conv2d(x, block.conv.weight))))


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
