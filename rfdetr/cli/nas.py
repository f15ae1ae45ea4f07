"""`python -m rfdetr nas`: data and a device in, chosen networks and a report out."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rfdetr.cli.arguments import numbers
from rfdetr.cli.measure import PRECISION_HELP
from rfdetr.errors import UserError

_TARGETS, _GRID, _TIME, _MORE = "What to choose for", "Search space", "Time", "More"


def nas(
    data: Annotated[str, typer.Option(help="A registered name, or a folder of pictures with annotations.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on in it.")] = Path(
        "runs/nas"
    ),
    weights: Annotated[
        str,
        typer.Option(
            help="Start from a published name, name:FILE, or a checkpoint; default: random weights."
        ),
    ] = "",
    backbone: Annotated[
        str,
        typer.Option(help="Backbone from DINOv2 (dinov2, or a file), with --weights random:nano."),
    ] = "",
    segmentation: Annotated[bool, typer.Option(help="Find masks, too (the data needs them).")] = False,
    target_ms: Annotated[
        str, typer.Option(help="Latencies in ms, each at most, e.g. 5,10,20.", rich_help_panel=_TARGETS)
    ] = "",
    like: Annotated[
        str, typer.Option(help="Printed detectors with commas, e.g. d-fine-s (T4).", rich_help_panel=_TARGETS)
    ] = "",
    runtime: Annotated[
        str, typer.Option(help="Runtime of the latencies, see `benchmark`.", rich_help_panel=_TARGETS)
    ] = "onnxruntime",
    precision: Annotated[
        str,
        typer.Option(
            help=PRECISION_HELP + " Other than fp32: the AP of the files at that precision decides.",
            rich_help_panel=_TARGETS,
        ),
    ] = "fp32",
    threads: Annotated[int, typer.Option(help="CPU threads of the latencies.", rich_help_panel=_TARGETS)] = 1,
    resolutions: Annotated[
        str, typer.Option(help="Training grid, px; default: from the data.", rich_help_panel=_GRID)
    ] = "",
    patch_sizes: Annotated[str, typer.Option(help="Training grid, px.", rich_help_panel=_GRID)] = "",
    windows: Annotated[str, typer.Option(help="Training grid, windows a side.", rich_help_panel=_GRID)] = "",
    queries: Annotated[int | None, typer.Option(help="Most queries.", rich_help_panel=_GRID)] = None,
    hours: Annotated[
        float | None, typer.Option(help="Wall time of the whole run.", rich_help_panel=_TIME)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the supernet.", rich_help_panel=_TIME)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step, all processes together.", rich_help_panel=_TIME)
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            help="Processes (GPUs) of the trainings, on this machine; default: one GPU, or on the processor"
            " as many as make a long training faster.",
            rich_help_panel=_TIME,
        ),
    ] = None,
    measured: Annotated[int | None, typer.Option(help="Sub-networks to time.", rich_help_panel=_TIME)] = None,
    dry_run: Annotated[bool, typer.Option(help="Look and plan only.", rich_help_panel=_TIME)] = False,
    fine_tune: Annotated[
        bool, typer.Option(help="Train the chosen networks further.", rich_help_panel=_MORE)
    ] = True,
    baseline: Annotated[
        bool,
        typer.Option(help="Also train one fixed architecture alone at the same cost.", rich_help_panel=_MORE),
    ] = False,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out missing or damaged pictures.", rich_help_panel=_MORE),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", rich_help_panel=_MORE)] = 0,
) -> None:
    """Search the best network for your data and your device: train once, look at all sub-networks, choose by
    latency.

    Stages: look at the data, plan, train, search, choose, fine-tune, write the networks, report. A run that
    was stopped or killed goes on with the same command; a changed option makes again only what depends on it.
    """
    from rfdetr.nas.options import NasOptions
    from rfdetr.nas.pipeline import search_network

    options = NasOptions(
        data=data,
        weights=weights,
        backbone=backbone,
        segmentation=segmentation,
        targets_ms=_reals(target_ms),
        like=tuple(name.strip() for name in like.split(",") if name.strip()),
        runtime=runtime,
        precision=precision,
        threads=threads,
        hours=hours,
        steps=steps,
        fine_tune=fine_tune,
        baseline=baseline,
        seed=seed,
        resolutions=numbers(resolutions, "resolutions") if resolutions else (),
        patch_sizes=numbers(patch_sizes, "patch-sizes") if patch_sizes else (),
        windows=numbers(windows, "windows") if windows else (),
        queries=queries,
        batch_size=batch_size,
        measured=measured,
        skip_missing=skip_missing,
        devices=devices,
    )
    command = f"python -m rfdetr {shlex.join(sys.argv[1:])}"
    search_network(options, out, command=command, say=lambda text: print(text, flush=True), dry_run=dry_run)


def _reals(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"--target-ms takes numbers with commas, e.g. 5,10,20, not {text!r}") from None
