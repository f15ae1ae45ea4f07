"""`python -m rfdetr search`, `benchmark` and `t4`: accuracies and latencies of sub-networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfdetr.arch import SearchSpace
from rfdetr.cli_common import Data, Knobs, Weights, with_knobs
from rfdetr.errors import UserError
from rfdetr.networks import open_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR


def search(
    weights: Weights,
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="Split that decides; keep test for the end.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder of the table, the front and finished work.")] = Path(
        "runs/search"
    ),
    profile: Annotated[str, typer.Option(help="Search grid to start from.")] = "cpu",
    resolutions: Annotated[str | None, typer.Option(help="Search grid, px.")] = None,
    patch_sizes: Annotated[str | None, typer.Option(help="Search grid, px.")] = None,
    windows: Annotated[str | None, typer.Option(help="Search grid, windows per side.")] = None,
    decoder_layers: Annotated[str | None, typer.Option(help="Search grid, e.g. 0,1,2,3.")] = None,
    queries: Annotated[str | None, typer.Option(help="Search grid, e.g. 10,20,30.")] = None,
    measured: Annotated[int, typer.Option(help="Sub-networks whose latency is measured.")] = 40,
    threads: Annotated[int, typer.Option(help="CPU threads for the latency.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the sample that is measured.")] = 0,
    worker: Annotated[
        bool, typer.Option(help="Be one of many workers of a search kept in --storage.")
    ] = False,
    storage: Annotated[
        str,
        typer.Option(
            help="sqlite:///FILE, postgresql://..., or journal:///FILE. Without --worker: join, then measure."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto: of the evaluation.")] = "auto",
    runtime: Annotated[str, typer.Option(help="Runtime of the latencies, see `benchmark`.")] = "onnxruntime",
    workers: Annotated[int, typer.Option(help="Of the estimate of --dry-run.")] = 1,
    dry_run: Annotated[bool, typer.Option(help="Estimate the cost and stop.")] = False,
    budget: Annotated[
        float | None, typer.Option(help="Spend this part of the exact search's cost, e.g. 0.05.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="With --budget: random, tpe, nsga2 or guided.")] = "guided",
) -> None:
    """Evaluate a grid of sub-networks, measure latencies, print the Pareto front.

    With --budget only the sub-networks that a sampler proposes are evaluated, until that part of the cost is spent.

    With --worker only the accuracies are computed (accuracy.csv), by as many workers as are started with the same
    --storage; each may join, leave or be killed at any time.
    """
    from rfdetr.data.registry import load_dataset
    from rfdetr.errors import UserError
    from rfdetr.experiments.profiles import get_profile
    from rfdetr.experiments.store import provenance
    from rfdetr.search.grid import KNOBS
    from rfdetr.search.run import search as run
    from rfdetr.search.run import search_within

    if budget is not None and (worker or dry_run):
        raise UserError("--budget is a search of its own: leave out --worker and --dry-run")
    model, dataset = open_network(weights).to(chosen_device(device)), load_dataset(data, split)
    base = get_profile(profile).recipe.search
    depths = tuple(d for d in base.decoder_layers if d <= model.config.decoder_layers)
    counts = tuple(q for q in base.queries if q <= model.config.queries) or (model.config.queries,)
    base = SearchSpace(base.resolutions, base.patch_sizes, base.windows, depths, counts)
    space = with_knobs(
        base, resolutions=resolutions, patch_sizes=patch_sizes, windows=windows, decoder_layers=decoder_layers,
        queries=queries,
    )  # fmt: skip
    if dry_run:
        from rfdetr.search.study import dry_run as estimate

        print(estimate(model, dataset, space, workers).T.to_string(header=False))
        return
    if worker:
        _work(model, dataset, space, storage or f"sqlite:///{out / 'search.db'}", out)
        return
    given: dict[str, Any] = {
        "measured": measured, "threads": threads, "seed": seed, "runtime": runtime, "origin": provenance(profile, seed),
    }  # fmt: skip
    if budget is None:
        result = run(model, dataset, space, out, storage=storage, **given)
    else:
        result = search_within(budget, model, dataset, space, out, sampler=sampler, **given)
    columns = [
        *KNOBS,
        "AP",
        "AP50",
        *(c for c in ("gflops", "predicted_ms", "latency_ms") if c in result.front),
    ]
    print(result.front[columns].to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"{len(result.table)} sub-networks: {result.path}")


def chosen_device(name: str) -> str:
    """cpu or cuda for "auto"; UserError when cuda is asked for and is not there."""
    import torch

    from rfdetr.errors import UserError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu, or a build of torch for its driver")
    return name


def _work(model: "RFDETR", dataset: "DetectionDataset", space: SearchSpace, storage: str, out: Path) -> None:
    from rfdetr.files import atomic_path
    from rfdetr.search.study import run_worker

    out.mkdir(parents=True, exist_ok=True)
    table = run_worker(model, dataset, space, storage, on_progress=lambda state: print(state, flush=True))
    with atomic_path(out / "accuracy.csv") as temporary:
        table.to_csv(temporary, index=False)
    print(f"{len(table)} of {len(space)} grid points are done: {out / 'accuracy.csv'}")


def benchmark(
    target: Annotated[
        str, typer.Argument(help="An .onnx or .engine file, a checkpoint, nano, or random:nano.")
    ],
    runtime: Annotated[
        str,
        typer.Option(
            help="onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, torch, torch-compile, torch-cudagraph"
        ),
    ] = "onnxruntime",
    protocol: Annotated[
        list[str] | None, typer.Option(help="buffered (default), sustained, rate; may be repeated.")
    ] = None,
    arch: Knobs = None,
    precision: Annotated[str, typer.Option(help="fp32 or fp16; tf32 and int8 with TensorRT.")] = "fp32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    batch: Annotated[int, typer.Option(help="Images per pass.")] = 1,
    pause: Annotated[
        list[float] | None, typer.Option(help="Pause in ms of `buffered`; may be repeated.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Passes of `buffered`.")] = 50,
    seconds: Annotated[float, typer.Option(help="Length of `sustained` and `rate`.")] = 10.0,
    fps: Annotated[
        list[float] | None, typer.Option(help="Frames per second of `rate`; may be repeated.")
    ] = None,
    coco: Annotated[str | None, typer.Option(help="Also evaluate the same artifact on this dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of --coco.")] = "val",
    images: Annotated[int | None, typer.Option(help="At most so many images of --coco.")] = None,
    nms: Annotated[bool, typer.Option(help="End every pass with non-maximum suppression.")] = False,
    out: Annotated[Path | None, typer.Option(help="File of records (JSON lines) to append to.")] = None,
) -> None:
    """Time one artifact under one or more protocols and, with --coco, evaluate the same artifact."""
    from rfdetr.benchmark.lab import benchmark_command

    benchmark_command(
        target, runtime, protocol or ["buffered"], arch, precision, threads, batch, pause or [200.0], samples, seconds,
        fps or [30.0], coco=coco, split=split, images=images, nms=nms, out=out,
    )  # fmt: skip


def t4(
    out: Annotated[Path, typer.Option(help="Folder of engines, records.jsonl and t4.csv.")] = Path("runs/t4"),
    data: Annotated[str, typer.Option(help="Dataset of the accuracies; empty leaves them out.")] = "coco2017",
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    model: Annotated[
        list[str] | None, typer.Option(help="Networks; may be repeated. Default: nano to large and seg-nano.")
    ] = None,
    other: Annotated[
        list[str] | None, typer.Option(help="name=file.onnx of another detector; may be repeated.")
    ] = None,
    engines: Annotated[int, typer.Option(help="Engine builds per network and precision.")] = 3,
    samples: Annotated[int, typer.Option(help="Passes per engine and pause.")] = 100,
    sustained: Annotated[
        float, typer.Option(help="Seconds of the sustained protocol; 0 leaves it out.")
    ] = 30.0,
    device: Annotated[int, typer.Option(help="Index of the GPU.")] = 0,
) -> None:
    """Table 1 and Table 20 on an NVIDIA T4: engines, pauses, and the accuracy of the engine that was timed."""
    from rfdetr.benchmark import t4 as recipe
    from rfdetr.benchmark.lab import table_text
    from rfdetr.data.registry import load_dataset

    others = {}
    for text in other or []:
        name, _, path = text.partition("=")
        if not path:
            raise UserError(f"--other takes name=file.onnx, not {text!r}")
        others[name] = path
    recipe.check_device(device)
    dataset = load_dataset(data, split) if data else None
    frame = recipe.run_t4(
        out, dataset, tuple(model or recipe.MODELS), others, engines=engines, samples=samples,
        sustained_s=sustained, device=device,
    )  # fmt: skip
    print(table_text(frame, recipe.COLUMNS))
    print(f"records: {out / 'records.jsonl'}, table: {out / 't4.csv'}")
