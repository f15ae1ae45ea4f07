"""The search of chapter 05: one exact search as an artifact, and what can be read from its table.

Source: Section 3, Figure 1 and Appendix A of the paper.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch, SearchSpace
from rfdetr.data.dataset import DetectionDataset
from rfdetr.experiments.base.artifacts import Store
from rfdetr.experiments.base.profiles import Profile
from rfdetr.experiments.base.supernet import Trained, data
from rfdetr.experiments.base.telling import telling
from rfdetr.model.identity import fingerprint
from rfdetr.provenance import provenance
from rfdetr.quiet import alone
from rfdetr.search.grid import evaluate_grid
from rfdetr.search.pareto import front_mask
from rfdetr.search.regret import regret
from rfdetr.search.run import search
from rfdetr.search.within import budgeted_search

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR
    from rfdetr.search.latency_model import LatencyModel

MODULES = ("rfdetr.search.run",)
MODEL_COLUMNS = {
    "method": "model",
    "median_ape": "median",
    "p95_ape": "95th percentile",
    "worst_ape": "largest",
    "count": "sub-networks",
}
"""Of `LatencyModel.cross_validation`, as a page shows them."""


@dataclass(frozen=True)
class Searched:
    """table: one row per sub-network, latency_ms where it was measured. seconds: by stage. folder: of the
    artifact.
    """

    table: "pd.DataFrame"
    latency: "pd.DataFrame"
    seconds: dict[str, float]
    folder: Path


def exact_search(
    profile: Profile,
    trained: Trained,
    seed: int,
    store: Store,
    measured: int,
    threads: int = 1,
    show: bool = True,
) -> Searched:
    """Every sub-network of the profile's search grid on the validation scenes; latency of `measured` of
    them.
    """
    import pandas as pd

    dataset, space = data(profile, "val"), profile.recipe.search

    def build(folder: Path) -> None:
        origin = provenance(profile.name, seed)
        # The page shows how long each stage took. `search` finds what is evaluated here.
        with alone():
            evaluate_grid(
                trained.model,
                dataset,
                space,
                folder=folder / "evaluated",
                progress=telling("encoder settings") if show else False,
            )
        search(
            trained.model,
            dataset,
            space,
            folder,
            measured=measured,
            threads=threads,
            complete=False,
            intervals=False,
            seed=seed,
            progress=False,
            origin=origin,
        )

    key = {
        "network": fingerprint(trained.model),
        "data": dataset.fingerprint,
        "space": asdict(space),
        "measured": measured,
        "threads": threads,
        "seed": seed,
    }
    folder = store.artifact("search", json.loads(json.dumps(key)), build, MODULES)
    record = json.loads((folder / "search.json").read_text())
    return Searched(
        pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "latency.csv"), record["seconds"], folder
    )


def spread_rows(rows: "pd.DataFrame", count: int) -> "pd.DataFrame":
    """About `count` rows spread evenly over a table, always with its first and its last."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return rows.iloc[places]


def repeated(curves: "pd.DataFrame") -> "pd.DataFrame":
    """How much the seeds of a budgeted search differ (`replay.budgeted_curves`).

    Columns: sampler, seeds, different (searches that differ among them), same_as (another sampler whose
    searches are the same ones, or empty).
    """
    import pandas as pd

    paths = {
        sampler: {
            tuple(map(tuple, run[["step", "spent", "hypervolume"]].to_numpy()))
            for _, run in runs.groupby("seed")
        }
        for sampler, runs in curves.groupby("sampler", sort=False)
    }
    rows = []
    for sampler, own in paths.items():
        alike = [str(other) for other, theirs in paths.items() if other != sampler and theirs == own]
        seeds = curves.loc[curves["sampler"] == sampler, "seed"].nunique()
        rows.append({"sampler": sampler, "seeds": seeds, "different": len(own), "same_as": ", ".join(alike)})
    return pd.DataFrame(rows)


def sampler_words(curves: "pd.DataFrame", budget: float) -> str:
    """What `repeated` finds within a part of the cost, in sentences for the page."""
    alike = repeated(curves[curves["spent"] <= budget])
    certain = alike[(alike["different"] == 1) & (alike["seeds"] > 1)]["sampler"]
    words = f"Within {budget:.0%} of the cost "
    if len(certain):
        words += f"all seeds of {', '.join(certain)} make one and the same search. "
    else:
        words += "every seed makes another search. "
    told: set[str] = set()
    for row in alike[alike["same_as"] != ""].itertuples():
        if row.sampler not in told:
            words += f"The searches of {row.sampler} and {row.same_as} are the same. "
            told |= {str(row.sampler), *str(row.same_as).split(", ")}
    return words.strip()


def mark_seen(table: "pd.DataFrame", training: SearchSpace) -> "pd.DataFrame":
    """The table with a column `seen`: whether training draws the row's (resolution, patch size, windows)."""
    drawn = set(training.triples())
    seen = [
        (r, p, w) in drawn for r, p, w in table[["resolution", "patch_size", "windows"]].to_numpy().tolist()
    ]
    return table.assign(seen=seen)


def fronts(table: "pd.DataFrame", cost: str) -> "pd.DataFrame":
    """The table with a column `front`: whether no other row is as accurate and as cheap."""
    return table.assign(front=front_mask(table["AP"].to_numpy(), table[cost].to_numpy()))


def arch_of(row: "pd.Series") -> Arch:
    """The architecture of a row."""
    return Arch(*(int(row[knob]) for knob in Arch.KNOBS))


def tested(model: "RFDETR", dataset: DetectionDataset, rows: "pd.DataFrame", seed: int = 0) -> "pd.DataFrame":
    """Chosen rows with their AP on held-out data and its bootstrap 95 % interval: test_AP, test_low,
    test_high.
    """
    from rfdetr.experiments.ch04_learning import accuracy_table

    archs = [arch_of(row) for _, row in rows.iterrows()]
    found = accuracy_table(model, dataset, archs, seed=seed).set_index("arch")
    columns = {"test_AP": "AP", "test_low": "low", "test_high": "high"}
    return rows.assign(**{name: found[column].reindex(archs).to_numpy() for name, column in columns.items()})


def few_images(
    model: "RFDETR",
    profile: Profile,
    points: "pd.DataFrame",
    latency: "LatencyModel",
    budget: float,
    seed: int = 0,
) -> dict[str, object]:
    """A search of the profile's validation scenes that looks at few images first, and what its choices are
    worth by the exact table `points` (AP, predicted_ms): sampler, budget, spent, units, and the columns of
    `Regret.row`.
    """
    found = budgeted_search(
        model, data(profile, "val"), profile.recipe.search, latency.predict, budget=budget, seed=seed
    )
    knobs = list(Arch.KNOBS)
    both = points.merge(found[[*knobs, "AP"]], on=knobs, how="left", suffixes=("", "_believed"))
    lost = regret(*(both[name].to_numpy() for name in ("AP", "predicted_ms", "AP_believed")))
    about = {"sampler": "multifidelity", "budget": budget}
    return {**about, "spent": found.attrs["spent"], "units": found.attrs["units"], **lost.row()}
