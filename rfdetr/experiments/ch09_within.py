"""Sub-networks of one supernet compared on the kept domains: a patch size that training never drew, decoder
layers, and smaller patches.

Read off the grids of all sub-networks that the benchmark keeps of every domain (`ch09_collect`); nothing is
trained or tested for it. Source: v1 Appendix H, v2 Appendix F (patch sizes), Appendix B (layers), Section 3
(smaller patches).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch, effective
from rfdetr.experiments.ch09_analysis import between, grid_of, seeds_of
from rfdetr.experiments.ch09_domains import SIZES
from rfdetr.experiments.ch09_intervals import Paired, on_domain, over_domains

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

_REST = ["side", "windows", "decoder_layers", "queries"]


def _archs(result: "Kept") -> "pd.DataFrame":
    """Knobs, tokens a side and place of every sub-network."""
    import pandas as pd

    archs = [Arch.parse(name) for name in result.tables["grid"]["arch"]]
    rows = [{**arch.to_dict(), "side": arch.grid, "place": place} for place, arch in enumerate(archs)]
    return pd.DataFrame(rows)


def unseen_pairs(result: "Kept") -> "pd.DataFrame":
    """Every sub-network of a patch size that training did not draw, beside each that training drew with as
    many tokens a side and all else equal: side, patch_size, twin_patch, pixels (ratio of the resolutions),
    place, twin_place.
    """
    space = SIZES[result.record["provenance"]["profile"]].training
    every, seen = _archs(result), set(space.triples())
    drawn = [
        key in seen for key in zip(every["resolution"], every["patch_size"], every["windows"], strict=True)
    ]
    unseen = every[~every["patch_size"].isin(space.patch_sizes)]
    pairs = unseen.merge(every[drawn], on=_REST, suffixes=("", "_twin"))
    names = {"patch_size_twin": "twin_patch", "place_twin": "twin_place"}
    pairs = pairs.assign(pixels=pairs["resolution"] / pairs["resolution_twin"]).rename(columns=names)
    columns = ["side", "patch_size", "twin_patch", "pixels", "place", "twin_place"]
    return pairs[columns].sort_values(["side", "place"], ignore_index=True)


def _each(result: "Kept", first: np.ndarray, second: np.ndarray) -> dict[str, Paired]:
    """Domain -> mean AP of the first sub-networks minus that of the second."""
    return {
        domain: between(result, domain, dict.fromkeys(seeds, (first, second)))
        for domain, seeds in seeds_of(result).items()
    }


def unseen_by_domain(result: "Kept") -> "pd.DataFrame":
    """AP of the unseen patch size minus that of its twins, mean over pairs: domain (the last is "all"),
    pairs, and the fields of `Estimate.row`. Empty where the search has no such pair.
    """
    pairs = unseen_pairs(result)
    return _by_domain(result, {"pairs": len(pairs)}, pairs["place"], pairs["twin_place"])


def _by_domain(result: "Kept", head: dict[str, Any], first: Any, second: Any) -> "pd.DataFrame":
    import pandas as pd

    each = _each(result, np.asarray(first), np.asarray(second)) if len(first) else {}
    rows: list[dict[str, Any]] = [
        {"domain": domain, **head, **on_domain(paired).row()} for domain, paired in each.items()
    ]
    if each:
        rows.append({"domain": "all", **head, **over_domains(each).row()})
    columns = ["domain", *head, "difference", "low", "high", "over", "clear", "resolved"]
    return pd.DataFrame(rows, columns=columns)


def unseen_by_side(result: "Kept") -> "pd.DataFrame":
    """The same by tokens a side, mean over domains: side, patch_size, twins (patch sizes), pixels (smallest
    and largest ratio of the resolutions), domains, and the fields of `Estimate.row`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for (side, patch), part in unseen_pairs(result).groupby(["side", "patch_size"]):
        each = _each(result, part["place"].to_numpy(), part["twin_place"].to_numpy())
        if each:
            twins = ", ".join(map(str, sorted(part["twin_patch"].unique())))
            ratios = " to ".join(
                f"{value:.2f}" for value in dict.fromkeys([part["pixels"].min(), part["pixels"].max()])
            )
            head = {"side": side, "patch_size": patch, "twins": twins, "pixels": ratios}
            rows.append({**head, "domains": len(each), **over_domains(each).row()})
    columns = ["side", "patch_size", "twins", "pixels", "domains", "difference", "low", "high", "over"]
    return pd.DataFrame(rows, columns=[*columns, "clear", "resolved"])


def depths(result: "Kept") -> "pd.DataFrame":
    """AP by decoder layers on every domain, mean over encoder settings and seeds, with the most queries:
    domain, then one column per number of layers (named by it).
    """
    import pandas as pd

    places = _by_depth(result)
    rows = []
    for domain, seeds in seeds_of(result).items():
        ap = np.mean([grid_of(result, "test", domain, seed) for seed in seeds], axis=0)
        rows.append({"domain": domain, **{str(depth): ap[where].mean() for depth, where in places.items()}})
    return pd.DataFrame(rows, columns=["domain", *map(str, places)])


def depth_steps(result: "Kept") -> "pd.DataFrame":
    """What each further decoder layer adds with the most queries, on every domain and over all: domain (the
    last of a step is "all"), step ("0 to 1"), and the fields of `Estimate.row`.
    """
    import pandas as pd

    places = _by_depth(result)
    found = [
        _by_domain(result, {"step": f"{few} to {many}"}, places[many], places[few])
        for few, many in zip(places, list(places)[1:], strict=False)
    ]
    return pd.concat(found, ignore_index=True)


def _by_depth(result: "Kept") -> dict[int, np.ndarray]:
    """Layers -> places of the sub-networks with the most queries that each encoder setting has at every
    depth.
    """
    every = _archs(result)
    encoder = ["resolution", "patch_size", "windows"]
    most = every[every["queries"] == every.groupby(encoder)["queries"].transform("max")]
    whole = most.groupby(encoder)["decoder_layers"].transform("nunique") == most["decoder_layers"].nunique()
    ordered = most[whole].sort_values(encoder)
    layers, places = (ordered[name].to_numpy(dtype=int) for name in ("decoder_layers", "place"))
    return {int(depth): places[layers == depth] for depth in np.unique(layers)}


def smaller_patches(result: "Kept") -> "pd.DataFrame":
    """Steps to the next smaller patch size of the search grid that give more tokens, all other nominal knobs
    equal: AP after the step minus AP before. Columns: domain (the last is "all"), pairs, dearer (share of
    them with more operations), gflops_ratio (median), and the fields of `Estimate.row`.
    """
    space = SIZES[result.record["provenance"]["profile"]].search
    places = {name: place for place, name in enumerate(result.tables["grid"]["arch"])}
    patches = sorted(space.patch_sizes)
    pairs = []
    for point in space.nominal():
        if point[1] == patches[-1]:
            continue
        larger = (point[0], patches[patches.index(point[1]) + 1], *point[2:])
        one, other = effective(*point), effective(*larger)
        if one.grid > other.grid:
            pairs.append((places[one.id], places[other.id]))
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    gflops = result.tables["grid"]["gflops"].to_numpy()
    ratio = gflops[first] / gflops[second]
    head: dict[str, Any] = {"pairs": len(pairs), "dearer": np.nan, "gflops_ratio": np.nan}
    if pairs:
        head |= {"dearer": float((ratio > 1).mean()), "gflops_ratio": float(np.median(ratio))}
    return _by_domain(result, head, first, second)
