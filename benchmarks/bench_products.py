"""Rate of float32 matrix products through torch's BLAS and through oneDNN, at the shapes of nano.

    python benchmarks/bench_products.py [--repeats 20] [--threads 2]

The reason for `rfdetr.model.linear`. Fastest of the repeats, in GFLOP/s; nothing where oneDNN is not taken.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from rfdetr.model.linear import linear, takes_onednn

# name, rows, inputs, outputs: a forward pass of one image, a training step of two images and 13 groups of 300
# queries.
SHAPES = [
    ("block, qkv", 580, 384, 1152),
    ("block, MLP", 580, 384, 1536),
    ("block, MLP, batch 4", 2320, 384, 1536),
    ("decoder, MLP, one group", 300, 256, 2048),
    ("decoder, projection, training", 7800, 256, 256),
    ("decoder, MLP, training", 7800, 256, 2048),
]


def fastest(run: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run after a warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def backward(
    function: Callable[..., torch.Tensor], leaves: list[torch.Tensor], gradient: torch.Tensor
) -> None:
    """Forward and both backward products."""
    torch.autograd.grad(function(*leaves), leaves, gradient)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"GFLOP/s, {given.threads} threads{'':16s} product: BLAS oneDNN   with gradients: BLAS oneDNN")
    for name, rows, inputs, outputs in SHAPES:
        leaves = [torch.randn(shape, requires_grad=True) for shape in ((rows, inputs), (outputs, inputs))]
        gradient = torch.randn(rows, outputs)
        if not takes_onednn(*leaves):
            print(f"  {name:32s} oneDNN is not taken")
            continue
        work = 2 * rows * inputs * outputs / 1e9
        rates = []
        for function in (F.linear, linear):
            with torch.inference_mode():
                rates.append(work / fastest(partial(function, *leaves), given.repeats))
        for function in (F.linear, linear):
            run = partial(backward, function, leaves, gradient)
            rates.append(3 * work / fastest(run, given.repeats))
        print(f"  {name:32s} {rates[0]:13.0f} {rates[1]:6.0f} {rates[2]:21.0f} {rates[3]:6.0f}", flush=True)


if __name__ == "__main__":
    main()
