"""The latency of all 6,468 points from at most 2 % of the sub-networks, chosen actively: how wrong is it?

    python benchmarks/latency_model.py [--runtimes onnxruntime openvino] [--part 0.02] [--held-out 120]
        [--seed 0] [--out FOLDER] [--files FOLDER] [--network FILE]

Takes the kept network, times the chosen sub-networks and others that the model never sees, and prints median
and 95th percentile of the absolute percentage errors on these. Meant for a machine that does nothing else:
about a quarter of an hour with both runtimes. `--out` (results/latency-model, which chapter 05 shows) gets
errors.csv, timings.csv and result.json; `--files` (build/latency-model) the exported files, which the next
run uses again.
"""

import argparse
from pathlib import Path

from rfdetr.errors import UserError
from rfdetr.experiments import ch05_latency
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.profiles import get_profile
from rfdetr.experiments.ch05_full_search import PROFILE
from rfdetr.provenance import provenance


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--part", type=float, default=ch05_latency.PART)
    parser.add_argument("--held-out", type=int, default=ch05_latency.HELD_OUT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default=PROFILE)
    parser.add_argument("--network", type=Path, help="a kept network; default: that of results/full-search")
    parser.add_argument("--out", type=Path, default=kept.results_root() / ch05_latency.NAME)
    parser.add_argument("--files", type=Path, default=Path("build/latency-model"))
    options = parser.parse_args(arguments)
    try:
        model = kept.read_network(options.network) if options.network else kept.load("full-search").network()
        space = get_profile(options.profile).recipe.search
        errors, timings = ch05_latency.compared(
            model,
            space,
            tuple(options.runtimes),
            options.files,
            options.part,
            options.held_out,
            options.seed,
        )
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    kept.keep(
        options.out,
        {"errors": errors, "timings": timings},
        provenance(options.profile, options.seed),
        environment=timings.attrs["environment"],
        part=options.part,
        networks=len(space.distinct()),
    )
    print(errors.round(3).to_string(index=False))
    for row in ch05_latency.held(errors).to_dict("records"):
        print(
            f"{row['runtime']}, {row['latency']}: median {row['median_ape']:.1f} %, 95th percentile"
            f" {row['p95_ape']:.1f} % on {row['count']} held out, from {row['measured']} timed"
            f" ({row['share']:.1%}): {'within' if row['holds'] == 'yes' else 'NOT within'} 3 % and 8 %;"
            f" {row['noisy']} of {len(timings) // len(options.runtimes)} timings noisy;"
            f" {row['choosing']:.0f} s for the choice, {row['seconds']:.0f} s for the rest"
        )


if __name__ == "__main__":
    main()
