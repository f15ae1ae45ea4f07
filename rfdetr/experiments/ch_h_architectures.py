"""What the search finds, and why: unseen patch sizes at one resolution, tokens apart from resolution and
patch size, windows, scaling along the front.

Source: v1 Appendix H, v2 Appendices F, H and L, Tables 7, 8 and 17. The kept search of the printed grid in
miniature (`ch05_full_search`) is read by the names of its columns.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, SearchSpace, round_resolution
from rfdetr.data.dataset import DetectionDataset
from rfdetr.experiments import ch05_knobs as knobs
from rfdetr.experiments.ch09_intervals import FEW
from rfdetr.paper import tables

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.model.detector import RFDETR

_LEVEL = (2.5, 97.5)
FREE = "resolution and patch size, free of each other"
_ENCODER = ["resolution", "patch_size", "windows"]


def unseen_family(space: SearchSpace, decoder_layers: int, queries: int, count: int = 3) -> "pd.DataFrame":
    """A family at one resolution whose patch sizes training never drew, and its twins of trained patch size.

    The resolution is the largest trained one, as close as the patch size divides it; a twin has as many
    tokens a side by another resolution, at the trained patch size that serves most of the family (the paper:
    16). One window. Columns: side, arch, twin (`Arch`); the `count` members with most tokens.
    """
    import pandas as pd

    seen: dict[int, dict[int, int]] = {}
    for resolution, patch, windows in space.triples():
        if windows == 1:
            seen.setdefault(patch, {})[resolution // patch] = resolution
    largest = max(space.resolutions)
    sides = {}
    for patch in range(min(space.patch_sizes) + 1, max(space.patch_sizes)):
        if patch not in space.patch_sizes:
            sides[patch] = round_resolution(largest, patch, 1) // patch
    serves = {patch: sum(side in grids for side in sides.values()) for patch, grids in seen.items()}
    twin_patch = max(serves, key=lambda patch: (serves[patch], -patch))
    rows: list[dict[str, Any]] = []
    for patch, side in sides.items():
        if side not in seen[twin_patch] or any(row["side"] == side for row in rows):
            continue
        rest = (1, decoder_layers, min(queries, side**2))
        twin = Arch(seen[twin_patch][side], twin_patch, *rest)
        rows.append({"side": side, "arch": Arch(side * patch, patch, *rest), "twin": twin})
    return pd.DataFrame(rows[:count], columns=["side", "arch", "twin"])


def against_twins(
    model: "RFDETR", dataset: DetectionDataset, family: "pd.DataFrame", resamples: int = 300, seed: int = 0
) -> "pd.DataFrame":
    """AP of each member of `unseen_family` minus that of its twin, on the same images.

    Columns: side, arch, twin (ids), AP, twin_AP, difference, low, high (95 %, bootstrap over images).
    """
    import pandas as pd

    from rfdetr.experiments.ch04_learning import intervals

    archs = [arch for column in ("arch", "twin") for arch in family[column]]
    found = intervals(model, dataset, archs, resamples, seed)
    rows = []
    for row in family.to_dict("records"):
        one, other = found[row["arch"]][0], found[row["twin"]][0]
        low, high = np.nanpercentile(one.samples - other.samples, _LEVEL)
        names = {name: row[name].id for name in ("arch", "twin")}
        numbers = {"AP": one.ap, "twin_AP": other.ap, "difference": one.ap - other.ap}
        rows.append({"side": row["side"], **names, **numbers, "low": low, "high": high})
    return pd.DataFrame(rows)


def regressions(table: "pd.DataFrame", draws: int = 300, seed: int = 0) -> "pd.DataFrame":
    """R² of AP by smooth curves in what the encoder sees, with the decoder's part taken out.

    Each variable enters as a parabola in its logarithm, two of them with their product, after the mean of
    every (layers, queries) was taken from AP and from the curves. Since the tokens a side are resolution over
    patch size, the curve of both, free of each other, holds that of the tokens; the last row is what the
    freedom adds to R². Columns: explained by, r_squared, low, high: 95 %, bootstrap over encoder settings,
    whose sub-networks share almost everything and so count as one.
    """
    import pandas as pd

    full = knobs.with_side(table.dropna(subset=["AP"])).reset_index(drop=True)
    pair = full.groupby(["decoder_layers", "queries"]).ngroup().to_numpy()
    setting = full.groupby(_ENCODER).ngroup().to_numpy()
    side, resolution, patch = (
        np.log2(full[name]) - np.log2(full[name]).mean() for name in ("side", "resolution", "patch_size")
    )
    both = (resolution, patch, resolution**2, patch**2, resolution * patch)
    designs = {
        "tokens a side": np.stack([side, side**2], 1),
        "resolution": np.stack([resolution, resolution**2], 1),
        "patch size": np.stack([patch, patch**2], 1),
        FREE: np.stack(both, 1),
    }
    rng = np.random.default_rng(seed)
    counts = [np.ones(setting.max() + 1)]
    counts += [
        np.bincount(rng.integers(len(counts[0]), size=len(counts[0])), minlength=len(counts[0]))
        for _ in range(draws)
    ]
    ap = full["AP"].to_numpy()
    found = {
        name: np.array([_weighted_r2(design, ap, pair, each[setting]) for each in counts])
        for name, design in designs.items()
    }
    found["what that adds to the tokens"] = found[FREE] - found["tokens a side"]
    rows = []
    for name, values in found.items():
        low, high = np.nanpercentile(values[1:], _LEVEL) if draws else (np.nan, np.nan)
        rows.append({"explained by": name, "r_squared": values[0], "low": low, "high": high})
    return pd.DataFrame(rows)


def _weighted_r2(design: np.ndarray, ap: np.ndarray, group: np.ndarray, weights: np.ndarray) -> float:
    """R² of a weighted linear fit after the weighted mean of each group was taken out of both sides."""
    total = np.maximum(np.bincount(group, weights), 1e-12)

    def centred(column: np.ndarray) -> np.ndarray:
        return (column - (np.bincount(group, weights * column) / total)[group]) * np.sqrt(weights)

    left = np.stack([centred(column) for column in design.T], 1)
    right = centred(ap)
    variance = float(right @ right)
    if variance <= 1e-15:
        return float("nan")
    rest = right - left @ np.linalg.lstsq(left, right, rcond=None)[0]
    return 1 - float(rest @ rest) / variance


def window_steps(table: "pd.DataFrame") -> "pd.DataFrame":
    """What more windows do, all else equal. Columns: few, many, gain (AP), low, high, gflops_ratio,
    settings (`ch05_knobs.window_change`).
    """
    import pandas as pd

    rows = []
    for few, many in ((1, 2), (2, 4), (1, 4)):
        change = knobs.window_change(table, many, few)
        numbers = {
            name: getattr(change, name) for name in ("gain", "low", "high", "gflops_ratio", "settings")
        }
        rows.append({"few": few, "many": many, **numbers})
    return pd.DataFrame(rows)


def knob_steps(nominal: "pd.DataFrame") -> "pd.DataFrame":
    """Every knob raised one value at a time over the balanced nominal grid, all else equal.

    nominal: from `ch05_knobs.nominal_table`. Columns: knob, lower, upper, gain (mean change of AP), low, high
    (95 %, Student, over encoder settings), gflops_ratio (median).
    """
    import pandas as pd
    from scipy import stats

    rows = []
    for knob in knobs.KNOBS:
        others = [name for name in knobs.KNOBS if name != knob]
        wide = nominal.pivot(index=others, columns=knob, values=["AP", "gflops"]).dropna()
        clusters = [name for name in _ENCODER if name != knob]
        values = sorted(nominal[knob].unique())
        for lower, upper in zip(values, values[1:], strict=False):
            each = (wide["AP"][upper] - wide["AP"][lower]).groupby(level=clusters).mean()
            ratio = float((wide["gflops"][upper] / wide["gflops"][lower]).median())
            half = np.nan
            if len(each) > 1:
                half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
            ends = {"low": each.mean() - half, "high": each.mean() + half}
            head = {"knob": knob, "lower": lower, "upper": upper}
            rows.append({**head, "gain": each.mean(), **ends, "gflops_ratio": ratio})
    return pd.DataFrame(rows)


def front_scaling(table: "pd.DataFrame", cost: str = "gflops") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The front, cheapest first, with tokens a side; and how each knob goes along it.

    The second table: knob, smallest, largest (of the front), tau (Kendall's, with cost; NaN for a knob that
    does not change).
    """
    import pandas as pd
    from scipy import stats

    from rfdetr.search import pareto

    best = knobs.with_side(pareto.front(table.dropna(subset=["AP"]), cost=cost)).reset_index(drop=True)
    rows = []
    for knob in ("side", *knobs.KNOBS):
        varies = best[knob].nunique() > 1
        tau = stats.kendalltau(best[cost], best[knob])[0] if varies else np.nan
        rows.append({"knob": knob, "smallest": best[knob].min(), "largest": best[knob].max(), "tau": tau})
    return best, pd.DataFrame(rows)


