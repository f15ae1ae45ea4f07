"""Answers from the miniature benchmark: differences between networks, averages over domains, the transfer
matrix. How wide their intervals are is in `ch09_intervals`.

Reads the kept result of `ch09_collect`. Source: Tables 4, 14, 15 and 17, Figure 5 and Appendices G and H of
the paper.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rfdetr.errors import UserError
from rfdetr.experiments.ch09_intervals import Paired, on_domain, over_domains

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

SCALE = 65535
FIXED, OTHERS = "fixed", "all others"
"""What else than a domain an architecture was chosen on, in `transfer`."""
Indexes: TypeAlias = "int | np.ndarray"


def differences(
    tests: "pd.DataFrame",
    resampled: np.ndarray,
    first: str,
    second: str,
    targets: Iterable[str] | None = None,
) -> dict[str, Paired]:
    """AP of kind `first` minus AP of kind `second` on every domain that has both, paired by seed and target,
    averaged over the targets.

    tests, resampled: `tests` and `resampled` of the kept result (the latter as whole numbers or as reals).
    """
    values = resampled / SCALE if np.issubdtype(resampled.dtype, np.integer) else resampled
    table = tests.assign(row=np.arange(len(tests)))
    if targets is not None:
        table = table[table["target"].isin(list(targets))]
    keys = ["domain", "seed", "target"]
    one, other = (table[table["kind"] == kind].drop_duplicates(keys) for kind in (first, second))
    both = one.merge(other, on=keys, suffixes=("", "_other"))
    found = {}
    for domain, part in both.groupby("domain", sort=False):
        diffs, again = [], []
        for _, rows in part.groupby("seed"):
            diffs.append(float((rows["AP"] - rows["AP_other"]).mean()))
            again.append((values[rows["row"]] - values[rows["row_other"]]).mean(0))
        found[str(domain)] = Paired(np.array(diffs), np.array(again))
    return found


def comparison(
    result: "Kept", first: str, second: str, targets: Iterable[str] | None = None
) -> "pd.DataFrame":
    """One row per domain and a last one, "all": domain, seeds, and the fields of `Estimate.row`."""
    import pandas as pd

    each = differences(result.tables["tests"], result.arrays["resampled"], first, second, targets)
    rows = [
        {"domain": domain, "seeds": len(paired.diff), **on_domain(paired).row()}
        for domain, paired in each.items()
    ]
    whole = over_domains(each).row()
    return pd.DataFrame([*rows, {"domain": "all", "seeds": int(np.sum([r["seeds"] for r in rows])), **whole}])


def averages(tests: "pd.DataFrame") -> "pd.DataFrame":
    """Mean AP by kind and target over domains (each the mean of its seeds), as Table 4 has it, with the
    number of domains.
    """
    per_domain = tests.groupby(["kind", "target", "domain"], sort=False)["AP"].mean().reset_index()
    grouped = per_domain.groupby(["kind", "target"], sort=False)["AP"]
    return grouped.agg(["mean", "count"]).reset_index().rename(columns={"mean": "AP", "count": "domains"})


def grid_of(result: "Kept", what: str, domain: str, seed: int) -> np.ndarray:
    """AP of all sub-networks of a domain's supernet: what is "val", "test" [N] or "again" [r, N].

    UserError when the result does not have it.
    """
    return _whole(result, what, domain, seed) / SCALE


def _whole(result: "Kept", what: str, domain: str, seed: int) -> np.ndarray:
    key = f"{what}:{domain}:{seed}"
    if key not in result.arrays:
        raise UserError(f"the kept result has no {what} of {domain}, seed {seed}: make it anew, for longer")
    return result.arrays[key]


def seeds_of(result: "Kept") -> dict[str, list[int]]:
    """Domain -> seeds of which the grid of all sub-networks is there."""
    found: dict[str, list[int]] = {}
    for key in result.arrays:
        what, _, name = key.partition(":")
        if what == "test" and name:
            domain, seed = name.rsplit(":", 1)
            found.setdefault(domain, []).append(int(seed))
    return found


def between(result: "Kept", domain: str, sides: Mapping[int, tuple[Indexes, Indexes]]) -> Paired:
    """Differences between sub-networks of one supernet on its domain's test pictures.

    sides: seed -> places in the table `grid` of the first and of the second; of several the mean AP counts.
    """
    diffs: list[np.ndarray] = []
    again: list[np.ndarray] = []
    for seed, (first, second) in sides.items():
        for found, what in ((diffs, "test"), (again, "again")):
            ap = _whole(result, what, domain, seed)
            one, other = (ap[..., np.atleast_1d(side)].mean(-1) / SCALE for side in (first, second))
            found.append(one - other)
    return Paired(np.array(diffs), np.array(again))


def transfer(result: "Kept", target: str) -> "pd.DataFrame":
    """The architecture chosen on one domain, used on another with that one's supernet.

    One row per pair (chosen_on, used_on): seeds, then of the own choice minus the other's on the test
    pictures of `used_on` the fields of `Estimate.row`. As chosen_on, `FIXED` is the base's own choice, and
    `OTHERS` the one with the smallest mean loss on the validation pictures of all other domains.
    """
    import pandas as pd

    chosen = _choices(result, target)
    domains = list(dict.fromkeys(domain for domain, _ in chosen))
    every = best_of_others(result, target)
    fixed = _order(result)[result.record["fixed"][target]]
    rows = []
    for used_on in domains:
        own = {seed: place for (domain, seed), place in chosen.items() if domain == used_on}
        same = {FIXED: fixed, OTHERS: every.get(used_on)}
        for chosen_on in [FIXED, OTHERS, *domains]:
            other = {seed: same.get(chosen_on, chosen.get((chosen_on, seed))) for seed in own}
            sides = {seed: (own[seed], place) for seed, place in other.items() if place is not None}
            if sides:
                head = {"chosen_on": chosen_on, "used_on": used_on, "seeds": len(sides)}
                rows.append({**head, **on_domain(between(result, used_on, sides)).row()})
    columns = ["chosen_on", "used_on", "seeds", "difference", "low", "high", "over", "clear", "resolved"]
    return pd.DataFrame(rows, columns=columns)


def _order(result: "Kept") -> dict[str, int]:
    return {name: place for place, name in enumerate(result.tables["grid"]["arch"])}


def _choices(result: "Kept", target: str) -> dict[tuple[str, int], int]:
    """(domain, seed) -> place of the domain's own choice."""
    tests, order = result.tables["tests"], _order(result)
    nas = tests[(tests["kind"] == "nas") & (tests["target"] == target)]
    return {
        (str(domain), int(seed)): order[arch]
        for domain, seed, arch in zip(nas["domain"], nas["seed"], nas["arch"], strict=True)
    }


