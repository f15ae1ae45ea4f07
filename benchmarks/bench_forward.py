"""Our eager forward pass against the Transformers package's, in one run: same shapes, same random weights.

    python benchmarks/bench_forward.py [--preset nano] [--repeats 7] [--threads 2] [--clock wall|cpu]

Also: where the time goes, and what it costs to switch the architecture between two calls.
"""

from itertools import cycle

import torch
from side_by_side import in_bfloat16, interleave, options, pair, report, report_shares, start

from rfdetr import Arch


def main() -> None:
    given = start(options(__doc__, repeats=7))
    ours, theirs = pair(given.preset)
    ours.eval(), theirs.eval()
    side = ours.config.default_arch.resolution
    for batch in (1, 4):
        images = torch.randn(batch, 3, side, side)
        runs = {
            "ours": lambda images=images: ours(images, every_layer=False),
            "Transformers": lambda images=images: theirs(pixel_values=images),
        }
        with torch.inference_mode():
            difference = (runs["ours"]().boxes - runs["Transformers"]().pred_boxes).abs().median()
            assert difference < 1e-2, (
                f"the networks do not compute the same boxes (median difference {difference})"
            )
            runs["ours, bfloat16"] = in_bfloat16(runs["ours"])
            report(f"forward, batch {batch}", interleave(runs, given.repeats, given.clock))
            for name, run in runs.items():
                report_shares(name, run)

    # The same cost of the pass itself: two patch sizes with equal grids, so only the kernel has to be
    # resized.
    archs = [Arch(384, 16, 2, 2, 300), Arch(288, 12, 2, 2, 300), Arch(432, 18, 2, 2, 300)]
    if given.preset == "nano":
        inputs = {a: torch.randn(1, 3, a.resolution, a.resolution) for a in archs}
        fixed = {a: ours.subnet(a) for a in archs}
        turn, turn_fixed = cycle(archs), cycle(archs)

        def switching() -> object:
            arch = next(turn)
            return ours(inputs[arch], arch, every_layer=False)

        def cut_out() -> object:
            arch = next(turn_fixed)
            return fixed[arch](inputs[arch])

        with torch.inference_mode():
            runs = {"ours": switching, "cut out before": cut_out}
            times = interleave(runs, 3 * given.repeats, given.clock)
        report("a new architecture at every call, against networks cut out before", times)


if __name__ == "__main__":
    main()
