"""The benchmark's results as the tables of the paper have them, and the printed rows beside them.

Source: Tables 4, 14 and 18. `result` is the kept benchmark or the fresh one (`ch09_fresh`); what is missing
in it is missing in the tables.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.errors import UserError
from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments.ch09_intervals import FEW, Estimate, over_domains
from rfdetr.paper import tables
from rfdetr.paper.arithmetic.cells import SIZES
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

KINDS = {
    "fixed": "fixed architecture",
    "nas": "searched",
    "nas_tuned": "searched, fine-tuned",
    "nas_continued": "searched, supernet trained on",
    "fixed_tuned": "fixed, fine-tuned",
    "scratch_nas": "searched, from scratch",
    "scratch_fixed": "fixed, from scratch",
}
"""Kinds of tested networks in words."""
QUESTIONS = {
    "Does a search per data set beat the fixed architecture?": ("nas", "fixed"),
    "Does fine-tuning add to the search?": ("nas_tuned", "nas"),
    "Does fine-tuning alone do more than training the supernet on?": ("nas_tuned", "nas_continued"),
    "Does training the supernet on add to it?": ("nas_continued", "nas"),
    "Does the search still pay when both are fine-tuned?": ("nas_tuned", "fixed_tuned"),
    "Does pre-training on scenes matter, at equal steps?": ("nas", "scratch_nas"),
    "Do real priors help more than made ones?": ("prior_nas", "nas"),
}
"""Question -> the kinds whose difference answers it."""


def per_domain(result: "Kept") -> "pd.DataFrame":
    """AP of every domain by kind, mean over targets and seeds: domain, seeds, then the kinds that are there
    (`KINDS`).
    """
    tests = result.tables["tests"]
    own = tests[tests["kind"].isin(KINDS)]
    mean = own.pivot_table(index="domain", columns="kind", values="AP", aggfunc="mean", sort=False)
    mean = mean[[kind for kind in KINDS if kind in mean]]
    seeds = own[own["kind"] == "nas"].groupby("domain")["seed"].nunique().rename("seeds")
    return mean.join(seeds).fillna({"seeds": 0}).astype({"seeds": int}).reset_index()


def by_target(result: "Kept") -> "pd.DataFrame":
    """Mean AP over domains, one row per kind and one column per target, as Table 4 has sizes; `domains` is
    how many there are of each.

    Kinds may have been made on different domains and seeds, and then their means say nothing beside each
    other. So each has its mean over the targets (`mean`) beside that of the searched networks on the very
    domains and seeds that the kind has, too (`searched`; NaN where there are none).
    """
    tests = result.tables["tests"]
    found = analysis.averages(tests)
    found = found[found["kind"].isin(KINDS)]
    wide = found.pivot(index="kind", columns="target", values="AP")
    wide = wide[[target for target in result.record["limits"] if target in wide]]
    wide = wide.join(found.groupby("kind")["domains"].min()).join(_beside_searched(tests))
    wide = wide.loc[[kind for kind in KINDS if kind in wide.index]].reset_index()
    return wide.assign(network=wide["kind"].map(KINDS))


def _beside_searched(tests: "pd.DataFrame") -> "pd.DataFrame":
    """By kind: `mean` AP over domains, and of `searched` where both were tested."""
    keys = ["domain", "seed", "target"]
    searched = tests[tests["kind"] == "nas"].drop_duplicates(keys).set_index(keys)["AP"]
    both = tests.join(searched.rename("searched"), on=keys).dropna(subset="searched")
    domains = both.groupby(["kind", "domain"])[["AP", "searched"]].mean()
    return domains.groupby("kind").mean().rename(columns={"AP": "mean"})


def answers(result: "Kept") -> "pd.DataFrame":
    """One row per question of `QUESTIONS` that the result has networks for: question, first, second, domains,
    seeds, the fields of `Estimate.row`, answer.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for question, (first, second) in QUESTIONS.items():
        each = analysis.differences(result.tables["tests"], result.arrays["resampled"], first, second)
        if not each:
            continue
        whole = over_domains(each)
        head = {"question": question, "first": first, "second": second, "domains": len(each)}
        head["seeds"] = sum(len(paired.diff) for paired in each.values())
        rows.append({**head, **whole.row(), "answer": answer(whole, len(each))})
    columns = ["question", "first", "second", "domains", "seeds", "difference", "low", "high", "over"]
    return pd.DataFrame(rows, columns=[*columns, "clear", "resolved", "answer"])


def answer(estimate: Estimate, domains: int) -> str:
    """Yes, no (it does harm), or not resolved; of too few domains nothing is said."""
    if domains < FEW:
        return f"needs {FEW} domains"
    if not estimate.resolved:
        return "not resolved"
    return "yes" if estimate.low > 0 else "no, the opposite"


def compared(result: "Kept", first: str, second: str) -> "pd.DataFrame | None":
    """`ch09_analysis.comparison`, or None where no domain has both kinds."""
    try:
        return analysis.comparison(result, first, second)
    except UserError:
        return None


def printed() -> "pd.DataFrame":
    """The rows of RF-DETR on RF100-VL: size, latency_ms, and AP of fixed, nas and nas_fine_tuned, and the
    differences `search` (nas minus fixed) and `tuning` (fine-tuned minus nas).
    """
    table = tables.table(18)
    wide = table.pivot(index="size", columns="variant", values="ap").loc[list(SIZES)]
    wide = wide.rename(columns={"fixed_architecture": "fixed"})
    times = table[table["variant"] == "nas"].set_index("size")["latency_ms"]
    return wide.assign(
        latency_ms=times,
        search=wide["nas"] - wide["fixed"],
        tuning=wide["nas_fine_tuned"] - wide["nas"],
    ).reset_index()


def printed_families() -> "pd.DataFrame":
    """Every printed real-time row of Tables 4 and 14: family, size, latency_ms, ap; RF-DETR fine-tuned.

    Figure 1, right, has the averages after fine-tuning.
    """
    import pandas as pd

    rows = pd.concat([tables.table(4), tables.table(14)], ignore_index=True)
    rows = rows[(rows["latency_runtime"] == "tensorrt") & (rows["variant"] != "nas")]
    rows = rows.drop_duplicates(["model", "size"]).rename(columns={"model": "family"})
    return rows[["family", "size", "latency_ms", "ap"]].reset_index(drop=True)


def twice(result: "Kept") -> "pd.DataFrame":
    """AP of the chosen networks on the test pictures, as tested one by one and as read off the grid of all:
    domain, seed, arch, AP, grid_AP.
    """
    import pandas as pd

    order = {name: i for i, name in enumerate(result.tables["grid"]["arch"])}
    rows = []
    for row in records(result.tables["tests"]):
        domain, seed, arch = row["domain"], int(row["seed"]), row["arch"]
        if row["kind"] in ("nas", "fixed") and f"test:{domain}:{seed}" in result.arrays:
            ap = analysis.grid_of(result, "test", domain, seed)[order[arch]]
            rows.append((domain, seed, arch, row["AP"], float(ap)))
    found = pd.DataFrame(rows, columns=["domain", "seed", "arch", "AP", "grid_AP"])
    return found.assign(difference=np.abs(found["AP"] - found["grid_AP"]))
