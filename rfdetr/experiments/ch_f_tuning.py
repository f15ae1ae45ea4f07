"""Gain of fine-tuning after the search: as printed, by size of network, and against the length of training.

Source: v2 Appendix G (v1 F), Tables 4, 14, 15 and 16. `result` is the kept benchmark or the fresh one
(`ch09_fresh`).
"""

from typing import TYPE_CHECKING

import numpy as np

from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments.ch09_intervals import over_domains
from rfdetr.experiments.ch09_tables import compared
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.cells import SIZES, joined
from rfdetr.paper.arithmetic.rf100vl import difference, ours
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

COLUMNS = {"coco": "COCO, boxes", "rf100vl": "RF100-VL"}
"""Printed gains that are there for every size."""
WAYS = {
    "the network alone": ("nas_tuned", "nas"),
    "the supernet": ("nas_continued", "nas"),
    "the fixed network alone": ("fixed_tuned", "fixed"),
}
"""What was trained further -> the kinds whose difference is its gain."""


def printed_gains() -> "pd.DataFrame":
    """Printed gains in AP by size: size, coco (Table 15), coco_masks (16; NaN where it did not improve),
    rf100vl (4 and 14) and rf100vl_v1.
    """
    import pandas as pd

    found = {}
    for name, number in (("coco", 15), ("coco_masks", 16)):
        table = tables.table(number)
        tuned = table[table["variant"] == "nas_fine_tuned"]
        found[name] = dict(zip(tuned["size"], tuned["ap"].astype(float), strict=True))
    for name, version in (("rf100vl", 2), ("rf100vl_v1", 1)):
        every = joined(tables.table(4, version), tables.table(14, version))
        found[name] = difference(ours(every, "nas_fine_tuned"), ours(every, "nas"))
    return pd.DataFrame([{"size": s, **{k: v.get(s, np.nan) for k, v in found.items()}} for s in SIZES])


def rank_with_size(printed: "pd.DataFrame") -> dict[str, float]:
    """Kendall's tau of each printed gain (`COLUMNS`) with the order of the sizes."""
    from scipy import stats

    return {name: float(stats.kendalltau(range(len(printed)), printed[name])[0]) for name in COLUMNS}


def by_target(result: "Kept") -> "pd.DataFrame":
    """Gain of each way of training further (`WAYS`) by target: target, how, domains, and the fields of
    `Estimate.row`. Ways that the result does not have are left out.
    """
    import pandas as pd

    rows = []
    for target in result.record["limits"]:
        for how, (first, second) in WAYS.items():
            each = analysis.differences(
                result.tables["tests"], result.arrays["resampled"], first, second, [target]
            )
            if each:
                whole = over_domains(each)
                rows.append({"target": target, "how": how, "domains": len(each), **whole.row()})
    columns = ["target", "how", "domains", "difference", "low", "high", "over", "clear", "resolved"]
    return pd.DataFrame(rows, columns=columns)


def by_length(result: "Kept") -> "pd.DataFrame":
    """Gain of the middle choice against the length of its further training: domain, seed, steps, epochs,
    gain; the first row of a domain is 0 steps. Every length is a training of its own.
    """
    import pandas as pd

    tests = result.tables["tests"]
    rows = []
    for (domain, seed), part in tests[tests["kind"] == "epochs"].groupby(["domain", "seed"], sort=False):
        start = tests[
            (tests["domain"] == domain)
            & (tests["seed"] == seed)
            & (tests["kind"] == "nas")
            & (tests["arch"] == part["arch"].iloc[0])
        ]["AP"]
        if start.empty:
            continue
        head = {"domain": domain, "seed": seed}
        rows.append({**head, "steps": 0, "epochs": 0.0, "gain": 0.0})
        for row in records(part.sort_values("steps")):
            gain = row["AP"] - float(start.iloc[0])
            rows.append({**head, "steps": row["steps"], "epochs": row["epochs"], "gain": gain})
    return pd.DataFrame(rows, columns=["domain", "seed", "steps", "epochs", "gain"])


def longer(result: "Kept") -> "pd.DataFrame | None":
    """What training the supernet on adds, over all domains and targets: one row with difference, low, high
    and domains; None where nothing of the kind is kept.
    """
    found = compared(result, "nas_continued", "nas")
    if found is None:
        return None
    return found[found["domain"] == "all"].assign(domains=len(found) - 1).reset_index(drop=True)