def spread(best: "pd.DataFrame", count: int = 8) -> "pd.DataFrame":
    """`count` rows of a table from its first to its last."""
    chosen = np.unique(np.linspace(0, len(best) - 1, min(count, len(best))).round().astype(int))
    return best.iloc[chosen].reset_index(drop=True)


def printed_families() -> "pd.DataFrame":
    """Tables 7 and 8 beside each other: size; side (tokens a side), decoder_layers and queries of the
    detector, and the same with `_seg` of the segmenter.
    """
    found = []
    for number in (7, 8):
        table = tables.table(number)
        found.append(
            table.assign(side=table["resolution"] // table["patch_size"])[
                ["size", "side", "windows", "decoder_layers", "queries"]
            ]
        )
    return found[0].merge(found[1], on="size", suffixes=("", "_seg"))


def printed_queries_slope() -> dict[str, Any]:
    """The printed regression of objects per image on queries (Table 17) with its 95 % interval: slope, low,
    high, r_squared, p_value.
    """
    from scipy import stats

    from rfdetr.paper.arithmetic.characteristics import DATASETS

    row = tables.find_row(17, relationship="Average Objects per Image vs Number of Queries")
    slope, error = float(row["slope"]), float(row["std_error"])
    half = float(stats.t.ppf(0.975, DATASETS - 2)) * error
    ends = {"slope": slope, "low": slope - half, "high": slope + half}
    return {
        **ends,
        "r_squared": float(row["r_squared"]),
        "p_value": float(row["p_value"]),
        "points": DATASETS,
    }


