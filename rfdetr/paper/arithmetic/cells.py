"""Reading single numbers and rows of printed tables."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SIZES = ("N", "S", "M", "L", "XL", "2XL")
SIMILAR = 0.10
"""Latencies this far apart, relative, count as similar: the tolerance that Figure 1 states."""
HALF_DIGIT = 0.051
"""Half a unit of the last printed digit of an AP, and a little for binary fractions."""


def rows(table: "pd.DataFrame", **where: Any) -> "pd.DataFrame":
    """The rows whose columns have these values; KeyError when there are none."""
    found = table
    for column, value in where.items():
        found = found[found[column] == value]
    if found.empty:
        raise KeyError(f"no row with {where}")
    return found


def cell(table: "pd.DataFrame", column: str, **where: Any) -> float:
    """One printed number; KeyError unless exactly one row has these values."""
    found = rows(table, **where)
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows with {where}, expected one")
    return float(found[column].iloc[0])


def ap(table: "pd.DataFrame", model: str, size: str, variant: str | None = None) -> float:
    """Printed AP of one model and size; `variant` tells the rows of RF-DETR apart."""
    where = {"model": model, "size": size} | ({} if variant is None else {"variant": variant})
    return cell(table, "ap", **where)


def ms(table: "pd.DataFrame", model: str, size: str) -> float:
    """Printed latency in ms of one model and size."""
    return cell(table, "latency_ms", model=model, size=size)


def joined(*tables: "pd.DataFrame") -> "pd.DataFrame":
    """Tables below each other, each (model, variant, size) once."""
    import pandas as pd

    return pd.concat(tables, ignore_index=True).drop_duplicates(["model", "variant", "size"])


def similar(a: float, b: float) -> bool:
    """Whether two latencies are within `SIMILAR` of the smaller one."""
    return abs(a - b) <= SIMILAR * min(a, b) + 1e-9


def unbeaten(table: "pd.DataFrame", limit_ms: float, ours: str = "RF-DETR") -> list[str]:
    """Real-time rows of other models that no row of `ours` of similar latency reaches, as "D-FINE M".

    A row of ours may be up to `SIMILAR` slower; other models faster than all of ours are held against our
    fastest row. Rows timed in PyTorch, and those above `limit_ms`, are left out.
    """
    timed = table[(table["latency_runtime"] == "tensorrt") & (table["latency_ms"] <= limit_ms)]
    own = timed[timed["model"] == ours]
    found = []
    for row in timed[timed["model"] != ours].to_dict("records"):
        allowed = max((1 + SIMILAR) * float(row["latency_ms"]), own["latency_ms"].min())
        if not (own.loc[own["latency_ms"] <= allowed, "ap"] >= row["ap"]).any():
            found.append(f"{row['model']} {row['size']}")
    return found
