"""`python -m rfdetr book`."""

from typing import Annotated

import typer


def book(
    profile: Annotated[str, typer.Option(help="smoke, cpu, full, gpu or t4.")] = "cpu",
    chapter: Annotated[list[str] | None, typer.Option(help="Only these chapters, e.g. 05_search.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value, for the chapters named.")
    ] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds that one cell may take.")] = None,
    force: Annotated[bool, typer.Option(help="Execute also what did not change.")] = False,
    site: Annotated[bool, typer.Option(help="Build the site after the chapters.")] = True,
) -> None:
    """Execute the chapters that changed and build the site."""
    from rfdetr.book.build import build_book, parse_parameters

    result = build_book(
        profile, chapter or None, parse_parameters(parameter or []), timeout=timeout, force=force, site=site
    )
    raise typer.Exit(result.exit_code)
