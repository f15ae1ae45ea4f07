"""What the latency column of Table 2 is made to say, asked again with the times of a processor.

Printed AP stays; printed latency is replaced by the time measured here in one runtime and precision, and
every statement is decided again by the rule that decides it from print (`rfdetr.paper.arithmetic.coco`).
Statements about print are decided over the same rows, those that were timed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rfdetr.experiments.ch07_timed import contest_name
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.cells import SIMILAR, joined, ms, similar, unbeaten
from rfdetr.paper.arithmetic.coco import c119
from rfdetr.paper.verdicts import agree
from rfdetr.search.pareto import front_mask

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

OURS = "RF-DETR"
YOLO = ("YOLOv8", "YOLOv11")
PRINTED = "printed (T4)"
Answer = tuple[bool, str]
"""Whether a statement holds, and what decided it."""


def printed_rows(result: "Kept") -> "pd.DataFrame":
    """The rows of Tables 2 and 12 that were timed, each once: the printed columns, and `name` in the run."""
    rows = joined(tables.table(2), tables.table(12))
    rows = rows[(rows["variant"] == "nas") | (rows["model"] != OURS)]
    names = [
        contest_name(model, size, False) for model, size in zip(rows["model"], rows["size"], strict=True)
    ]
    return rows.assign(name=names)[[name in set(result.tables["models"].model) for name in names]]


def with_times(
    rows: "pd.DataFrame", result: "Kept", runtime: str, asked: str, threads: int
) -> "pd.DataFrame":
    """`printed_rows` with the latency measured in one way (buffered); rows that were not timed so are left
    out.
    """
    models = result.tables["models"]
    part = models[(models.runtime == runtime) & (models.asked == asked) & (models.threads == threads)]
    times = part[part.protocol == "buffered"].set_index("model")["median_ms"]
    return rows.assign(latency_ms=rows["name"].map(times)).dropna(subset=["latency_ms"])


def nano_is_like_d_fine(rows: "pd.DataFrame") -> Answer:
    """RF-DETR N takes about as long as D-FINE N (C003)."""
    ours, theirs = ms(rows, OURS, "N"), ms(rows, "D-FINE", "N")
    return similar(ours, theirs), f"{ours / theirs:.2f} times as long"


def unbeaten_rows(rows: "pd.DataFrame") -> Answer:
    """No other detector is above every RF-DETR of similar latency (C021)."""
    ms(rows, OURS, "N")
    above = unbeaten(rows, float("inf"))
    return not above, f"above: {', '.join(above)}" if above else "none above"


def nano_is_faster_than_yolo_m(rows: "pd.DataFrame") -> Answer:
    """RF-DETR N, of about their AP, takes less time than both YOLO M."""
    ratios = {model: ms(rows, OURS, "N") / ms(rows, model, "M") for model in YOLO}
    slower = max(ratios.values())
    return slower < 1 / (1 + SIMILAR), f"{min(ratios.values()):.2f} and {slower:.2f} times their time"


def medium_is_like_lw_detr(rows: "pd.DataFrame") -> Answer:
    """RF-DETR M takes as long as LW-DETR M, which it is searched from (C099)."""
    ours, theirs = ms(rows, OURS, "M"), ms(rows, "LW-DETR", "M")
    return similar(ours, theirs), f"{ours / theirs:.2f} times as long"


def lw_detr_on_the_curve(rows: "pd.DataFrame") -> Answer:
    """LW-DETR lies on D-FINE's curve of AP over latency (C119)."""
    if (rows["model"] == "D-FINE").sum() < 2:
        raise KeyError("a curve needs two sizes of D-FINE")
    found = c119(rows, rows)
    if not found.numbers:
        raise KeyError("no size of LW-DETR is between those of D-FINE")
    over = ", ".join(f"{size.removeprefix('LW-DETR ')} {value:+.1f}" for size, value in found.numbers.items())
    return found.verdict == agree(True), f"AP over it: {over}"


def rf_detr_is_the_front(rows: "pd.DataFrame") -> Answer:
    """The front of printed AP over latency holds every RF-DETR."""
    mask = front_mask(rows["ap"].to_numpy(float), rows["latency_ms"].to_numpy(float))
    names = rows["model"] + " " + rows["size"]
    off = names[(rows["model"] == OURS) & ~mask]
    return off.empty, f"front: {', '.join(names[mask])}"


STATEMENTS: dict[str, Callable[["pd.DataFrame"], Answer]] = {
    "RF-DETR N takes about as long as D-FINE N": nano_is_like_d_fine,
    "RF-DETR M takes about as long as LW-DETR M": medium_is_like_lw_detr,
    "RF-DETR N takes less time than YOLOv8 M and YOLOv11 M": nano_is_faster_than_yolo_m,
    "LW-DETR lies on D-FINE's curve or above": lw_detr_on_the_curve,
    "no other row is above every RF-DETR of similar latency": unbeaten_rows,
    "every RF-DETR is on the front of AP over latency": rf_detr_is_the_front,
}


