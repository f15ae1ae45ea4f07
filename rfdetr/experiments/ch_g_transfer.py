"""The architecture of one domain on another: matrices of all targets, their summary, one for all.

Source: v2 Appendix I (v1 G), Table 18. `result` is the kept benchmark or the fresh one (`ch09_fresh`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments.ch09_intervals import FEW, Estimate, mean_over
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

ANOTHER = "another"
STRANGERS = {
    analysis.FIXED: "fixed",
    analysis.OTHERS: "chosen on all other domains",
    ANOTHER: "another domain's",
}
"""Where an architecture comes from that is not the domain's own, in words."""


def matrices(result: "Kept") -> "pd.DataFrame":
    """`ch09_analysis.transfer` of every target, with the column `target` in front."""
    import pandas as pd

    found = [analysis.transfer(result, target).assign(target=target) for target in result.record["limits"]]
    table = pd.concat(found, ignore_index=True)
    return table[["target", *(name for name in table if name != "target")]]


def summary(matrix: "pd.DataFrame") -> "pd.DataFrame":
    """One row per target and kind of stranger (`STRANGERS`) that there is.

    Columns: target, chosen, pairs, mean (loss in AP against the own choice) with low and high (over domains,
    `ch09_intervals`; NaN below `FEW`), worst, lose and gain (pairs whose interval is above, below 0).
    """
    import pandas as pd

    strangers = matrix[matrix["chosen_on"] != matrix["used_on"]]
    rows = []
    for target, part in strangers.groupby("target", sort=False):
        names = part["chosen_on"].where(part["chosen_on"].isin([analysis.FIXED, analysis.OTHERS]), ANOTHER)
        for name, words in STRANGERS.items():
            own = part[names == name]
            if own.empty:
                continue
            whole = _over_pairs(own) if name == ANOTHER else mean_over(own["difference"].to_numpy())
            rows.append(
                {
                    "target": target,
                    "chosen": words,
                    "pairs": len(own),
                    "mean": whole.mean,
                    "low": whole.low,
                    "high": whole.high,
                    "resolved": whole.resolved,
                    "worst": own["difference"].max(),
                    "lose": int((own["low"] > 0).sum()),
                    "gain": int((own["high"] < 0).sum()),
                }
            )
    columns = ["target", "chosen", "pairs", "mean", "low", "high", "resolved", "worst", "lose", "gain"]
    return pd.DataFrame(rows, columns=columns)


def _over_pairs(pairs: "pd.DataFrame") -> Estimate:
    """Mean over pairs of domains, where every domain is in many pairs in both roles.

    The jackknife's pseudo-values, leaving out one domain in both roles, stand for the domains (Arvesen,
    Annals of Mathematical Statistics 40, 1969).
    """
    domains = pairs["used_on"].unique()
    whole = float(pairs["difference"].mean())
    if len(domains) < FEW:
        return Estimate(whole, np.nan, np.nan, f"{len(domains)} domains", False)
    values = []
    for domain in domains:
        rest = pairs[(pairs["used_on"] != domain) & (pairs["chosen_on"] != domain)]["difference"].mean()
        values.append(len(domains) * whole - (len(domains) - 1) * rest)
    return replace(mean_over(np.array(values)), mean=whole)


def one_for_all(result: "Kept") -> "pd.DataFrame":
    """The architecture with the smallest mean loss over domains, by target: the first row of
    `ch09_analysis.best_for_all` and `own_loss`, the mean loss of the domains' own choices against the same
    best.
    """
    import pandas as pd

    order = {name: i for i, name in enumerate(result.tables["grid"]["arch"])}
    tests = result.tables["tests"]
    rows = []
    for target in result.record["limits"]:
        table = analysis.best_for_all(result, target)
        within, _ = analysis.losses(result, "test", target)
        own: dict[str, list[float]] = {}
        chosen = tests[(tests["kind"] == "nas") & (tests["target"] == target)]
        for row in records(chosen):
            domain, seed = row["domain"], int(row["seed"])
            ap = analysis.grid_of(result, "test", domain, seed)
            own.setdefault(domain, []).append(float(ap[within].max() - ap[order[row["arch"]]]))
        mean = float(np.mean([np.mean(values) for values in own.values()]))
        rows.append({"target": target, **table.iloc[0].to_dict(), "own_loss": mean})
    return pd.DataFrame(rows)