def losses(result: "Kept", what: str, target: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Places of the sub-networks within a target, and by domain how much AP each has less than the domain's
    best of them, mean over seeds; what is "val" or "test".
    """
    # A target is the cost of a sub-network, and the kept table has six digits of it.
    limit = result.record["limits"][target] * (1 + 1e-5)
    within = np.flatnonzero(result.tables["grid"]["gflops"] <= limit)
    found = {}
    for domain, seeds in seeds_of(result).items():
        each = [grid_of(result, what, domain, seed)[within] for seed in seeds]
        found[domain] = np.mean([ap.max() - ap for ap in each], axis=0)
    return within, found


def best_of_others(result: "Kept", target: str) -> dict[str, int]:
    """Domain -> place of the sub-network with the smallest mean loss on the validation pictures of all other
    domains; empty where there are no others.
    """
    within, each = losses(result, "val", target)
    if len(each) < 2:
        return {}
    whole = np.sum(list(each.values()), axis=0)
    return {domain: int(within[(whole - loss).argmin()]) for domain, loss in each.items()}


def best_for_all(result: "Kept", target: str) -> "pd.DataFrame":
    """Is there one architecture for all? Sub-networks within a target by their mean loss on the test
    pictures against the best of each domain's own grid: arch, gflops, mean_loss, worst_loss, worst_domain.

    An optimistic figure, because the best are picked on the pictures that they are judged on.
    """
    within, found = losses(result, "test", target)
    each, domains = np.array(list(found.values())), np.array(list(found))
    table = (
        result.tables["grid"]
        .iloc[within][["arch", "gflops"]]
        .assign(mean_loss=each.mean(0), worst_loss=each.max(0), worst_domain=domains[each.argmax(0)])
    )
    return table.sort_values("mean_loss", ignore_index=True)


def queries_and_objects(result: "Kept") -> "pd.DataFrame":
    """Do domains with fewer objects per picture choose fewer queries? One row per domain: domain, kind,
    objects_per_image, queries (mean of those chosen, over targets and seeds).
    """
    tests, domains = result.tables["tests"], result.tables["domains"]
    nas = tests[tests["kind"] == "nas"]
    queries = nas["arch"].str.extract(r"-q(\d+)$")[0].astype(float)
    mean = queries.groupby(nas["domain"]).mean().rename("queries")
    return domains[["domain", "kind", "objects_per_image"]].merge(mean, on="domain")
