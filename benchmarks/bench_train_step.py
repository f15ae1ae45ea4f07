"""Our training step against the Transformers package's, in one run: same shapes, same random weights.

    python benchmarks/bench_train_step.py [--preset nano] [--batch 2] [--repeats 3] [--threads 2] [--clock
    wall|cpu]

One step is forward with all query groups, matching, losses of every layer, backward, gradient clipping and
AdamW.
"""

import torch
from side_by_side import in_bfloat16, interleave, options, pair, report, report_shares, start

from rfdetr.data.dataset import Target
from rfdetr.training.losses import Criterion

OBJECTS = 7


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--batch", type=int, default=2)
    given = start(parser)
    ours, theirs = pair(given.preset)
    ours.train(), theirs.train()
    side = ours.config.default_arch.resolution
    images = torch.randn(given.batch, 3, side, side)
    boxes = [torch.rand(OBJECTS, 4) * 0.4 + 0.2 for _ in range(given.batch)]
    labels = [torch.randint(91, (OBJECTS,)) for _ in range(given.batch)]
    targets = [
        Target(lab, box, None, i, (side, side))
        for i, (lab, box) in enumerate(zip(labels, boxes, strict=True))
    ]
    criterion = Criterion(ours.config.groups)

    def our_loss() -> torch.Tensor:
        return criterion(ours(images), targets)["total"]

    def our_loss_bfloat16() -> torch.Tensor:
        # As rfdetr.training does it: the network in autocast, the losses in float32 outside.
        return criterion(in_bfloat16(lambda: ours(images))(), targets)["total"]

    def their_loss() -> torch.Tensor:
        wanted = [{"class_labels": lab, "boxes": box} for lab, box in zip(labels, boxes, strict=True)]
        return theirs(pixel_values=images, labels=wanted).loss

    def step(network: torch.nn.Module, loss, optimizer: torch.optim.Optimizer):
        def run() -> None:
            loss().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    runs = {
        name: step(network, loss, torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True))
        for name, network, loss in (
            ("ours", ours, our_loss),
            ("Transformers", theirs, their_loss),
            ("ours, bfloat16", ours, our_loss_bfloat16),
        )
    }
    times = interleave(runs, given.repeats, given.clock)
    report(f"training step, batch {given.batch}, {ours.config.groups} groups", times)
    for name, run in runs.items():
        report_shares(name, run)


if __name__ == "__main__":
    main()
