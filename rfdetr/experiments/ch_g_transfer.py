"""The architecture of one domain on another: matrices of all targets, their summary, one for all.

Source: v2 Appendix I (v1 G), Table 18. `result` is the kept benchmark or the fresh one (`ch09_fresh`).
"""

from typing import TYPE_CHECKING

import numpy as np

from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept


def matrices(result: "Kept", draws: int = 1000) -> "pd.DataFrame":
    """`ch09_analysis.transfer` of every target, with the column `target` in front."""
    import pandas as pd

    found = [
        analysis.transfer(result, target, draws).assign(target=target) for target in result.record["limits"]
    ]
    table = pd.concat(found, ignore_index=True)
    return table[["target", *(name for name in table if name != "target")]]


def summary(matrix: "pd.DataFrame") -> "pd.DataFrame":
    """One row per target and kind of stranger (the fixed architecture, another domain's choice).

    Columns: target, chosen, pairs, mean and worst (loss in AP against the own choice), resolved and gain
    (pairs whose interval is above, below 0).
    """
    import pandas as pd

    strangers = matrix[matrix["chosen_on"] != matrix["used_on"]]
    rows = []
    for target, part in strangers.groupby("target", sort=False):
        for name, which in (
            ("fixed", part["chosen_on"] == "fixed"),
            ("another domain's", part["chosen_on"] != "fixed"),
        ):
            own = part[which]
            rows.append(
                {
                    "target": target,
                    "chosen": name,
                    "pairs": len(own),
                    "mean": own["difference"].mean(),
                    "worst": own["difference"].max(),
                    "resolved": int((own["low"] > 0).sum()),
                    "gain": int((own["high"] < 0).sum()),
                }
            )
    return pd.DataFrame(rows)


def one_for_all(result: "Kept") -> "pd.DataFrame":
    """The architecture with the smallest mean loss over domains, by target: the first row of
    `ch09_analysis.best_for_all` and `own_loss`, the mean loss of the domains' own choices against the same
    best.
    """
    import pandas as pd

    grid = result.tables["grid"]
    order = {name: i for i, name in enumerate(grid["arch"])}
    tests = result.tables["tests"]
    rows = []
    for target, limit in result.record["limits"].items():
        best = analysis.best_for_all(result, target).iloc[0]
        allowed = (grid["gflops"] <= limit).to_numpy()
        own: dict[str, list[float]] = {}
        chosen = tests[(tests["kind"] == "nas") & (tests["target"] == target)]
        for row in records(chosen):
            domain, seed = row["domain"], int(row["seed"])
            if f"test:{domain}:{seed}" not in result.arrays:
                continue
            ap = analysis.grid_of(result, "test", domain, seed)
            own.setdefault(domain, []).append(float(ap[allowed].max() - ap[order[row["arch"]]]))
        mean = float(np.mean([np.mean(values) for values in own.values()])) if own else np.nan
        rows.append({"target": target, **best.to_dict(), "own_loss": mean})
    return pd.DataFrame(rows)
