"""What chapter 05 says of the searches on real domains, from the kept result `search-regret`."""

from typing import TYPE_CHECKING

from rfdetr.experiments import ch05_regret
from rfdetr.experiments.ch05_real import WIDER

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

_OWN = "multifidelity"
_CUT = 0.02


def names(result: "Kept") -> list[str]:
    """Domains whose exact table and searches are there."""
    done = set(result.tables["regret"]["set"])
    return [name for name in result.record.get("real", {}) if name in done and name in result.tables]


def medians(result: "Kept") -> "pd.DataFrame":
    """`ch05_regret.summary` of the domains."""
    rows = result.tables["regret"]
    return ch05_regret.summary(rows[rows["set"].isin(names(result))])


def aims(result: "Kept") -> "pd.DataFrame":
    """Aims, `WIDER` times as wide as on the kept table, and what was reached. Columns: set and those of
    `ch05_regret.bounds`.
    """
    import pandas as pd

    every = medians(result)
    found = [
        ch05_regret.bounds(every[every["set"] == name], wider=WIDER).assign(set=name)
        for name in names(result)
    ]
    columns = ["set", "budget", "measure", "limit", "reached", "holds"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def bought(result: "Kept") -> "pd.DataFrame":
    """By domain what 2 % of the exact cost is. Columns: set, images, settings, networks, passes (of one
    picture through a setting of mean cost), units (settings looked at, median over seeds), error (standard
    deviation of an AP over resampled pictures), own, rule (mean AP lost at 2 % by the search and by the
    better rule of tokens), enough (the least cost tried from which on the aims for 2 % hold; NaN: none).
    """
    import pandas as pd

    every, rows = medians(result), []
    for name in names(result):
        facts, mine = result.record["real"][name], every[every["set"] == name]
        own = mine[mine["sampler"] == _OWN].set_index("budget")
        rules = ch05_regret.against_rules(mine).set_index("budget")
        rows.append(
            {
                "set": name,
                "images": facts["images"],
                "settings": facts["settings"],
                "networks": len(result.tables[name]),
                "passes": _CUT * facts["settings"] * facts["images"],
                "units": own["units"].get(_CUT),
                "error": facts["error"],
                "own": own["regret_mean"].get(_CUT),
                "rule": rules["rule"].get(_CUT),
                "enough": _enough(own),
            }
        )
    return pd.DataFrame(rows)


def _enough(own: "pd.DataFrame") -> float:
    """The least budget from which on all aims for 2 % hold, from medians indexed by budget."""
    limits = {column: WIDER * limit for (column, _), limit in ch05_regret.LIMITS[_CUT].items()}
    good = (own[list(limits)] <= limits).all(axis=1).sort_index()
    failed = good[~good].index
    left = good.index if not len(failed) else good.index[good.index > failed[-1]]
    return float(left[0]) if len(left) else float("nan")


def words(result: "Kept", full: "Kept") -> str:
    """How the aims came out, and what stands against them, in sentences for the page. full: the kept full
    search.
    """
    table, money = aims(result), bought(result)
    held, count = int(table["holds"].sum()), len(table)
    if not count:
        return "No domain is done."
    where = "one domain" if len(money) == 1 else f"{len(money)} domains"
    said = [
        f"Of {count} aims on {where} {held} hold." if held < count else f"All {count} aims hold on {where}."
    ]
    passes, there = money["passes"], _CUT * len(full.tables["units"]) * full.record["images"]
    said.append(
        f"At {_CUT:.0%} a search may spend {_between(passes, 0)} passes of one picture"
        f" through a setting of mean cost, on the kept table {there:,.0f}. AP on all pictures of a domain has"
        f" a standard error of its own, {_between(money['error'], 3)}; the"
        f" narrowest aim is {table['limit'].min():.3f}."
    )
    enough = money.dropna(subset=["enough"])
    if held < count and len(enough):
        said.append(
            f"The aims for {_CUT:.0%} hold from "
            + ", ".join(f"{row['enough']:.0%} ({row['set']})" for row in enough.to_dict("records"))
            + " on."
        )
    better = int((money["own"] < money["rule"]).sum())
    said.append(
        f"The better rule of tokens loses more than the search on {better} of {len(money)} domains at"
        f" {_CUT:.0%}."
    )
    return " ".join(said)


def _between(values: "pd.Series", digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
