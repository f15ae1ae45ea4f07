"""How well two ways of training agree on the order of architectures: Kendall's tau with its interval.

Reads the kept result of `ch04_ranking`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.errors import UserError
from rfdetr.experiments.base.fitting import resampled
from rfdetr.paper.verdicts import records

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.studies import Finished

PAIRS = (("inherited", "alone"), ("tuned", "alone"), ("share", "alone"), ("inherited", "tuned"))
"""Kinds of networks whose orders are compared; `alone` is what the others should agree with."""


@dataclass(frozen=True)
class Scores:
    """AP of one kind of networks: ap [seeds, archs], resampled [seeds, archs, R] on resampled test images
    (the same ones for every kind).
    """

    ap: np.ndarray
    resampled: np.ndarray


@dataclass(frozen=True)
class Tau:
    """Kendall's tau-b of the mean APs over seeds; ends of its 95 % interval, over architectures, seeds and
    images together, and (half widths) over each of the three alone.
    """

    tau: float
    low: float
    high: float
    by_archs: float
    by_seeds: float
    by_images: float


def tables(finished: "Finished", archs: list[Arch]) -> "tuple[pd.DataFrame, np.ndarray]":
    """One row per tested network (kind, seed, arch and its knobs, tokens, gflops, AP, AP50, steps, updates,
    skipped, device) and, in the same order, APs on resampled images [rows, R].
    """
    import pandas as pd

    from rfdetr.benchmark.flops import analytic_table
    from rfdetr.model.config import ModelConfig

    config = ModelConfig(num_classes=10, **finished.profile.recipe.model)
    gflops = dict(zip(archs, analytic_table(config, archs)["gflops"], strict=True))
    rows, tests = [], []
    for name, record in finished.records.items():
        kind, seed = name.split("-")[:2]
        value = record["value"]
        for arch_id, test in value["tests"].items():
            arch = Arch.parse(arch_id)
            updates = value.get("updates", {}).get(arch_id, value["steps"])
            rows.append(
                {
                    "kind": "inherited" if kind == "supernet" else kind,
                    "seed": int(seed),
                    "arch": arch_id,
                    **arch.to_dict(),
                    "tokens": arch.tokens,
                    "gflops": gflops[arch],
                    "AP": test["AP"],
                    "AP50": test["AP50"],
                    "steps": value["steps"],
                    "updates": updates,
                    "skipped": value["skipped"],
                    "device": record["made"]["device"],
                }
            )
            tests.append(test)
    if not rows:
        raise UserError("ranking: no part is done yet; run `python -m rfdetr results ranking` again")
    return pd.DataFrame(rows), resampled(tests)


def scores(networks: "pd.DataFrame", resamples: np.ndarray, kind: str, archs: list[str]) -> Scores:
    """The APs of one kind, of the seeds that have all the architectures. UserError when there is none."""
    ap, again = [], []
    rows = networks.assign(row=np.arange(len(networks)))
    for _, part in rows[rows["kind"] == kind].groupby("seed"):
        found = part.set_index("arch")
        if set(archs) <= set(found.index):
            order = found.loc[archs, "row"].to_numpy()
            ap.append(networks["AP"].to_numpy()[order])
            again.append(resamples[order])
    if not ap:
        raise UserError(f"no seed of {kind!r} has all {len(archs)} architectures; make the result anew")
    return Scores(np.array(ap), np.array(again))


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b of two lists of numbers; NaN when one of them is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def agreement(first: Scores, second: Scores, draws: int = 2000, seed: int = 0) -> Tau:
    """Kendall's tau between two kinds and its bootstrap intervals.

    A draw takes architectures with replacement (the same for both kinds), seeds with replacement (for each
    kind on its own: the seeds are those of different trainings), and one resample of the test images (the
    same for both).
    """
    rng = np.random.default_rng(seed)
    everything = {"archs", "seeds", "images"}
    ends = {}
    for name, moving in [("all", everything), *((part, {part}) for part in sorted(everything))]:
        found = np.array([_drawn(first, second, moving, rng) for _ in range(draws)])
        defined = found[~np.isnan(found)]
        ends[name] = np.quantile(defined, [0.025, 0.975]) if len(defined) else np.full(2, np.nan)
    half = {name: float(high - low) / 2 for name, (low, high) in ends.items()}
    tau = kendall(first.ap.mean(0), second.ap.mean(0))
    low, high = map(float, ends["all"])
    return Tau(tau, low, high, half["archs"], half["seeds"], half["images"])


def _drawn(first: Scores, second: Scores, moving: set[str], rng: np.random.Generator) -> float:
    count = first.ap.shape[1]
    archs = rng.integers(count, size=count) if "archs" in moving else np.arange(count)
    image = int(rng.integers(first.resampled.shape[2])) if "images" in moving else None
    sides = []
    for side in (first, second):
        values = side.ap if image is None else side.resampled[:, :, image]
        seeds = np.arange(len(values))
        if "seeds" in moving:
            seeds = rng.integers(len(values), size=len(values))
        sides.append(values[seeds].mean(0)[archs])
    return kendall(*sides)


def summary(
    networks: "pd.DataFrame", resamples: np.ndarray, draws: int = 2000, seed: int = 0
) -> "pd.DataFrame":
    """One row per comparison: first, second, architectures, seeds of each, and the fields of `Tau`.

    Beside the pairs of kinds: the order by operations against `alone` (what a ranking without any training
    would give), and one seed of a kind against another (how well a way of training agrees with itself: more
    agreement than that cannot be asked for), which has no interval.
    """
    import pandas as pd

    archs = _archs(networks)
    kinds = {kind: scores(networks, resamples, kind, archs) for kind in _complete(networks, archs)}
    rows: list[dict[str, Any]] = []

    def add(first: str, second: str, seeds: tuple[int, int], tau: Mapping[str, float]) -> None:
        head = {"first": first, "second": second, "architectures": len(archs)}
        rows.append({**head, "first_seeds": seeds[0], "second_seeds": seeds[1], **tau})

    for first, second in PAIRS:
        if first in kinds and second in kinds:
            one, other = kinds[first], kinds[second]
            add(first, second, (len(one.ap), len(other.ap)), vars(agreement(one, other, draws, seed)))
    if "alone" in kinds:
        alone = kinds["alone"]
        cost = _operations(networks, archs)
        shape = alone.resampled.shape[2]
        fixed = Scores(cost[None], np.repeat(cost[None, :, None], shape, axis=2))
        add("operations", "alone", (0, len(alone.ap)), vars(agreement(fixed, alone, draws, seed)))
    for kind, values in kinds.items():
        pairs = [(a, b) for a in range(len(values.ap)) for b in range(a)]
        if pairs:
            mean = float(np.mean([kendall(values.ap[a], values.ap[b]) for a, b in pairs]))
            add(f"{kind}, one seed", f"{kind}, another", (1, 1), {"tau": mean})
    return pd.DataFrame(rows)


def against_operations(
    networks: "pd.DataFrame", resamples: np.ndarray, draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """By how much the order of inherited weights agrees better with `alone` than the order by operations:
    difference (of Kendall's tau), low, high: 95 %, over architectures, seeds and images together.

    Both sides of a draw are held against the same networks trained alone on the same images. UserError where
    no seed of either kind has all architectures.
    """
    archs = _archs(networks)
    one, alone = (scores(networks, resamples, kind, archs) for kind in ("inherited", "alone"))
    cost, count = _operations(networks, archs), len(archs)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = rng.integers(count, size=count)
        image = rng.integers(one.resampled.shape[2])
        first, second = (
            side.resampled[rng.integers(len(side.ap), size=len(side.ap)), :, image].mean(0)[chosen]
            for side in (one, alone)
        )
        found.append(kendall(first, second) - kendall(cost[chosen], second))
    low, high = np.nanquantile(found, [0.025, 0.975])
    truth = alone.ap.mean(0)
    difference = kendall(one.ap.mean(0), truth) - kendall(cost, truth)
    return {"difference": difference, "low": float(low), "high": float(high)}


def words(order: "pd.DataFrame", advantage: Mapping[str, float]) -> str:
    """Whether inherited weights order architectures better than their size does, with intervals.

    order: from `summary`; advantage: from `against_operations`.
    """
    rows = {(row["first"], row["second"]): row for row in records(order)}
    inherited, blind = rows["inherited", "alone"], rows["operations", "alone"]

    def tau(row: Mapping[str, Any]) -> str:
        return f"τ = {row['tau']:.2f} (95 % {row['low']:.2f} to {row['high']:.2f})"

    if advantage["low"] > 0:
        means = "so the supernet tells more than the size does"
    elif advantage["high"] < 0:
        means = "so over this range of sizes the rule that larger is better does better than the supernet"
    else:
        means = "not resolved: these networks cannot tell whether the supernet knows more than their size"
    seeds = f"{inherited['first_seeds']:.0f} of the supernet, {inherited['second_seeds']:.0f} of each network"
    return (
        f"Inherited weights order these {inherited['architectures']:.0f} architectures with"
        f" {tau(inherited)}; to sort them by their operations, without any training, gives {tau(blind)}. The"
        f" difference is {advantage['difference']:+.2f} ({advantage['low']:+.2f} to"
        f" {advantage['high']:+.2f}), {means}. Seeds: {seeds} alone."
    )


def regret(networks: "pd.DataFrame", kind: str = "inherited", truth: str = "alone") -> "pd.DataFrame":
    """What choosing by `kind` costs: for each architecture as the dearest that is allowed (by operations),
    the AP `truth` of the best by `kind` and of the best by `truth`. Means over seeds.

    Columns: gflops, chosen, best, AP_chosen, AP_best, regret.
    """
    import pandas as pd

    mean = networks.groupby(["arch", "kind"])["AP"].mean().unstack()
    cost = networks.drop_duplicates("arch").set_index("arch")["gflops"].sort_values()
    rows = []
    for limit in cost:
        allowed = mean.loc[cost[cost <= limit].index].dropna(subset=[kind, truth])
        if len(allowed):
            chosen, best = allowed[kind].idxmax(), allowed[truth].idxmax()
            aps = float(allowed.loc[chosen, truth]), float(allowed.loc[best, truth])
            row = {"gflops": limit, "chosen": chosen, "best": best}
            rows.append({**row, "AP_chosen": aps[0], "AP_best": aps[1], "regret": aps[1] - aps[0]})
    return pd.DataFrame(rows)


def training_share(networks: "pd.DataFrame") -> "pd.DataFrame":
    """The supernet against its architectures trained one by one for the same operations in all: arch, tokens,
    gflops, updates (mean number of the supernet's steps that drew its encoder setting), and the mean AP of
    each kind with its standard deviation over seeds.
    """
    head = networks.drop_duplicates("arch").set_index("arch")[["tokens", "gflops"]]
    drawn = networks[networks["kind"] == "inherited"].groupby("arch")["updates"].mean()
    by_kind = networks.groupby(["arch", "kind"])["AP"]
    # One seed has no deviation, but its column.
    mean, std = by_kind.mean().unstack(), by_kind.std().unstack().add_suffix("_std")
    return head.join(drawn).join(mean).join(std).sort_values("gflops").reset_index()


def _complete(networks: "pd.DataFrame", archs: list[str]) -> list[str]:
    """Kinds with at least one seed that has all architectures."""
    sizes = networks[networks["arch"].isin(archs)].groupby(["kind", "seed"])["arch"].nunique()
    return [str(kind) for kind, most in sizes.groupby("kind").max().items() if most == len(archs)]


def _archs(networks: "pd.DataFrame") -> list[str]:
    return networks.loc[networks["kind"] == "inherited", "arch"].drop_duplicates().tolist()


def _operations(networks: "pd.DataFrame", archs: list[str]) -> np.ndarray:
    return networks.drop_duplicates("arch").set_index("arch").loc[archs, "gflops"].to_numpy()
