"""`python -m rfdetr search`, `select` and `results`: search, choose from a finished search, make a kept
result anew.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfdetr.arch import Arch, SearchSpace
from rfdetr.cli.arguments import Data, SkipMissing, Weights, chosen_data, open_data, with_knobs
from rfdetr.errors import UserError
from rfdetr.networks import open_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR


def search(
    weights: Weights,
    data: Data = None,
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
        float | None, typer.Option(help="Spend this part of the exact search's cost, e.g. 0.02.")
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help="With --budget: multifidelity, halving, hyperband, tpe-hyperband, token-rule-tenth (few"
            " images first); guided, token-rule, tpe, nsga2, random, cheap-random (all images)."
        ),
    ] = "multifidelity",
    skip_missing: SkipMissing = False,
) -> None:
    """Evaluate a grid of sub-networks, measure latencies, print the Pareto front.

    With --budget a sampler decides which sub-networks are looked at, and on how many images, until that part
    of the cost is spent; the table then has the AP that is expected on all images.

    With --worker only the accuracies are computed (accuracy.csv), by as many workers as are started with the
    same --storage; each may join, leave or be killed at any time. With --budget they wait for a process
    without --worker, which measures the latencies.
    """
    from rfdetr.data.checks import before_search
    from rfdetr.experiments.base.profiles import get_profile
    from rfdetr.provenance import provenance
    from rfdetr.search.budget import check_options
    from rfdetr.search.run import search as run
    from rfdetr.search.run import search_within

    if budget is not None and dry_run:
        raise UserError("--budget says what is spent: leave out --dry-run")
    if budget is not None:
        check_options(budget, sampler)
    model = open_network(weights).to(chosen_device(device))
    dataset = open_data(chosen_data(model, data), split, skip_missing)
    before_search(dataset)
    base = get_profile(profile).recipe.search
    depths = tuple(d for d in base.decoder_layers if d <= model.config.decoder_layers)
    counts = tuple(q for q in base.queries if q <= model.config.queries) or (model.config.queries,)
    base = SearchSpace(base.resolutions, base.patch_sizes, base.windows, depths, counts)
    space = with_knobs(
        base,
        resolutions=resolutions,
        patch_sizes=patch_sizes,
        windows=windows,
        decoder_layers=decoder_layers,
        queries=queries,
    )
    if dry_run:
        from rfdetr.search.study import dry_run as estimate

        print(estimate(model, dataset, space, workers).T.to_string(header=False))
        return
    if worker:
        storage = storage or f"sqlite:///{out / 'search.db'}"
        within = None if budget is None else {"budget": budget, "sampler": sampler, "seed": seed}
        _work(model, dataset, space, storage, out, within)
        return
    given: dict[str, Any] = {
        "measured": measured,
        "threads": threads,
        "seed": seed,
        "runtime": runtime,
        "origin": provenance(profile, seed),
    }
    if budget is None:
        result = run(model, dataset, space, out, storage=storage, **given)
    else:
        result = search_within(budget, model, dataset, space, out, sampler=sampler, storage=storage, **given)
    shown = ("AP", "AP_sd", "AP50", "images", "gflops", "predicted_ms", "latency_ms")
    columns = [*Arch.KNOBS, *(c for c in shown if c in result.front)]
    print(result.front[columns].to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"{len(result.table)} sub-networks: {result.path}")


def chosen_device(name: str) -> str:
    """cpu or cuda for "auto"; UserError when cuda is asked for and is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu, or a build of torch for its driver")
    return name


def _work(
    model: "RFDETR",
    dataset: "DetectionDataset",
    space: SearchSpace,
    storage: str,
    out: Path,
    within: dict[str, Any] | None,
) -> None:
    from rfdetr.files import atomic_path
    from rfdetr.search.study import run_worker
    from rfdetr.search.within import budgeted_search

    def report(state: object) -> None:
        print(state, flush=True)

    out.mkdir(parents=True, exist_ok=True)
    if within is not None:
        table = budgeted_search(model, dataset, space, None, storage=storage, on_unit=report, **within)
    else:
        table = run_worker(model, dataset, space, storage, on_progress=report)
    with atomic_path(out / "accuracy.csv") as temporary:
        table.to_csv(temporary, index=False)
    found = f"{len(table)} of {len(space)} grid points are done"
    if within is not None:
        found = f"{len(table)} sub-networks, {table.attrs['units']} encoder settings looked at"
    print(f"{found}: {out / 'accuracy.csv'}")


def select(
    table: Annotated[Path, typer.Argument(help="table.csv of a search, or the folder that holds it.")],
    weights: Annotated[
        str | None, typer.Option(help="The searched network: export the chosen one to --out.")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="At most this latency.")] = None,
    target_latency_ms: Annotated[float | None, typer.Option(help="This latency, within --tolerance.")] = None,
    like: Annotated[
        str | None, typer.Option(help="The printed latency of a detector, e.g. d-fine-s.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative, of the target; the paper's is 0.1.")] = 0.1,
    device: Annotated[str | None, typer.Option(help="Rows whose column `device` has this value.")] = None,
    latency: Annotated[
        str, typer.Option(help="Column that decides; default: predicted_ms or latency_ms.")
    ] = "",
    out: Annotated[Path, typer.Option(help="ONNX file to write, with --weights.")] = Path("selected.onnx"),
) -> None:
    """Choose the most accurate sub-network of a search for a latency and, with --weights, export it."""
    import pandas as pd

    from rfdetr.search.pareto import select as choose

    path = table / "table.csv" if table.is_dir() else table
    if not path.is_file():
        raise UserError(
            f"there is no table {path}: give the folder or the table.csv that `search` has written"
        )
    found = pd.read_csv(path)
    column = latency or ("predicted_ms" if "predicted_ms" in found else "latency_ms")
    limits: dict[str, Any] = {
        "max_latency_ms": max_latency_ms,
        "target_latency_ms": target_latency_ms,
        "like": like,
        "tolerance": tolerance,
        "device": device,
        "latency": column,
    }
    row = choose(found, **limits)
    knobs = ", ".join(f"{knob} {int(row[knob])}" for knob in Arch.KNOBS)
    print(f"{knobs}: AP {row['AP']:.3f}, {column} {row[column]:.3g}")
    if weights is not None:
        from rfdetr.search.study import export_selected

        artifact = export_selected(open_network(weights), found, out, **limits)
        print(f"{artifact.path}\nsha256 {artifact.sha256}")


def results(
    name: Annotated[
        str,
        typer.Argument(
            help="full-search, ranking, sampling-study, precision-study or fourteen-domains: hours each."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: the committed one.")] = None,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Parts done at the same time, each by a process.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto: of these processes.")] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Stop then, and keep what is done; the same command goes on.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Only parts whose names begin so; keeps nothing yet.")
    ] = None,
    any_code: Annotated[
        bool, typer.Option(help="Take parts that were made by other code, too; the result names its commits.")
    ] = False,
) -> None:
    """Make one of the results that are kept in the repository anew; a stopped run goes on."""
    from rfdetr.experiments.base.long_runs import make

    devices = [chosen_device(device)] * jobs
    seconds = None if minutes is None else 60 * minutes
    print(make(name, out, seed, devices=devices, seconds=seconds, only=part or (), any_code=any_code))
