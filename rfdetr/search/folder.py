"""What a search leaves in its folder, said in words: notes for the reader of a front, and a README.md."""

from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.search.latency_model import LatencyModel
    from rfdetr.search.timing import Timings

FILES = {
    "table.csv": "one row per evaluated sub-network; `arch` is the name that other commands' `--arch` takes",
    "front.csv": "the rows that no other beats in accuracy and time, all measured, cheapest first",
    "latency.csv": "every measured latency; a later run of the same command measures none of them again",
    "search.json": "network, data, grid, metric, precision, provenance",
    "evaluated": "accuracies of finished encoder settings, used again by the same command",
    "intervals": "resampled accuracies of the front's rows, used again",
    "deployed": "accuracies of the files that were timed, where their precision is not fp32, used again",
    "onnx": "files, engines and quantised models that were timed; may be deleted, and are then made again",
    "accuracy.csv": "accuracies of a search by many workers",
    "search.db": "state of a search by many workers",
}


def notes(
    table: "pd.DataFrame",
    best: "pd.DataFrame",
    timings: "Timings",
    latency: "LatencyModel",
    metric: str,
) -> tuple[str, ...]:
    """What should be known to whoever reads the front, one sentence each."""
    found = []
    measured = int(table["latency_ms"].notna().sum())
    if measured < len(table):
        error = "with an error that is not known (fewer than 12 were measured)"
        if latency.cross_validation is not None:
            row = latency.cross_validation.set_index("method").loc[latency.method]
            error = (
                f"{row['median_ape']:.1f} % off in the median, {row['p95_ape']:.0f} % at the 95th percentile"
            )
        found.append(
            f"{measured} of {len(table)} sub-networks were timed, the whole front among them; the others'"
            f" latency is predicted, {error}"
        )
    if f"{metric}_sd" in best and (best[f"{metric}_sd"] > 0).any():
        found.append(
            f"{metric} is the one expected on all images where `images`, those looked at, are fewer; 95 % is"
            " the range of that expectation"
        )
    if "accuracy_of" in best:
        found += _deployed(table, best, timings, metric)
    if timings.reused:
        found.append(f"{timings.reused} latencies are kept from an earlier run; --time-again repeats them")
    noisy = int((best["noisy"] == True).sum())  # noqa: E712 (empty where not measured)
    if noisy:
        found.append(
            f"~ marks {noisy} of {len(best)} latencies whose rounds differ by more than 5 %: the machine was"
            " busy, or its clock changed"
        )
    if "same_as" in best and (best["same_as"] != "").any():
        found.append(
            f"= names the cheapest network whose {metric} is the same within the 95 % interval over images"
        )
    if not bool(best["trained"].all()) and len(best):
        found.append(
            "untrained: training never drew this encoder setting; its weights are those of the others"
        )
    return tuple(found)


def _deployed(table: "pd.DataFrame", best: "pd.DataFrame", timings: "Timings", metric: str) -> list[str]:
    """What is said where the files that were timed have an accuracy of their own."""
    asked, count = timings.protocol.check(), int((table["accuracy_of"] == "timed file").sum())
    found = [
        f"deployed {metric} is that of the very file that was timed, and decides the front: {count} files"
        f" near the front were evaluated as they run; the other {len(table) - count} rows of the table have"
        f" the {metric} of the float32 network alone"
    ]
    if "images" in best:
        found.append("that evaluation takes all images and is not part of the budget")
    executed = sorted({str(value) for value in best["precision"]} - {asked})
    if executed:
        found.append(
            f"{asked} was asked for; executed were {', '.join(executed)}"
            f" ({int((best['precision'] != asked).sum())} of {len(best)} on the front)"
        )
    return found


def describe(folder: Path, dataset: "DetectionDataset", metric: str, rows: int, best: int) -> None:
    """Write README.md: what the files are and how large."""
    lines = [
        f"# A search on {dataset.name} {dataset.split}",
        "",
        f"{rows} sub-networks, {best} on the front by {metric} and latency. The same command goes on with"
        " what is here; `python -m rfdetr select` chooses from it.",
        "",
        "| what | size | meaning |",
        "| --- | --- | --- |",
    ]
    for name, meaning in FILES.items():
        path = folder / name
        if path.exists():
            lines.append(f"| {name}{'/' if path.is_dir() else ''} | {_size(path)} | {meaning} |")
    write_atomic(folder / "README.md", "\n".join(lines) + "\n")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _size(path: Path) -> str:
    value = float(size_of(path))
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
