"""`python -m rfdetr results`: make a kept result anew."""

from pathlib import Path
from typing import Annotated

import typer

from rfdetr.cli.arguments import chosen_device


def results(
    name: Annotated[
        str,
        typer.Argument(
            help="Folder in results/ of one that is made in parts, such as full-search (all are in"
            " results/README.md): minutes to hours."
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
    from rfdetr.experiments.kept_studies import make

    devices = [chosen_device(device)] * jobs
    seconds = None if minutes is None else 60 * minutes
    print(make(name, out, seed, devices=devices, seconds=seconds, only=part or (), any_code=any_code))