def conclusions(result: "Kept", threads: int = 1) -> "pd.DataFrame":
    """One row per statement and way of timing, print first.

    Columns: statement, way, holds (True, False; None where rows that it needs were not timed), decided_by.
    """
    import pandas as pd

    rows = printed_rows(result)
    models = result.tables["models"]
    every = models[["runtime", "asked"]].drop_duplicates()
    ways = {PRINTED: rows}
    for runtime, asked in every.itertuples(index=False):
        ways[f"{runtime} {asked}"] = with_times(rows, result, runtime, asked, threads)
    found: list[dict[str, Any]] = []
    for statement, decide in STATEMENTS.items():
        for way, frame in ways.items():
            try:
                holds, why = decide(frame)
            except KeyError:
                holds, why = None, "a row that it needs was not timed"
            found.append({"statement": statement, "way": way, "holds": holds, "decided_by": why})
    return pd.DataFrame(found).astype({"holds": object})


def compact(found: "pd.DataFrame") -> "pd.DataFrame":
    """One row per statement, for a page. found: from `conclusions`.

    Columns: statement, printed, processor (in how many ways of timing it holds), carries ("yes", "no", "in
    part"; "" where print does not bear it out), decided_by (of the first way).
    """
    import pandas as pd

    rows = []
    for statement, part in found.groupby("statement", sort=False):
        printed = part[part.way == PRINTED].iloc[0]
        here = part[(part.way != PRINTED) & part.holds.notna()]
        count, total = int(here.holds.map(bool).sum()), len(here)
        rows.append(
            {
                "statement": statement,
                "printed": _word(printed.holds),
                "printed_by": printed.decided_by,
                "processor": f"{count} of {total}" if total else "not timed",
                "carries": _carries(printed.holds, count, total),
                "decided_by": "; ".join(f"{r.way}: {r.decided_by}" for r in here.itertuples()),
            }
        )
    return pd.DataFrame(rows)


def _word(holds: Any) -> str:
    return "not timed" if holds is None else "holds" if holds else "does not hold"


def _carries(printed: Any, count: int, total: int) -> str:
    if not total or printed is None:
        return "not timed"
    if not printed:
        return "not borne out in print"
    return "yes" if count == total else "no" if not count else "in part"


def said(table: "pd.DataFrame") -> str:
    """What carries over, in sentences. table: from `compact`."""
    groups = (
        ("yes", "Carry over to this processor in every way of timing"),
        ("in part", "In some ways of timing only"),
        ("no", "Do not carry over"),
        ("not borne out in print", "Not borne out by the printed numbers of these rows either"),
        ("not timed", "Cannot be decided here, since rows that they need were not timed"),
    )
    parts = []
    for word, text in groups:
        names = table.statement[table.carries == word]
        if len(names):
            parts.append(f"{text}: {'; '.join(names)}.")
    return " ".join(parts)


def pairs(result: "Kept", threads: int = 1) -> "pd.DataFrame":
    """Pairs of rows of different families whose printed latencies are not similar (within 10 %): what order
    they have here.

    Columns: way, pairs, same (order), near (within 10 % here), turned, most (the pair that is turned most).
    """
    import pandas as pd

    rows = printed_rows(result)
    models = result.tables["models"]
    found = []
    for runtime, asked in models[["runtime", "asked"]].drop_duplicates().itertuples(index=False):
        timed = with_times(rows, result, runtime, asked, threads)
        printed = rows.loc[timed.index, "latency_ms"].to_numpy(float)
        here = timed.latency_ms.to_numpy(float)
        names, families = (timed["model"] + " " + timed["size"]).tolist(), timed["model"].tolist()
        count = {"same": 0, "near": 0, "turned": 0}
        worst: tuple[float, str] = (1.0, "")
        for i in range(len(timed)):
            for j in range(len(timed)):
                if families[i] == families[j] or printed[i] >= printed[j] or similar(printed[i], printed[j]):
                    continue
                ratio = here[i] / here[j]  # of the one that is faster in print
                kind = "near" if similar(here[i], here[j]) else "same" if ratio < 1 else "turned"
                count[kind] += 1
                if kind == "turned":
                    worst = max(worst, (ratio, f"{names[i]} takes {ratio:.1f} times as long as {names[j]}"))
        found.append({"way": f"{runtime} {asked}", "pairs": sum(count.values()), **count, "most": worst[1]})
    return pd.DataFrame(found)
