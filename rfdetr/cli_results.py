"""`python -m rfdetr select` and `results`: choosing from a finished search, and making a kept result anew."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rfdetr.networks import open_network


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

    from rfdetr.errors import UserError
    from rfdetr.search.grid import KNOBS
    from rfdetr.search.pareto import select as choose

    path = table / "table.csv" if table.is_dir() else table
    if not path.is_file():
        raise UserError(
            f"there is no table {path}: give the folder or the table.csv that `search` has written"
        )
    found = pd.read_csv(path)
    column = latency or ("predicted_ms" if "predicted_ms" in found else "latency_ms")
    limits: dict[str, Any] = {
        "max_latency_ms": max_latency_ms, "target_latency_ms": target_latency_ms, "like": like, "tolerance": tolerance,
        "device": device, "latency": column,
    }  # fmt: skip
    row = choose(found, **limits)
    knobs = ", ".join(f"{knob} {int(row[knob])}" for knob in KNOBS)
    print(f"{knobs}: AP {row['AP']:.3f}, {column} {row[column]:.3g}")
    if weights is not None:
        from rfdetr.search.study import export_selected

        artifact = export_selected(open_network(weights), found, out, **limits)
        print(f"{artifact.path}\nsha256 {artifact.sha256}")


def results(
    name: Annotated[
        str, typer.Argument(help="sampling-study (an hour) or full-search (two hours, on two cores).")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: the committed one.")] = None,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
) -> None:
    """Make one of the results that are kept in the repository anew; a stopped run goes on."""
    from rfdetr.experiments.long_runs import make

    print(make(name, out, seed))
