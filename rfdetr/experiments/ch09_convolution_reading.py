"""The convolutional baseline (`ch09_convolution`) beside the kept benchmark: accuracy and latency."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.experiments import ch09_analysis as analysis
from rfdetr.experiments.base import kept
from rfdetr.experiments.base.kept import Kept
from rfdetr.experiments.ch09_convolution import KIND, NAME
from rfdetr.experiments.ch09_domains import SIZES
from rfdetr.experiments.ch09_intervals import over_domains
from rfdetr.experiments.ch09_tables import KINDS, answer
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

AGAINST = ("fixed", "nas", "nas_tuned", "scratch_nas")
"""Kinds of the benchmark with which the baseline is compared."""
NAMES = {
    KIND["evaluation"]: "convolutional, all pairs",
    KIND["deployed"]: "convolutional, as deployed",
    **{kind: KINDS[kind] for kind in AGAINST},
}
"""Kinds in words."""
COMMAND = f"`python -m rfdetr results {NAME} --device cpu`"


def load(root: Path | None = None) -> Kept | None:
    """The kept baseline, or None where it is not in this copy. UserError when it is damaged."""
    return kept.find(NAME, root)


def words(baseline: Kept | None) -> str:
    """Which of the real domains it has, and how the rest is made; Markdown."""
    real = SIZES["cpu"].real
    if baseline is None:
        return (
            f"**The convolutional baseline is not in this copy.** {COMMAND} trains it (package `libreyolo`,"
            " MIT; a few minutes of one core for every domain), tests and times it."
        )
    tests = baseline.tables["tests"]
    seeds = tests.groupby("domain", sort=False)["seed"].nunique()
    gone = [name for name in real if name not in seeds.index]
    text = f"{len(seeds)} of {len(real)} real domains: {', '.join(seeds.index)}."
    if gone:
        text += f" **Not there:** {', '.join(gone)}; {COMMAND} goes on with them."
    if (seeds == 1).all():
        text += " One training each."
    return text


def joined(study: Kept, baseline: Kept) -> Kept:
    """The benchmark with the baseline's tests among its own. It has no targets, and so stands beside all."""
    import pandas as pd

    targets = list(study.record["limits"])
    own = baseline.tables["tests"]
    count = len(own)
    beside = pd.concat([own.assign(target=target) for target in targets], ignore_index=True)
    tests = pd.concat([study.tables["tests"], beside], ignore_index=True)
    again = np.concatenate([study.arrays["resampled"], *[baseline.arrays["resampled"]] * len(targets)])
    assert len(again) == len(tests) == len(study.tables["tests"]) + count * len(targets)
    return Kept(
        {**study.tables, "tests": tests}, study.record, study.folder, {**study.arrays, "resampled": again}
    )


def means(study: Kept, baseline: Kept) -> "pd.DataFrame":
    """Mean AP over the domains that both have, one row per kind (the baseline's first) and one column per
    target, and of how many domains: kind, network, the targets, domains.

    Without targets the baseline's AP is the same for all.
    """
    whole = joined(study, baseline).tables["tests"]
    both = set(baseline.tables["tests"]["domain"]) & set(study.tables["tests"]["domain"])
    found = analysis.averages(whole[whole["domain"].isin(both)])
    found = found[found["kind"].isin(NAMES)]
    wide = found.pivot(index="kind", columns="target", values="AP")
    wide = wide[[target for target in study.record["limits"] if target in wide]]
    wide = wide.join(found.groupby("kind")["domains"].min())
    wide = wide.loc[[kind for kind in NAMES if kind in wide.index]].reset_index()
    return wide.assign(network=wide["kind"].map(NAMES))


def per_domain(study: Kept, baseline: Kept) -> "pd.DataFrame":
    """AP of every domain of the baseline, mean over seeds: domain, seeds, steps, epochs, convolution,
    convolution_deployed, then `nas N`, ... of the benchmark, and `nas_tuned M` where it is there.
    """
    import pandas as pd

    own, tests = baseline.tables["tests"], study.tables["tests"]
    targets = list(study.record["limits"])
    rows = []
    for domain, part in own.groupby("domain", sort=False):
        row: dict[str, Any] = {"domain": domain, "seeds": part["seed"].nunique()}
        row |= {name: part[name].mean() for name in ("steps", "epochs", "seconds")}
        row |= {kind: part.loc[part["kind"] == kind, "AP"].mean() for kind in KIND.values()}
        there = tests[tests["domain"] == domain]
        for kind in ("fixed", "nas", "nas_tuned"):
            for target in targets:
                which = (there["kind"] == kind) & (there["target"] == target)
                row[f"{kind} {target}"] = there.loc[which, "AP"].mean()
        rows.append(row)
    found = pd.DataFrame(rows)
    return found.dropna(axis="columns", how="all")


