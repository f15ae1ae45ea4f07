"""`python -m rfdetr peers`: the paper's other detectors, listed, counted and exported."""

from pathlib import Path
from typing import Annotated

import typer

from rfdetr.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "The paper's other detectors, from public packages (extra `peers`; the YOLO families come from"
        " ultralytics, AGPL-3.0). Exported files go to predict, evaluate and benchmark like our own."
    ),
)
Names = Annotated[list[str] | None, typer.Argument(help="Names of `peers list`; none: all.")]


@app.command("list")
def listing() -> None:
    """All names, with what is printed and what was counted: the committed record; nothing is built."""
    from rfdetr.peers import catalogue

    print(f"{'name':16}{'parameters, M':>15}{'GFLOPs':>10}{'printed':>18}  package (licence)")
    for entry in catalogue.entries(today=True):
        printed = entry.get("published")
        text = f"{printed['params_m']} / {printed['gflops']}" if printed else ""
        print(
            f"{catalogue.key(entry):16}{entry['params_m']:15.2f}{catalogue.one_convention(entry):10.1f}"
            f"{text:>18}  {entry['package']} ({entry['licence']})"
        )
    print(
        "GFLOPs: attention counted, graph as deployed. `peers count NAME` shows every convention and causes."
    )


@app.command()
def count(names: Names = None) -> None:
    """Build the named peers and count them again, beside the record and the printed numbers.

    Exit code 1 when a count is not that of the record (more than 0.1 % off).
    """
    from rfdetr.peers import catalogue
    from rfdetr.peers.comparing import compared

    entries = [catalogue.named(name) for name in names] if names else catalogue.entries(today=True)
    able = [entry for entry in entries if catalogue.available(entry)]
    if not able:
        raise UserError("no package of these peers is installed: pip install 'rf-detr-nas-companion[peers]'")
    wrong = 0
    for entry in able:
        lines, same = compared(entry)
        print("\n".join(lines), flush=True)
        wrong += not same
    if missing := [catalogue.key(entry) for entry in entries if entry not in able]:
        print(f"not counted, their package is not installed: {', '.join(missing)}")
    if wrong:
        print(f"{wrong} of {len(able)} differ from the record by more than 0.1 %")
        raise typer.Exit(1)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A name of `peers list`.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: NAME.onnx.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A state dict of that network; default: random weights.")
    ] = None,
    nms: Annotated[
        str, typer.Option(help="Of a YOLO: deployed (best class over 0.25), or evaluation (all over 0.001).")
    ] = "deployed",
    masks: Annotated[
        str, typer.Option(help="Of -seg: whole, or prototypes (what assembling costs is the difference).")
    ] = "whole",
) -> None:
    """Write a deployed peer as an ONNX file that works alone, checked against the network."""
    from rfdetr.files import check_target
    from rfdetr.peers import catalogue

    entry = catalogue.named(name)
    catalogue.require(entry)
    target = out or Path(f"{name}.onnx")
    check_target(target, suffix=".onnx")
    from rfdetr.peers.exporting import export_peer

    artifact = export_peer(name, target, weights, nms, masks)
    print(f"{artifact.path}\nsha256 {artifact.sha256}")
    if weights is None:
        print("random weights: the file times like a trained one, what it finds means nothing")
