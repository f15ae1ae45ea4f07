"""Shared-prefix grid against one sub-network at a time, measured side by side on some encoder triples.

    python benchmarks/bench_grid.py [--images 100] [--units 3] [--threads 1]

Prints operations and seconds of both sides and their ratios, for a CPU-sized supernet with random weights
(speed does not depend on the weights; the number of matched boxes does a little).
"""

import argparse
import time

import torch

from rfdetr import RFDETR, Arch
from rfdetr.arch import SEARCH_GRID
from rfdetr.data.scenes import scenes
from rfdetr.evaluation.coco import METRICS, evaluate
from rfdetr.experiments.base.profiles import PROFILES
from rfdetr.model.config import preset_config
from rfdetr.search import cost, grid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--units", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    # The printed grid in miniature: 11 x 7 x 3 x 7 x 4 = 6,468 points.
    recipe = PROFILES["full"].recipe
    data = scenes("digits", "val", size=options.images)
    model = RFDETR(data.num_classes, **recipe.model).eval()
    work = grid.units(recipe.search)
    triples = sorted(work, key=lambda t: (t[0] // t[1]) ** 2)
    chosen = [triples[(2 * i + 1) * len(triples) // (2 * options.units)] for i in range(options.units)]
    archs = [Arch(*triple, *pair) for triple in chosen for pair in work[triple]]

    start = time.perf_counter()
    evaluator = grid.GridEvaluator(model, data)
    shared = {triple: evaluator.unit(triple, work[triple]) for triple in chosen}
    shared_seconds = time.perf_counter() - start
    alone = {}
    start = time.perf_counter()
    for arch in archs:
        alone[arch] = evaluate(model, data, arch, batch_size=32).row()
    alone_seconds = time.perf_counter() - start

    differences = 0
    for triple, result in shared.items():
        for pair, row in zip(result["pairs"], result["rows"], strict=True):
            other = alone[Arch(*triple, *pair)]
            differences += sum(row[m] != other[m] and row[m] == row[m] for m in METRICS)
    flops = cost.grid_flops(model, archs).iloc[-1]
    print(f"{len(archs)} sub-networks in {len(chosen)} encoder triples, {options.images} pictures")
    print(f"different numbers       {differences} of {len(archs) * len(METRICS)}")
    print(
        f"operations per picture  {flops.shared_gflops:.2f} GFLOPs shared, {flops.one_by_one_gflops:.2f} one"
        f" by one: {flops.ratio:.1f}x"
    )
    print(
        f"wall time               {shared_seconds:.1f} s shared, {alone_seconds:.1f} s one by one:"
        f" {alone_seconds / shared_seconds:.1f}x"
    )
    print(
        f"per sub-network         {1e3 * shared_seconds / len(archs):.1f} ms shared,"
        f" {1e3 * alone_seconds / len(archs):.1f} ms one by one"
    )
    for stage in grid.STAGES:
        seconds = sum(result["seconds"][stage] for result in shared.values())
        print(f"  {stage:<12} {1e3 * seconds / len(archs):7.2f} ms per sub-network")
    print(
        f"whole grid, this supernet    {cost.grid_flops(model, recipe.search).iloc[-1].ratio:.1f}x operations"
    )
    paper = preset_config("nano", decoder_layers=6, queries=300, position_grid=120)
    print(
        f"whole grid, paper's size     {cost.grid_flops(paper, SEARCH_GRID).iloc[-1].ratio:.1f}x operations"
    )


if __name__ == "__main__":
    main()
