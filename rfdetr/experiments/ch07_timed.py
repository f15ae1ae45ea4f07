"""The kept run of many detectors, read for a page: latency beside the printed one, and what orders it."""

from typing import TYPE_CHECKING, Any

from rfdetr.arch import PRESETS
from rfdetr.benchmark.flops import analytic
from rfdetr.experiments.ch07_contest import NAME
from rfdetr.model.config import preset_config
from rfdetr.paper.published import SIZE_NAMES
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

COMMAND = f"python -m rfdetr results {NAME} --minutes 120"
"""What makes the run."""
_HOW = f"on a machine that does nothing else, with the extras `peers` and `openvino`, `{COMMAND}`"
MISSING = f"Not measured here: no run is kept in this copy; {_HOW} makes it."
_PEERS = {"YOLOv11": "YOLO11", "YOLOv8": "YOLOv8"}
REFERENCE = "nano"


def contest_name(family: str, size: str, masks: bool) -> str:
    """Name of a printed row's model in the run ("" where it is no part of it)."""
    if family.startswith("RF-DETR"):
        return ("seg-" if masks else "") + SIZE_NAMES.get(size, "")
    name = _PEERS.get(family, family) + ("-seg" if masks and family in _PEERS else "")
    return f"{name}-{size}".lower()


def without(what: str, result: "Kept | None") -> str:
    """Why `what` was not timed: there is no run, or it is not among the models of the kept one."""
    if result is None:
        return f"No run of many models is kept in this copy; {_HOW} makes it."
    return (
        f"The kept run has {result.tables['models'].model.nunique()} models, {what} not among them; {_HOW}"
        " goes on with the rest."
    )


def beside_print(
    families: "pd.DataFrame",
    result: "Kept | None",
    masks: bool = False,
    protocol: str = "buffered",
    threads: int = 1,
) -> "pd.DataFrame | None":
    """The printed rows that were timed. families: from `ch07_families.family_table`. None without a run.

    Columns: family, size, gflops, params_m, printed_ms, relative_printed (over RF-DETR nano), and for each
    runtime and precision `<runtime> <precision>` (ms) and `relative <...>`.
    """
    if result is None:
        return None
    reference = f"seg-{REFERENCE}" if masks else REFERENCE
    models = result.tables["models"]
    part = models[(models.protocol == protocol) & (models.threads == threads)]
    wide = part.assign(way=part.runtime + " " + part.asked).pivot_table(
        index="model", columns="way", values="median_ms"
    )
    rows: list[dict[str, Any]] = []
    names = families.apply(lambda row: contest_name(row.family, row["size"], masks), axis=1)
    printed = families.set_index(names)["latency_ms"]
    if reference not in wide.index or reference not in printed.index:
        return None
    times: dict[str, dict[str, float]] = {
        str(model): {str(way): float(ms) for way, ms in row.items()} for model, row in wide.iterrows()
    }
    for (_, row), name in zip(families.iterrows(), names, strict=True):
        if name in wide.index:
            values = times[name]
            relative = {f"relative {w}": v / times[reference][w] for w, v in values.items()}
            ms = float(row.latency_ms)
            head = {"family": row.family, "size": row["size"], "gflops": row.gflops, "printed_ms": ms}
            head["params_m"] = row.params_m
            head["relative_printed"] = ms / float(printed[reference])
            rows.append({**head, **values, **relative})
    import pandas as pd

    return pd.DataFrame(rows)


def ways_of(table: "pd.DataFrame") -> list[str]:
    """Runtimes and precisions in a table of `beside_print`, e.g. "openvino int8"."""
    names = [str(column).removeprefix("relative ") for column in table if "relative " in str(column)]
    return [name for name in names if name in table]


def times(result: "Kept", protocol: str = "buffered") -> "pd.DataFrame":
    """Every model that was timed. Columns: model, gflops (one convention), for each runtime, precision and
    number of threads `<runtime> <precision>, <threads>` (ms), memory_mb and spread (of the first of these;
    spread is empty with one round).
    """
    models = result.tables["models"]
    part = models[models.protocol == protocol]
    keys = zip(part.runtime, part.asked, part.threads, strict=True)
    part = part.assign(way=[f"{runtime} {asked}, {threads}" for runtime, asked, threads in keys])
    wide = part.pivot_table(index="model", columns="way", values="median_ms", sort=False)
    wide = wide[list(dict.fromkeys(part.way))]
    first = part[part.way == part.way.iloc[0]].set_index("model")
    wide["memory_mb"] = first.memory_mb
    wide["spread"] = first.spread.where(first["rounds"] > 1)
    wide.insert(0, "gflops", [gflops_of(str(model)) for model in wide.index])
    return wide.sort_values("gflops", kind="stable").reset_index()


def both_ways(models: "pd.DataFrame", ending: str, keys: list[str]) -> "pd.DataFrame":
    """Rows of the models that were also timed as `<model>.<ending>`: model, `keys`, all else of both, that
    of the other way with the suffix `_other`.
    """
    other = models[models.model.str.endswith(f".{ending}")]
    other = other.assign(model=other.model.str.removesuffix(f".{ending}"))
    return other.merge(models, on=["model", *keys], suffixes=("_other", "")).reset_index(drop=True)


def ways(times: "pd.DataFrame") -> dict[int, dict[str, str]]:
    """Number of threads -> its columns of `times` with their headings, runtime and precision."""
    found: dict[int, dict[str, str]] = {}
    for column in map(str, times.columns):
        way, comma, threads = column.rpartition(", ")
        if comma:
            found.setdefault(int(threads), {})[column] = way
    return dict(sorted(found.items()))


def gflops_of(model: str) -> float:
    """GFLOPs of a model of the run, attention counted, graph as deployed; of a YOLO without its end."""
    if model in PRESETS:
        return analytic(preset_config(model)).gflops
    return catalogue.one_convention(catalogue.named(model.partition(".")[0]))


def conditions(result: "Kept") -> "pd.DataFrame":
    """What the protocol and a second thread change, over all models.

    Columns: way (runtime, precision), models, pause (median of the times buffered over sustained, one
    thread), pause_least, pause_most, threads (median speed-up of two threads, buffered; empty where two were
    not timed), threads_least, threads_most, noisy (share of the timings marked so), built (precisions as
    read back from the loaded graphs).
    """
    import pandas as pd

    models = result.tables["models"]
    rows = []
    for (runtime, asked), part in models.groupby(["runtime", "asked"], sort=False):
        ms = part.pivot_table(index="model", columns=["protocol", "threads"], values="median_ms")
        row: dict[str, Any] = {"way": f"{runtime} {asked}", "models": len(ms)}
        for name, over, under in (
            ("pause", ("buffered", 1), ("sustained", 1)),
            ("threads", ("buffered", 1), ("buffered", 2)),
        ):
            there = over in ms and under in ms
            ratio = (ms[over] / ms[under]).dropna() if there else pd.Series(dtype=float)
            row |= {name: ratio.median(), f"{name}_least": ratio.min(), f"{name}_most": ratio.max()}
        row["noisy"] = part.noisy.mean()
        row["built"] = ", ".join(sorted(set(map(str, part.precision))))
        rows.append(row)
    return pd.DataFrame(rows)
