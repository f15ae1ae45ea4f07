"""Pareto fronts of accuracy against cost, their hypervolume, and the choice of one sub-network.

Everywhere: accuracy is better when larger, cost (latency in ms, GFLOPs) when smaller. Source: Figure 1 and
Section 4.
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def front_mask(accuracy: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """[N] bool: which points no other point beats (at least as accurate, at most as dear, and better in one).

    Equal points are all kept. NaN in either value: never on the front.
    """
    accuracy, cost = np.asarray(accuracy, dtype=float), np.asarray(cost, dtype=float)
    usable = np.flatnonzero(~(np.isnan(accuracy) | np.isnan(cost)))
    mask = np.zeros(len(accuracy), dtype=bool)
    if not len(usable):
        return mask
    order = usable[np.lexsort((-accuracy[usable], cost[usable]))]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy[order])[:-1]])
    leads = accuracy[order] > best_before
    # A copy of a leader comes right after it, because the order is by cost and then by accuracy.
    leader = np.maximum.accumulate(np.where(leads, np.arange(len(order)), 0))
    same = (accuracy[order] == accuracy[order][leader]) & (cost[order] == cost[order][leader])
    mask[order[same]] = True
    return mask


def front(table: "pd.DataFrame", accuracy: str = "AP", cost: str = "latency_ms") -> "pd.DataFrame":
    """The rows on the Pareto front, cheapest first; of equal points the first row alone."""
    _need(table, accuracy, cost)
    kept = table[front_mask(table[accuracy].to_numpy(), table[cost].to_numpy())]
    return kept.drop_duplicates(subset=[accuracy, cost]).sort_values(cost, kind="stable")


def hypervolume(accuracy: np.ndarray, cost: np.ndarray, reference: tuple[float, float]) -> float:
    """Area dominated by the points and bounded by reference = (worst accuracy, worst cost); exact, in two
    dimensions.

    Points not better than the reference in both values count nothing; so do points with NaN.
    """
    accuracy, cost = np.asarray(accuracy, dtype=float), np.asarray(cost, dtype=float)
    low, high = reference
    inside = (accuracy > low) & (cost < high)
    order = np.lexsort((-accuracy[inside], cost[inside]))
    accuracy, cost = accuracy[inside][order], cost[inside][order]
    best = np.maximum.accumulate(accuracy) if len(accuracy) else accuracy
    widths = np.diff(np.concatenate([cost, [high]]))
    return float(np.sum((best - low) * widths)) if len(cost) else 0.0


def reference_point(accuracy: np.ndarray, cost: np.ndarray) -> tuple[float, float]:
    """The reference of this project's curves: accuracy 0 and the dearest point's cost."""
    return 0.0, float(np.nanmax(cost))


def select(
    table: "pd.DataFrame",
    *,
    max_latency_ms: float | None = None,
    like: str | None = None,
    target_latency_ms: float | None = None,
    tolerance: float = 0.1,
    device: str | None = None,
    accuracy: str = "AP",
    latency: str = "latency_ms",
) -> "pd.Series":
    """The most accurate sub-network for a device and a latency; the cheaper one of equals.

    table              one row per sub-network with `accuracy` and `latency` (ms); NaN rows are passed over
    max_latency_ms     at most this
    target_latency_ms  within `tolerance` (0.1: +-10 %, the paper's RF100-VL protocol) of this
    like               a published detector, e.g. "d-fine-s": its printed latency is the target (T4, TensorRT:
                       the table's latencies must come from the same protocol to be comparable)
    device             keep the rows whose column `device` has this value
    Exactly one of the three limits. Raises UserError when nothing fits; the message names the nearest
    latency.
    """
    given = [value is not None for value in (max_latency_ms, like, target_latency_ms)]
    if sum(given) != 1:
        raise UserError("give exactly one of max_latency_ms, target_latency_ms and like")
    _need(table, accuracy, latency)
    if device is not None:
        _need(table, "device")
        devices = sorted(map(str, table["device"].dropna().unique()))
        table = table[table["device"] == device]
        if table.empty:
            raise UserError(f"no row was measured on {device!r}; the table has {', '.join(devices)}")
    if like is not None:
        target_latency_ms = published_latency(like)
    usable = table.dropna(subset=[accuracy, latency])
    if max_latency_ms is not None:
        kept, wanted = usable[usable[latency] <= max_latency_ms], f"at most {max_latency_ms:g} ms"
    else:
        assert target_latency_ms is not None
        near = (usable[latency] - target_latency_ms).abs() <= tolerance * target_latency_ms
        kept, wanted = usable[near], f"{target_latency_ms:g} ms +-{tolerance:.0%}"
    if kept.empty:
        limit = max_latency_ms if max_latency_ms is not None else target_latency_ms
        hint = "the table has no row with both numbers"
        if len(usable):
            nearest = usable[latency].iloc[
                int(np.argmin(np.abs(usable[latency].to_numpy() - float(limit or 0))))
            ]
            hint = f"the nearest has {nearest:.3g} ms; ask for that or search a larger space"
        raise UserError(f"no sub-network takes {wanted}: {hint}")
    return kept.sort_values([accuracy, latency], ascending=[False, True], kind="stable").iloc[0]


def latency_column(table: "pd.DataFrame") -> str:
    """The column of a search's table that decides: time_ms (measured where it is, else predicted), or what
    tables of earlier versions have.
    """
    return next(
        name for name in ("time_ms", "predicted_ms", "latency_ms") if name in table or name == "latency_ms"
    )


def published_latency(name: str) -> float:
    """Printed T4 latency in ms of a detector of Tables 2, 3, 12 and 13, by a name like "d-fine-s" or
    "rf-detr-n".

    UserError, listing the names, when it is not there or has no latency.
    """
    from rfdetr.paper import tables

    known: dict[str, float] = {}
    for number in (2, 3, 12, 13):
        for row in tables.rows(number):
            if row.get("latency_ms"):
                known.setdefault(_slug(f"{row['model']} {row['size']}"), float(row["latency_ms"]))
    if _slug(name) not in known:
        raise UserError(f"the paper prints no latency of {name!r}; known: {', '.join(known)}")
    return known[_slug(name)]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _need(table: "pd.DataFrame", *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(
            f"the table has no column {', '.join(map(repr, missing))}; it has"
            f" {', '.join(map(str, table.columns))}"
        )
