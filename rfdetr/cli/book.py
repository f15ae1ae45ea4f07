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
    jobs: Annotated[
        int | None,
        typer.Option(help="Chapters at a time; default: one for each processor, at most 4; 1 beside a GPU."),
    ] = None,
    site: Annotated[bool, typer.Option(help="Build the site after the chapters.")] = True,
    check: Annotated[bool, typer.Option(help="Look at every page of the site with Chromium.")] = False,
    pdf: Annotated[bool, typer.Option(help="Print the site into build/book.pdf with Chromium.")] = False,
) -> None:
    """Execute the chapters that changed and build the site."""
    from rfdetr.book.browser import find_browser
    from rfdetr.book.build import build_book, find_project, parse_parameters
    from rfdetr.errors import UserError

    if (check or pdf) and not site:
        raise UserError("--check and --pdf look at the site that --no-site does not build")
    if check or pdf:
        find_browser()  # not after half an hour of chapters

    result = build_book(
        profile,
        chapter or None,
        parse_parameters(parameter or []),
        timeout=timeout,
        force=force,
        site=site,
        jobs=jobs,
    )
    code = result.exit_code
    if check and result.site:
        from rfdetr.book.check import report

        code = max(code, report(result.site.parent))
    if pdf and result.site:
        from rfdetr.book.printed import print_book

        print_book(find_project(), result.site.parent)
    raise typer.Exit(code)
