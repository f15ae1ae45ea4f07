"""`python -m rfdetr audit`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.book.audit import Audit

FORMATS = ("table", "json", "csv")


def audit(
    claim: Annotated[str | None, typer.Option(help="One claim (C013) or inconsistency (I17).")] = None,
    format: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    profile: Annotated[str, typer.Option(help="The profile whose runs of the chapters count.")] = "cpu",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the findings of the last cpu run in results/findings.")
    ] = False,
) -> None:
    """What was found about each claim of the paper, and the places where it disagrees with itself."""
    from rfdetr.book import audit as audits
    from rfdetr.experiments.base.artifacts import Store
    from rfdetr.experiments.base.kept import results_root
    from rfdetr.experiments.base.profiles import get_profile

    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    get_profile(profile)
    if keep:
        audits.collect(results_root() / audits.KEPT, Store())
    found = audits.audit(audits.saved_findings(profile))
    if claim is not None:
        entry = audits.one(found, claim)
        if format == "csv":
            raise UserError("one claim is shown as table or json; --format csv is for all of them")
        row = entry.row()
        print(json.dumps(row, indent=1, ensure_ascii=False) if format == "json" else _details(row))
        return
    if format == "json":
        print(json.dumps(audits.rows(found), indent=1, ensure_ascii=False))
    elif format == "csv":
        print(audits.as_csv(found), end="")
    else:
        print(_table(found))


def _details(row: dict[str, object]) -> str:
    """One entry, a line per field that holds something."""
    from rfdetr.plots.findings import readable

    lines = []
    for name, value in row.items():
        if isinstance(value, dict):
            lines += [f"  {key}: {readable(entry)}" for key, entry in value.items()]
        elif value:
            text = "\n    ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{name:<10} {text}")
    return "\n".join(lines)


def _table(found: "Audit") -> str:
    """One line per claim and per disagreement, and the counts."""
    lines = [
        f"{c.id}  {c.verdict or c.state:<22.22}  {c.chapter or '-':<21}  {c.statement}" for c in found.claims
    ]
    lines += ["", *(f"{e.id}   {e.state:<22}  {'':<21}  {e.title}" for e in found.entries), ""]
    lines.append(", ".join(f"{count} {word}" for word, count in found.counts().items()))
    states = sorted({entry.state for entry in found.entries})
    lines.append(
        ", ".join(f"{sum(e.state == s for e in found.entries)} {s}" for s in states)
        + " of the inconsistencies"
    )
    return "\n".join(lines)
