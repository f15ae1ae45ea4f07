"""`python -m rfdetr select`: choose from a finished search, and export the choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.networks import open_network

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR


def select(
    table: Annotated[Path, typer.Argument(help="table.csv of a search, or the folder that holds it.")],
    weights: Annotated[
        str | None, typer.Option(help="The searched network: export the chosen one to --out.")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="At most this latency.")] = None,
    target_latency_ms: Annotated[float | None, typer.Option(help="This latency, within --tolerance.")] = None,
    like: Annotated[
        str | None, typer.Option(help="The printed T4 latency of a detector, e.g. d-fine-s.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative, of the target; the paper's is 0.1.")] = 0.1,
    device: Annotated[str | None, typer.Option(help="Rows whose column `device` has this value.")] = None,
    metric: Annotated[str, typer.Option(help="What decides; default: what decided the search.")] = "",
    latency: Annotated[
        str, typer.Option(help="Column that decides; default: time_ms (measured, else predicted).")
    ] = "",
    out: Annotated[Path, typer.Option(help="ONNX file to write, with --weights.")] = Path("selected.onnx"),
) -> None:
    """Choose the most accurate sub-network of a search for a latency and, with --weights, export it."""
    import pandas as pd

    from rfdetr.files import read_json
    from rfdetr.search.pareto import latency_column
    from rfdetr.search.pareto import select as choose

    asked = {"--max-latency-ms": max_latency_ms, "--target-latency-ms": target_latency_ms, "--like": like}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        said = "none of them" if not given else f"{' and '.join(given)}"
        raise UserError(f"give one of {', '.join(asked)}: got {said}")
    if weights is not None and out.is_dir():
        raise UserError(f"--out takes a file, and {out} is a folder")
    path = table / "table.csv" if table.is_dir() else table
    if not path.is_file():
        raise UserError(
            f"there is no table {path}: give the folder or the table.csv that `search` has written"
        )
    found = pd.read_csv(path)
    about: Any = read_json(path.parent / "search.json") or {}
    if like is not None and device is None:
        _check_like(found, like)
    metric, column = metric or _decisive(found, about.get("metric", "AP")), latency or latency_column(found)
    row = choose(
        found,
        max_latency_ms=max_latency_ms,
        target_latency_ms=target_latency_ms,
        like=like,
        tolerance=tolerance,
        device=device,
        accuracy=metric,
        latency=column,
    )
    model = _searched(weights, about, path) if weights is not None else None
    arch = Arch(**{knob: int(row[knob]) for knob in Arch.KNOBS})
    print(_described(row, arch, metric, column))
    if model is not None:
        from rfdetr.export.onnx import export_onnx

        artifact = export_onnx(model, arch, out)
        print(f"{artifact.path}\nsha256 {artifact.sha256}")
        _say_of_precision(row, path.parent, about)


def _decisive(found: "pd.DataFrame", metric: str) -> str:
    """What a search was decided by: the accuracy of the files that were timed, where it has one."""
    from rfdetr.search.deployed import column

    return column(metric) if column(metric) in found else metric


def _check_like(found: "pd.DataFrame", like: str) -> None:
    """Printed latencies are of a T4 with TensorRT: those of another device are not comparable."""
    runtimes = {str(v) for v in found["runtime"].dropna()} if "runtime" in found else set()
    devices = {str(v) for v in found["device"].dropna()} if "device" in found else set()
    if all("tensorrt" in r for r in runtimes) and all("T4" in d for d in devices) and runtimes and devices:
        return
    where = ", ".join(sorted(devices)) or "a device that it does not name"
    raise UserError(
        f"--like {like} is the latency that the paper prints for a T4 with TensorRT, and this table's are of"
        f" {where} ({', '.join(sorted(runtimes)) or 'runtime not named'}): search with --runtime tensorrt on"
        " a T4, give --max-latency-ms, or name the device with --device to compare them all the same"
    )


def _searched(weights: str, about: dict[str, Any], path: Path) -> "RFDETR":
    """The network of a search. UserError for another one than the table is of."""
    from rfdetr.model.identity import fingerprint

    model = open_network(weights)
    known = about.get("network")
    if known is None:
        print(f"{path.parent} does not say of which network {path.name} is: not compared with {weights}")
    elif known != fingerprint(model):
        raise UserError(
            f"{path} is the search of another network than {weights}: give the weights that were searched"
            f" (their sizes and values have the digest {str(known)[:12]})"
        )
    return model


def _say_of_precision(row: "pd.Series", folder: Path, about: dict[str, Any]) -> None:
    """Which file was timed, where it is another one than the float32 file that was written."""
    from rfdetr.search.timing import timed_file

    precision = about.get("precision", "fp32")
    if precision == "fp32":
        return
    text = f"this file is float32; the table's latency is of {about.get('runtime')} in {precision}"
    found = timed_file(folder, str(row["arch"]))
    print(f"{text}: {found}" if found else text)


def _described(row: "pd.Series", arch: Arch, metric: str, column: str) -> str:
    text = f"{arch.id}: {metric} {row[metric]:.3f}"
    low, high, same = (row.get(name) for name in (f"{metric}_low", f"{metric}_high", "same_as"))
    if low is not None and low == low:
        text += f" [{low:.3f}, {high:.3f}]"
    text += f", {column} {row[column]:.3g}"
    if column == "time_ms" and row.get("latency_ms") != row.get("latency_ms"):
        text += " (predicted: time it with `benchmark`)"
    if isinstance(same, str) and same:
        text += f"\n{metric} is the same within the interval over images as that of the cheaper {same}"
    return text