def queries_slope(table: "pd.DataFrame") -> dict[str, Any]:
    """The same regression on the domains of the kept study: objects_per_image on queries.

    table: from `ch09_analysis.queries_and_objects`. As `regression`.
    """
    return regression(table["queries"], table["objects_per_image"])


def queries_per_doubling(table: "pd.DataFrame") -> dict[str, Any]:
    """Queries chosen, regressed on the binary logarithm of the objects per image, which one domain of many
    objects rules less; as `regression`, and tau (Kendall's), which no outlier rules.
    """
    from scipy import stats

    table = table[table["objects_per_image"] > 0]
    x, y = np.log2(table["objects_per_image"].to_numpy(dtype=float)), table["queries"].to_numpy(dtype=float)
    varies = len(table) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0
    return {**regression(x, y), "tau": float(stats.kendalltau(x, y)[0]) if varies else np.nan}


def regression(x: Any, y: Any) -> dict[str, Any]:
    """y on x by least squares, one point per domain: slope, low, high (95 %, Student), r_squared, p_value and
    points. All NaN where three different points are missing; no interval and no p below `FEW` points.
    """
    from scipy import stats

    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    found = dict.fromkeys(("slope", "low", "high", "r_squared", "p_value"), np.nan) | {"points": len(x)}
    if len(x) < 3 or np.ptp(x) == 0:
        return found
    fit = stats.linregress(x, y)
    found |= {"slope": float(fit.slope), "r_squared": float(fit.rvalue**2)}
    if len(x) >= FEW:
        half = float(stats.t.ppf(0.975, len(x) - 2)) * float(fit.stderr)
        found |= {"low": found["slope"] - half, "high": found["slope"] + half, "p_value": float(fit.pvalue)}
    return found


def low_latency_queries(tests: "pd.DataFrame", fixed: dict[str, str], target: str = "N") -> "pd.DataFrame":
    """Queries chosen for the smallest target on every domain, and by the base: domain, queries, base.

    tests: of the kept study; queries are the mean over seeds.
    """
    own = tests[(tests["kind"] == "nas") & (tests["target"] == target)]
    queries = own["arch"].map(lambda name: Arch.parse(name).queries)
    mean = queries.groupby(own["domain"], sort=False).mean().rename("queries").reset_index()
    return mean.assign(base=Arch.parse(fixed[target]).queries)
