"""Answers from the miniature benchmark: differences with intervals, averages over domains, the transfer
matrix.

Reads the kept result of `ch09_collect`. Source: Tables 4, 14, 15 and 17, Figure 5 and Appendices G and H of
the paper.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

SCALE = 65535


@dataclass(frozen=True)
class Paired:
    """Differences in AP on one domain: diff [seeds]; resampled [seeds, R] on the same resampled pictures for
    all seeds (R may be 0).
    """

    diff: np.ndarray
    resampled: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean difference and the ends of its 95 % interval; resolved: the interval leaves out 0."""

    mean: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def row(self) -> dict[str, float | bool]:
        """For a table: difference, low, high, resolved."""
        return {"difference": self.mean, "low": self.low, "high": self.high, "resolved": self.resolved}


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


def on_domain(paired: Paired, draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean difference on one domain; a draw takes seeds with replacement and one resample of the pictures.

    With one seed the interval is over pictures alone, and says nothing about another training.
    """
    rng = np.random.default_rng(seed)
    return _estimate(float(paired.diff.mean()), [_draw(paired, rng) for _ in range(draws)])


def over_domains(each: Mapping[str, Paired], draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean over domains; a draw takes domains with replacement, then of each its seeds and pictures.

    UserError when there are no domains.
    """
    if not each:
        raise UserError("no domain has both kinds of networks; make the result anew, for longer")
    rng = np.random.default_rng(seed)
    domains = list(each.values())
    found = [
        float(np.mean([_draw(domains[i], rng) for i in rng.integers(len(domains), size=len(domains))]))
        for _ in range(draws)
    ]
    return _estimate(float(np.mean([paired.diff.mean() for paired in domains])), found)


def _draw(paired: Paired, rng: np.random.Generator) -> float:
    count, resamples = paired.resampled.shape
    seeds = rng.integers(count, size=count)
    if not resamples:
        return float(paired.diff[seeds].mean())
    return float(paired.resampled[seeds, int(rng.integers(resamples))].mean())


def _estimate(mean: float, draws: Iterable[float]) -> Estimate:
    low, high = np.nanquantile(np.array(list(draws)), [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


def comparison(
    result: "Kept", first: str, second: str, targets: Iterable[str] | None = None, draws: int = 2000
) -> "pd.DataFrame":
    """One row per domain and a last one, "all": domain, seeds, difference, low, high, resolved."""
    import pandas as pd

    each = differences(result.tables["tests"], result.arrays["resampled"], first, second, targets)
    rows = [
        {"domain": domain, "seeds": len(paired.diff), **on_domain(paired, draws).row()}
        for domain, paired in each.items()
    ]
    whole = over_domains(each, draws).row()
    return pd.DataFrame([*rows, {"domain": "all", "seeds": int(np.sum([r["seeds"] for r in rows])), **whole}])


def averages(tests: "pd.DataFrame") -> "pd.DataFrame":
    """Mean AP by kind and target over domains (each the mean of its seeds), as Table 4 has it, with the
    number of domains.
    """
    per_domain = tests.groupby(["kind", "target", "domain"], sort=False)["AP"].mean().reset_index()
    grouped = per_domain.groupby(["kind", "target"], sort=False)["AP"]
    return grouped.agg(["mean", "count"]).reset_index().rename(columns={"mean": "AP", "count": "domains"})


def grid_of(result: "Kept", what: str, domain: str, seed: int) -> np.ndarray:
    """AP of all sub-networks of a domain's supernet: what is "val", "test" [N] or "again" [r, N]."""
    key = f"{what}:{domain}:{seed}"
    if key not in result.arrays:
        raise UserError(f"the kept result has no {what} of {domain}, seed {seed}: make it anew, for longer")
    return result.arrays[key] / SCALE


def transfer(result: "Kept", target: str, draws: int = 2000) -> "pd.DataFrame":
    """The architecture chosen on one domain, used on another with that one's supernet.

    One row per pair (chosen_on, used_on): seeds, AP_own, AP_other, difference (own choice minus other's, on
    the test pictures of `used_on`), low, high, resolved. "fixed" as chosen_on is the base's own choice.
    """
    import pandas as pd

    tests, order = result.tables["tests"], {name: i for i, name in enumerate(result.tables["grid"]["arch"])}
    nas = tests[(tests["kind"] == "nas") & (tests["target"] == target)]
    chosen = {
        (str(domain), int(seed)): order[arch]
        for domain, seed, arch in zip(nas["domain"], nas["seed"], nas["arch"], strict=True)
    }
    domains = list(dict.fromkeys(nas["domain"]))
    fixed = order[result.record["fixed"][target]]
    rows = []
    for used_on in domains:
        seeds = [seed for domain, seed in chosen if domain == used_on]
        grids = {
            s: (grid_of(result, "test", used_on, s), grid_of(result, "again", used_on, s)) for s in seeds
        }
        for chosen_on in ["fixed", *domains]:
            diffs, again, others = [], [], []
            for s, (ap, resampled) in grids.items():
                other = fixed if chosen_on == "fixed" else chosen.get((chosen_on, s))
                if other is None:
                    continue
                own = chosen[used_on, s]
                diffs.append(ap[own] - ap[other])
                again.append(resampled[:, own] - resampled[:, other])
                others.append((ap[own], ap[other]))
            if diffs:
                own_ap, other_ap = np.mean(others, axis=0)
                estimate = on_domain(Paired(np.array(diffs), np.array(again)), draws)
                head = {"chosen_on": chosen_on, "used_on": used_on, "seeds": len(diffs)}
                rows.append({**head, "AP_own": own_ap, "AP_other": other_ap, **estimate.row()})
    return pd.DataFrame(rows)


def best_for_all(result: "Kept", target: str) -> "pd.DataFrame":
    """Is there one architecture for all? Sub-networks within a target by their mean loss on the test
    pictures against the best of each domain's own grid: arch, gflops, mean_loss, worst_loss, worst_domain.

    An optimistic figure, because the best are picked on the pictures that they are judged on.
    """
    grid, limit = result.tables["grid"], result.record["limits"][target]
    names = [key.split(":", 1)[1] for key in result.arrays if key.startswith("test:")]
    allowed = (grid["gflops"] <= limit).to_numpy()
    losses: dict[str, list[np.ndarray]] = {}
    for name in names:
        domain, seed = name.rsplit(":", 1)
        ap = grid_of(result, "test", domain, int(seed))[allowed]
        losses.setdefault(domain, []).append(ap.max() - ap)
    each = np.array([np.mean(found, axis=0) for found in losses.values()])
    domains = np.array(list(losses))
    table = grid.loc[allowed, ["arch", "gflops"]].assign(
        mean_loss=each.mean(0), worst_loss=each.max(0), worst_domain=domains[each.argmax(0)]
    )
    return table.sort_values("mean_loss", ignore_index=True)


def queries_and_objects(result: "Kept", draws: int = 2000, seed: int = 0) -> "tuple[pd.DataFrame, Estimate]":
    """Do domains with fewer objects per picture choose fewer queries? One row per domain (objects per
    picture, mean of the queries chosen, over targets and seeds), and the slope of queries over the binary
    logarithm of objects, with a bootstrap interval over domains.
    """
    tests, domains = result.tables["tests"], result.tables["domains"]
    nas = tests[tests["kind"] == "nas"]
    queries = nas["arch"].str.extract(r"-q(\d+)$")[0].astype(float)
    mean = queries.groupby(nas["domain"]).mean().rename("queries")
    table = domains[["domain", "kind", "objects_per_image"]].merge(mean, on="domain")
    x, y = np.log2(table["objects_per_image"].to_numpy()), table["queries"].to_numpy()
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(x), size=len(x)) for _ in range(draws))
    slopes = [_slope(x[which], y[which]) for which in drawn]
    return table, _estimate(_slope(x, y), slopes)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    spread = np.var(x)
    return float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else float("nan")