def compared(study: Kept, baseline: Kept) -> "pd.DataFrame":
    """AP of the baseline minus that of a kind of the benchmark (`AGAINST`), by target, mean over the domains
    and seeds that both have: against, target, domains, the fields of `Estimate.row`, answer.
    """
    import pandas as pd

    whole = joined(study, baseline)
    rows = []
    for kind in AGAINST:
        for target in study.record["limits"]:
            each = analysis.differences(
                whole.tables["tests"], whole.arrays["resampled"], KIND["evaluation"], kind, [target]
            )
            if each:
                found = over_domains(each)
                head = {"against": KINDS[kind], "target": target, "domains": len(each)}
                rows.append({**head, **found.row(), "answer": answer(found, len(each))})
    columns = ["against", "target", "domains", "difference", "low", "high", "over", "clear", "resolved"]
    return pd.DataFrame(rows, columns=[*columns, "answer"])


def said(against: "pd.DataFrame") -> str:
    """Who is better, in a sentence for each target of the searched networks; "" without any."""
    who = {"yes": "the convolutional network is better", "no, the opposite": "the searched one is better"}
    own = against[against["against"] == KINDS["nas"]]
    parts = [
        f"target {row['target']} {row['difference']:+.3f} AP ({row['low']:+.3f} to {row['high']:+.3f} over"
        f" {row['domains']} domains): {who.get(row['answer'], row['answer'])}"
        for row in records(own)
    ]
    return f"Against the searched networks: {'; '.join(parts)}." if parts else ""


def differences(study: Kept, baseline: Kept, kind: str = "nas") -> "pd.DataFrame":
    """AP of the baseline minus that of a kind on every domain, by target: domain (the last is "all"), target,
    seeds, and the fields of `Estimate.row`.
    """
    import pandas as pd

    whole = joined(study, baseline)
    found = [
        analysis.comparison(whole, KIND["evaluation"], kind, [target]).assign(target=target)
        for target in study.record["limits"]
    ]
    return pd.concat(found, ignore_index=True)


def latencies(baseline: Kept) -> "pd.DataFrame":
    """One row per network and protocol: network, protocol, domains, median_ms (median over rounds, then over
    domains), low_ms, high_ms (of the domains), noisy (share of the measurements that say so).
    """
    rows = baseline.tables["latency"]
    each = rows.groupby(["network", "protocol", "domain"], sort=False).agg(
        ms=("median_ms", "median"), noisy=("noisy", "mean")
    )
    groups = each.reset_index().groupby(["network", "protocol"], sort=True)
    return groups.agg(
        domains=("domain", "nunique"),
        median_ms=("ms", "median"),
        low_ms=("ms", "min"),
        high_ms=("ms", "max"),
        noisy=("noisy", "mean"),
    ).reset_index()


def ratios(baseline: Kept, protocol: str = "buffered") -> "pd.DataFrame":
    """Latency of the baseline's file with all pairs over that of the benchmark's sub-networks, paired by
    round: network, domains, ratio (median of the domains' medians over rounds), low, high (of the domains).
    """
    import pandas as pd

    rows = baseline.tables["latency"]
    rows = rows[rows["protocol"] == protocol]
    wide = rows.pivot_table(index=["domain", "round"], columns="network", values="median_ms")
    first = f"convolution, {next(iter(KIND))}"
    found = []
    for network in wide:
        if network == first:
            continue
        each = (wide[first] / wide[network]).groupby("domain").median().dropna()
        if len(each):
            head = {"network": network, "domains": len(each)}
            found.append({**head, "ratio": each.median(), "low": each.min(), "high": each.max()})
    return pd.DataFrame(found, columns=["network", "domains", "ratio", "low", "high"])
