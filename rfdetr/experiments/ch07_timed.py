"""The kept run of many detectors, read for a page: latency beside the printed one, and what orders it."""

from typing import TYPE_CHECKING, Any

from rfdetr.experiments.ch07_contest import NAME
from rfdetr.paper.published import SIZE_NAMES
from rfdetr.peers import catalogue

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

COMMAND = f"python -m rfdetr results {NAME} --minutes 120"
"""What makes the run."""
_PEERS = {"YOLOv11": "YOLO11", "YOLOv8": "YOLOv8"}
REFERENCE = "nano"


def contest_name(family: str, size: str, masks: bool) -> str:
    """Name of a printed row's model in the run ("" where it is no part of it)."""
    if family.startswith("RF-DETR"):
        return ("seg-" if masks else "") + SIZE_NAMES.get(size, "")
    name = _PEERS.get(family, family) + ("-seg" if masks and family in _PEERS else "")
    return f"{name}-{size}".lower()


def beside_print(
    families: "pd.DataFrame", result: "Kept | None", masks: bool = False, protocol: str = "buffered"
) -> "pd.DataFrame | None":
    """The printed rows that were timed. families: from `ch07_families.family_table`. None without a run.

    Columns: family, size, gflops, params_m, printed_ms, relative_printed (over RF-DETR nano), and for each
    runtime, precision and one thread `<runtime> <precision>` (ms) and `relative <...>`.
    """
    if result is None:
        return None
    reference = f"seg-{REFERENCE}" if masks else REFERENCE
    models = result.tables["models"]
    part = models[(models.protocol == protocol) & (models.threads == 1)]
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


def orders(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rank correlation (Kendall's tau) of the time in each runtime with GFLOPs, printed latency, parameters.

    table: from `beside_print`. Columns: way, models, gflops, printed, params (tau).
    """
    import pandas as pd
    from scipy.stats import kendalltau

    rows = []
    ways = [str(c).removeprefix("relative ") for c in table if str(c).startswith("relative ")]
    for way in ways:
        part = table.dropna(subset=[way, "gflops"])
        taus = [kendalltau(part[way], part[c]).statistic for c in ("gflops", "printed_ms", "params_m")]
        rows.append((way, len(part), *taus))
    return pd.DataFrame(rows, columns=["way", "models", "gflops", "printed", "params"])


def has_peers() -> bool:
    """Whether the packages of the peers are installed here."""
    return catalogue.available()
