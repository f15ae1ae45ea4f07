"""`python -m rfdetr search`: accuracies of a grid of sub-networks, latencies, the front."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfdetr.arch import SearchSpace
from rfdetr.cli.arguments import (
    Categories,
    Data,
    SkipMissing,
    Weights,
    check_counts,
    chosen_data,
    chosen_device,
    numbers,
    open_data,
    with_knobs,
)
from rfdetr.cli.front import show
from rfdetr.cli.measure import PRECISION_HELP
from rfdetr.errors import UserError
from rfdetr.networks import open_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

_GRID, _LATENCY, _MANY = "Grid", "Latency", "Less, or more machines"


def search(
    weights: Weights,
    data: Data = None,
    categories: Categories = None,
    skip_missing: SkipMissing = False,
    split: Annotated[str, typer.Option(help="Split that decides; keep test for the end.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder of table and front.")] = Path("runs/search"),
    metric: Annotated[
        str, typer.Option(help="What decides: AP, mask_AP, AP50, ...; default: mask_AP with masks, else AP.")
    ] = "",
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens a side, e.g. 10,11,12, in place of resolutions; default: those of the training.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    resolutions: Annotated[str | None, typer.Option(help="Pictures, px.", rich_help_panel=_GRID)] = None,
    patch_sizes: Annotated[
        str | None, typer.Option(help="px; default: the trained ones and 8 to 16.", rich_help_panel=_GRID)
    ] = None,
    windows: Annotated[
        str | None, typer.Option(help="Windows per side; default: as trained.", rich_help_panel=_GRID)
    ] = None,
    decoder_layers: Annotated[
        str | None, typer.Option(help="e.g. 0,1,2,3; default: all.", rich_help_panel=_GRID)
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(help="e.g. 10,20,30; default: all, two and one third.", rich_help_panel=_GRID),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="The grid of smoke, cpu, full, gpu or t4 instead.", rich_help_panel=_GRID),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="Runtime of the latencies, see `benchmark`.", rich_help_panel=_LATENCY)
    ] = "onnxruntime",
    precision: Annotated[
        str,
        typer.Option(
            help=PRECISION_HELP + " Other than fp32: the front of the files that are timed, by their own AP.",
            rich_help_panel=_LATENCY,
        ),
    ] = "",
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="AP that int8 may cost a network of the front before the parts that lose most"
            " stay in floating point; default 0.005, 1: whatever it costs.",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
    measured: Annotated[
        int,
        typer.Option(
            help="Sub-networks that are timed besides the front; the others' latency is predicted.",
            rich_help_panel=_LATENCY,
        ),
    ] = 40,
    threads: Annotated[int, typer.Option(help="CPU threads.", rich_help_panel=_LATENCY)] = 1,
    gpu: Annotated[int, typer.Option(help="Index of the GPU, as CUDA counts.", rich_help_panel=_LATENCY)] = 0,
    time_again: Annotated[
        bool, typer.Option(help="Measure again what was measured before.", rich_help_panel=_LATENCY)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the sample that is timed.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto: of the accuracies.")] = "auto",
    budget: Annotated[
        float | None,
        typer.Option(
            help="Spend this part of the exact search's cost, timing included, e.g. 0.05.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help="With --budget: multifidelity, halving, hyperband, tpe-hyperband, token-rule-tenth (few"
            " images first); guided, token-rule, tpe, nsga2, random, cheap-random (all images).",
            rich_help_panel=_MANY,
        ),
    ] = "multifidelity",
    dry_run: Annotated[bool, typer.Option(help="Estimate the cost and stop.", rich_help_panel=_MANY)] = False,
    workers: Annotated[int, typer.Option(help="Of that estimate.", rich_help_panel=_MANY)] = 1,
    worker: Annotated[
        bool,
        typer.Option(help="Be one of many workers of a search kept in --storage.", rich_help_panel=_MANY),
    ] = False,
    storage: Annotated[
        str,
        typer.Option(
            help="sqlite:///FILE, postgresql://..., journal:///FILE. Without --worker: join, then measure.",
            rich_help_panel=_MANY,
        ),
    ] = "",
) -> None:
    """Evaluate a grid of sub-networks on data, measure latencies, print the Pareto front.

    The default grid is made from what the network was trained with. With --budget a sampler decides which
    sub-networks are looked at, and on how many images; the table then has the accuracy that is expected on
    all images. With --worker only accuracies are computed (accuracy.csv), by as many workers as are started
    with the same --storage; each may join, leave or be killed at any time. With --budget they wait for a
    process without --worker, which measures the latencies.
    """
    from rfdetr.benchmark.lab import training_images
    from rfdetr.benchmark.prepare import looks_at_images
    from rfdetr.data.checks import before_search
    from rfdetr.provenance import provenance
    from rfdetr.search.run import chosen_metric
    from rfdetr.search.run import search as run
    from rfdetr.search.spending import search_within

    precision = _check(locals())
    model = open_network(weights, categories).to(chosen_device(device))
    given = {
        "resolutions": resolutions,
        "patch_sizes": patch_sizes,
        "windows": windows,
        "decoder_layers": decoder_layers,
        "queries": queries,
    }
    space = chosen_space(model, profile, tokens, given)
    model.config.check(space.largest)
    name = chosen_data(model, data)
    dataset = open_data(name, split, skip_missing)
    before_search(dataset)
    options: dict[str, Any] = {
        "metric": chosen_metric(model, dataset, metric),
        "measured": measured,
        "runtime": runtime,
        "precision": precision,
        **({} if max_loss is None else {"max_loss": max_loss}),
        "threads": threads,
        "gpu": gpu,
        "time_again": time_again,
        "seed": seed,
        "origin": provenance(profile, seed),
    }
    if dry_run:
        _estimate(model, dataset, space, workers, measured, runtime)
        return
    if worker:
        storage = storage or f"sqlite:///{out / 'search.db'}"
        within = {"budget": budget, "sampler": sampler, "seed": seed, "metric": options["metric"]}
        _work(model, dataset, space, storage, out, within if budget is not None else None)
        return
    if looks_at_images(runtime, precision):
        options["images"] = training_images(name, dataset)
    if budget is None:
        result = run(model, dataset, space, out, storage=storage, **options)
    else:
        result = search_within(
            budget, model, dataset, space, out, sampler=sampler, storage=storage, **options
        )
    show(result)


def _check(given: dict[str, Any]) -> str:
    """The precision of the latencies. UserError for what cannot work, before anything is loaded."""
    from rfdetr.benchmark.runtimes import check_executes
    from rfdetr.files import check_folder
    from rfdetr.search.budget import check_options
    from rfdetr.search.storage import check_storage

    budget, worker, out = given["budget"], given["worker"], given["out"]
    if budget is not None:
        if given["dry_run"]:
            raise UserError("--budget says what is spent: leave out --dry-run")
        check_options(budget, given["sampler"])
    if given["tokens"] and given["resolutions"]:
        raise UserError("give --tokens or --resolutions, not both: one follows from the other")
    check_counts(**{name: given[name] for name in ("measured", "workers", "threads")})
    if given["max_loss"] is not None and not given["max_loss"] > 0:
        raise UserError(f"--max-loss is a part of AP above 0, e.g. 0.005, not {given['max_loss']:g}")
    if given["storage"]:
        check_storage(given["storage"])
    check_folder(out)
    if worker or given["dry_run"]:
        return ""
    return check_executes(given["runtime"], given["precision"], given["gpu"])


def chosen_space(
    model: "RFDETR", profile: str | None, tokens: str | None, given: dict[str, str | None]
) -> SearchSpace:
    """The grid: the network's own, or a profile's, with what was given; says which it is."""
    from rfdetr.experiments.base.profiles import get_profile
    from rfdetr.search.space import TokenSpace, default_space

    if profile is not None:
        base = get_profile(profile).recipe.search
        depths = tuple(d for d in base.decoder_layers if d <= model.config.decoder_layers)
        counts = tuple(q for q in base.queries if q <= model.config.queries) or (model.config.queries,)
        base = SearchSpace(base.resolutions, base.patch_sizes, base.windows, depths, counts)
        if tokens is None:
            return with_knobs(base, **given)
    else:
        base = default_space(model)
    if given["resolutions"] is not None:
        return with_knobs(base, **given)
    values = {n: numbers(t, n.replace("_", "-")) if (t := given[n]) else getattr(base, n) for n in given}
    sides = numbers(tokens, "tokens") if tokens else getattr(base, "sides", ())
    del values["resolutions"]
    # Fewer tokens than windows are no architecture; of the default ones these are left out.
    kept = sides if tokens else tuple(s for s in sides if s >= max(values["windows"]))
    space = TokenSpace.of(kept or sides, **values)
    print(f"grid: {space}")
    return space


def _estimate(
    model: "RFDETR",
    dataset: "DetectionDataset",
    space: SearchSpace,
    workers: int,
    measured: int,
    runtime: str,
) -> None:
    from rfdetr.search.study import dry_run

    row = dry_run(model, dataset, space, workers).iloc[0]
    count = int(row["subnetworks"])
    print(
        f"{int(row['units'])} encoder settings (the unit of work: one encoder pass per image), {count}"
        f" sub-networks ({int(row['points'])} grid points), {int(row['images'])} images"
    )
    print(
        f"accuracies: {_duration(row['hours'])} with {workers} worker{'s' if workers > 1 else ''} like this"
        f" machine, {row['shared_pflops']:.3g} PFLOP; sub-network by sub-network"
        f" {_duration(row['one_by_one_hours'])}, {row['one_by_one_pflops']:.3g} PFLOP"
    )
    print(
        f"latencies: {min(measured, count)} sub-networks and the front are exported and timed with {runtime}"
        " afterwards, a few seconds each (not measured here)"
    )


def _duration(hours: float) -> str:
    seconds = 3600 * hours
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


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
