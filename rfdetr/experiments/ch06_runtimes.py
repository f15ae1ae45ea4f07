"""Does another runtime on the same processor choose other networks? The front of the kept search over
latency in ONNX Runtime and in OpenVINO.

AP is that of the kept search, latency that of the kept timings on both runtimes, made in turns on a machine
that did nothing else; for what was not timed, the model of these timings predicts it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch
from rfdetr.experiments.base import kept
from rfdetr.experiments.ch05_full_search import undisturbed
from rfdetr.experiments.ch05_latency import NAME
from rfdetr.search.latency_model import LatencyModel
from rfdetr.search.pareto import front

if TYPE_CHECKING:
    import pandas as pd

SEARCH = "full-search"


@dataclass(frozen=True)
class Compared:
    """The fronts by runtime name, cheapest first (arch, AP, and `<runtime>` for the predicted ms of both).

    table: all sub-networks with AP and a column of predicted ms for each runtime. timings: of the kept
    result.
    """

    fronts: "dict[str, pd.DataFrame]"
    table: "pd.DataFrame"
    timings: "pd.DataFrame"
    origin: str

    @property
    def runtimes(self) -> list[str]:
        """Names of the two runtimes, as their timings have them."""
        return list(self.fronts)


def compared() -> Compared | None:
    """From the kept results; None where one of the two is not in this copy."""
    search, timed = kept.find(SEARCH), kept.find(NAME)
    if search is None or timed is None:
        return None
    return both(search.tables["table"], timed.tables["timings"], timed.origin)


def both(table: "pd.DataFrame", timings: "pd.DataFrame", origin: str = "") -> Compared:
    """Predict every sub-network in every runtime from what was timed, and take the fronts."""
    table = table.drop_duplicates(list(Arch.KNOBS)).dropna(subset=["AP"]).reset_index(drop=True)
    table = table[[*Arch.KNOBS, "AP"]].assign(
        arch=[Arch(*map(int, row)).id for row in table[list(Arch.KNOBS)].to_numpy()]
    )
    names = list(dict.fromkeys(timings["runtime"]))
    for name in names:
        rows = undisturbed(timings[timings["runtime"] == name])
        table[name] = LatencyModel.fit(rows[~rows["held_out"]]).predict(table)
    return Compared({name: front(table, "AP", name) for name in names}, table, timings, origin)


def members(found: Compared) -> "pd.DataFrame":
    """How much the fronts have in common, one row per runtime.

    Columns: runtime, networks (of its front), shared (of them on the other front, too), lost and lost_most
    (AP that is lost on average and at most when only the other's front is had, at this one's latencies).
    """
    import pandas as pd

    rows = []
    for name in found.runtimes:
        other = next(n for n in found.runtimes if n != name)
        mine, theirs = found.fronts[name], found.fronts[other].sort_values(name)
        best = np.maximum.accumulate(theirs["AP"].to_numpy())
        place = np.searchsorted(theirs[name].to_numpy(), mine[name].to_numpy(), side="right") - 1
        there = place >= 0  # what is faster than all of the other front has no counterpart
        lost = mine["AP"].to_numpy()[there] - best[place[there]]
        shared = int(mine["arch"].isin(found.fronts[other]["arch"]).sum())
        rows.append((name, len(mine), shared, lost.mean() if len(lost) else np.nan, lost.max(initial=0.0)))
    return pd.DataFrame(rows, columns=["runtime", "networks", "shared", "lost", "lost_most"])


def only_on(found: Compared, name: str) -> "pd.DataFrame":
    """The networks of one front that are not on the other: arch, AP, ms in both runtimes, and `behind`, AP
    below the other front at the same latency there.
    """
    other = next(n for n in found.runtimes if n != name)
    mine, theirs = found.fronts[name], found.fronts[other]
    alone = mine[~mine["arch"].isin(theirs["arch"])]
    best = np.maximum.accumulate(theirs["AP"].to_numpy())
    place = np.searchsorted(theirs[other].to_numpy(), alone[other].to_numpy(), side="right") - 1
    behind = best[np.maximum(place, 0)] - alone["AP"].to_numpy()
    return alone[["arch", "AP", *found.runtimes]].assign(behind=behind)


def turned(timings: "pd.DataFrame") -> "pd.DataFrame":
    """Pairs of timed networks by their order on two runtimes: one row of counts.

    A pair is apart on a runtime when the ranges of its rounds do not overlap. Columns: networks, pairs, apart
    (on both), same (order), turned, and `example`: of the turned ones that with the largest ratio.
    """
    import pandas as pd

    first, second = dict.fromkeys(timings["runtime"])
    wide = {
        name: timings[timings["runtime"] == name].set_index("arch")[
            ["latency_ms", "latency_low_ms", "latency_high_ms"]
        ]
        for name in (first, second)
    }
    names = wide[first].index.intersection(wide[second].index)
    sign, ratio = {}, {}
    for name, rows in wide.items():
        ms, low, high = rows.loc[names].to_numpy().T
        sign[name] = (low[:, None] > high).astype(int) - (high[:, None] < low).astype(int)
        ratio[name] = ms[:, None] / ms
    upper = np.triu(np.ones((len(names), len(names)), dtype=bool), 1)
    apart = (sign[first] != 0) & (sign[second] != 0) & upper
    same = apart & (sign[first] == sign[second])
    other = apart & ~same
    example = ""
    if other.any():
        strength = np.where(other, np.abs(np.log(ratio[first] / ratio[second])), -1)
        i, j = np.unravel_index(strength.argmax(), strength.shape)
        example = (
            f"{names[i]} takes {ratio[first][i, j]:.2f} times as long as {names[j]} in {first} and"
            f" {ratio[second][i, j]:.2f} times in {second}"
        )
    counts = (len(names), int(upper.sum()), int(apart.sum()), int(same.sum()), int(other.sum()), example)
    columns = ["networks", "pairs", "apart", "same", "turned", "example"]
    return pd.DataFrame([counts], columns=columns)


def said(found: Compared) -> str:
    """Which networks change places, in sentences."""
    counts = turned(found.timings).iloc[0]
    rows = members(found).set_index("runtime")
    first, second = found.runtimes
    text = (
        f"Of {counts.pairs:,} pairs of the {counts.networks} networks timed on both, {counts.apart:,} are"
        f" apart on both runtimes beyond their rounds; {counts.turned:,} of these change places"
        + (f" (most of all: {counts.example})." if counts.turned else ".")
    )
    text += (
        f" The front has {rows.networks[first]} networks in {first} and {rows.networks[second]} in {second};"
        f" {rows.shared[first]} are on both. Who takes the front of {first} to {second} loses"
        f" {rows.lost[second]:.4f} AP on average and {rows.lost_most[second]:.4f} at most, by the predicted"
        " latencies, which are some per cent off: what is less apart than that may have changed places by the"
        " prediction's error alone."
    )
    return text
