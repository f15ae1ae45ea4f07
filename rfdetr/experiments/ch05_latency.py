"""The latency of every sub-network of a grid from at most one in fifty: which are timed, and how well the
model of them tells the others.

Context: the paper times every sub-network of its search (Appendix A). `benchmarks/latency_model.py` does this
on a machine that does nothing else.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.arch import Arch, SearchSpace
from rfdetr.benchmark.runtimes import check_runtime
from rfdetr.benchmark.subnetworks import measure_latency
from rfdetr.experiments.ch05_full_search import held_out_archs, held_out_errors, undisturbed
from rfdetr.search.latency_model import LatencyModel
from rfdetr.search.latency_plan import measure_actively

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept
    from rfdetr.model.detector import RFDETR

NAME = "latency-model"
"""Of the kept result."""
LIMITS = {"median_ape": 3.0, "p95_ape": 8.0}
"""Aims: largest median and 95th percentile of the absolute error on held-out sub-networks, %."""
PART = 0.02
HELD_OUT = 120
THREADS, ROUNDS = 1, 7
_ROUGH = 3  # rounds of the timings by which the next sub-networks are chosen
_SECONDS = 90.0  # after which no round of a runtime's timings is begun, if three were made


def chosen(
    model: "RFDETR", space: SearchSpace, part: float, runtime: str, folder: Path, seed: int = 0
) -> list[Arch]:
    """At most `part` of the different sub-networks of a space, chosen as rough timings of them come in
    (`latency_plan`). Exported files stay in `folder`.
    """
    import pandas as pd

    rows: list[pd.DataFrame] = []

    def measure(archs: list[Arch]) -> "pd.DataFrame":
        rows.append(measure_latency(model, archs, runtime, THREADS, rounds=_ROUGH, cache_dir=folder))
        return pd.concat(rows, ignore_index=True)

    found = measure_actively(measure, space, max(1, int(part * len(space.distinct()))), seed)
    return [Arch(*map(int, knobs)) for knobs in found[list(Arch.KNOBS)].to_numpy()]


def timed(
    model: "RFDETR", fit: list[Arch], away: list[Arch], runtime: str, folder: Path
) -> "tuple[pd.DataFrame, float]":
    """Timings of the chosen ones and of others together, in turns, with `held_out`; and the seconds that
    exporting, loading and timing took.
    """
    start = time.perf_counter()
    found = measure_latency(
        model, [*fit, *away], runtime, THREADS, rounds=ROUNDS, cache_dir=folder, max_seconds=_SECONDS
    )
    seconds = time.perf_counter() - start
    others = {arch.id for arch in away}
    about = found.attrs
    found = found.assign(held_out=[name in others for name in found["arch"]])
    found.attrs = about
    return found, seconds


def compared(
    model: "RFDETR",
    space: SearchSpace,
    runtimes: "tuple[str, ...]",
    folder: Path,
    part: float = PART,
    held_out: int = HELD_OUT,
    seed: int = 0,
    report: Callable[[str], object] = print,
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """(errors, timings) on every runtime. The first one's rough timings choose what is timed on all: the
    choice hangs on amounts of work, which are the same.

    errors    as of `held_out_errors`, with runtime, share (of the sub-networks that were timed for the fit),
              noisy (timings whose rounds differ by more than 5 %), seconds (export, loading, timing),
              choosing (seconds of the choice)
    timings   one row per runtime and sub-network

    report: gets a line for each step. UserError before anything is timed if a runtime is missing
    """
    import pandas as pd

    for runtime in runtimes:
        check_runtime(runtime)
    start = time.perf_counter()
    fit = chosen(model, space, part, runtimes[0], folder, seed)
    choosing = time.perf_counter() - start
    report(f"{len(fit)} sub-networks of {len(space.distinct())} chosen with {runtimes[0]}, {choosing:.0f} s")
    away = held_out_archs(space, fit, held_out, seed)
    rows, every = [], []
    for runtime in runtimes:
        found, seconds = timed(model, fit, away, runtime, folder)
        report(f"these and {len(away)} others exported and timed with {runtime}, {seconds:.0f} s")
        every.append(found)
        rows.append(
            held_out_errors(found).assign(
                runtime=found["runtime"].iloc[0],
                share=len(fit) / len(space.distinct()),
                noisy=int(found["noisy"].sum()),
                seconds=seconds,
                choosing=choosing,
            )
        )
    timings = pd.concat(every, ignore_index=True)
    timings.attrs = every[-1].attrs
    return pd.concat(rows, ignore_index=True), timings


def held(errors: "pd.DataFrame") -> "pd.DataFrame":
    """The errors with `holds`: both aims reached, from at most `PART` of the sub-networks; and `minutes` that
    the choice, export and timing took.
    """
    good = (errors[list(LIMITS)] <= list(LIMITS.values())).all(axis=1) & (errors["share"] <= PART)
    return errors.assign(
        holds=good.map({True: "yes", False: "no"}), minutes=(errors["seconds"] + errors["choosing"]) / 60
    )


def words(result: "Kept") -> str:
    """How the aims came out, in sentences for the page."""
    errors = held(result.tables["errors"])
    rows = len(result.tables["timings"]) // errors["runtime"].nunique()
    # One reading decides, the same as for the kept timings; the table has both.
    read = errors[errors["latency"] == errors["latency"].iloc[0]].set_index("runtime").sort_index()
    good = [str(name) for name in read.index[read["holds"] == "yes"]]
    bad = [str(name) for name in read.index[read["holds"] != "yes"]]
    said = [
        f"Aims: from at most {PART:.0%} of the sub-networks, an error of {LIMITS['median_ape']:g} % in the"
        f" median and {LIMITS['p95_ape']:g} % at the 95th percentile, with the {read['latency'].iloc[0]} as"
        " the latency of a sub-network."
    ]
    for names, how in ((good, "reached"), (bad, "not reached")):
        if names:
            said.append(f"They are {how} on {' and '.join(names)}.")
    noisy = ", ".join(f"{count} on {name}" for name, count in read["noisy"].items())
    timings = result.tables["timings"]
    apart = (timings["latency_ms"] / timings["latency_low_ms"] - 1).groupby(timings["runtime"]).median()
    said.append(
        f"Of {rows} timings on each runtime those whose rounds differ by more than 5 % are {noisy}. Between"
        f" the fastest round and the median of the rounds lie {100 * apart.min():.1f} to"
        f" {100 * apart.max():.1f} % (median over the sub-networks, by runtime): the timings themselves are"
        f" no surer than that. {_fitted_to_all(timings)} The first runtime's rough timings chose for both;"
        " the time of that is in each row."
    )
    return " ".join(said)


def _fitted_to_all(timings: "pd.DataFrame") -> str:
    """What the sum of terms leaves when it has seen every timing: no choice of the few can do much better."""
    said = []
    for name, rows in undisturbed(timings).groupby("runtime"):
        found = LatencyModel.fit(rows, "terms", folds=2).report(rows)
        said.append(f"{found['median_ape']:.1f} and {found['p95_ape']:.1f} % on {name}")
    left = ", ".join(said)
    return (
        f"Fitted to all of them at once, the sum of terms is still off by {left} (median, 95th percentile)."
    )


def origin(result: "Kept") -> str:
    """Where the result comes from, in a sentence for the page."""
    return result.origin.replace(f"python -m rfdetr results {NAME}", "python benchmarks/latency_model.py")
