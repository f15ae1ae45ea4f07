"""Claims about the configurations of Tables 7 and 8, from the printed numbers."""

from typing import TYPE_CHECKING, Any

from rfdetr.paper.arithmetic.cells import cell
from rfdetr.paper.verdicts import Verdict, agree

if TYPE_CHECKING:
    import pandas as pd

KNOBS = ("resolution", "patch_size", "windows", "decoder_layers", "queries")


def c025(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Verdict:
    """One training run has one backbone width and one set of heads."""
    runs = {("detection", b) for b in t7["backbone"]} | {("segmentation", b) for b in t8["backbone"]}
    return Verdict(
        agree(len(runs) == 1),
        {"trainings at least": len(runs)},
        "Weights of different width, with and without a mask head, cannot come from one run.",
    )


def _pareto(configurations: "pd.DataFrame", *tables: "pd.DataFrame", model: str) -> Verdict:
    """Whether the configurations dominate each other nowhere, by printed AP and latency."""
    import pandas as pd

    every = pd.concat(tables)
    every = every[(every["model"] == model) & every["size"].isin(configurations["size"])]
    own = every.drop_duplicates("size").sort_values("latency_ms")
    rising = bool(own["ap"].is_monotonic_increasing and own["ap"].is_unique)
    return Verdict(
        agree(rising and len(own) == len(configurations)),
        {"sizes": len(own), "AP by latency": own["ap"].tolist()},
        "Among themselves: each is slower and more accurate than the one before. Whether another point of the"
        " grid is above them needs the supernet's weights.",
    )


def c120(t2: "pd.DataFrame", t7: "pd.DataFrame", t12: "pd.DataFrame") -> Verdict:
    """The seven detection configurations."""
    return _pareto(t7, t2, t12, model="RF-DETR")


def c121(t3: "pd.DataFrame", t8: "pd.DataFrame", t13: "pd.DataFrame") -> Verdict:
    """The seven segmentation configurations."""
    return _pareto(t8, t3, t13, model="RF-DETR-Seg")


def c164(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Verdict:
    """A knob is used by a family if it has more than one value in it."""
    fixed = [
        f"{knob.replace('_', ' ')} ({family})"
        for family, table in (("detection", t7), ("segmentation", t8))
        for knob in KNOBS
        if table[knob].nunique() < 2
    ]
    return Verdict(
        agree(not fixed),
        {"knobs with a single value": fixed},
        "A knob is taken as used by a family if the family has more than one value of it.",
    )


def c165(t7: "pd.DataFrame", t8: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """One patch size per family."""
    found = {
        "dinov2_s": sorted(set(t7.loc[t7["backbone"] == "DINOv2-S", "patch_size"].tolist())),
        "dinov2_b": sorted(set(t7.loc[t7["backbone"] == "DINOv2-B", "patch_size"].tolist())),
        "seg": sorted(set(t8["patch_size"].tolist())),
    }
    return Verdict(
        agree(all(found[family] == [values[family]] for family in found)),
        found,
        "True up to 2XL; both Max configurations have smaller patches, which v1 excludes in words.",
    )


def c166(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Verdict:
    """More than half of each table has two windows."""
    two = {"detection": int((t7["windows"] == 2).sum()), "segmentation": int((t8["windows"] == 2).sum())}
    holds = 2 * two["detection"] > len(t7) and 2 * two["segmentation"] > len(t8)
    return Verdict(agree(holds), two | {"of": len(t7)}, "“Usually” is taken as more than half.")


def c167(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Verdict:
    """Queries: one value in detection, rising in segmentation; layers rise in both."""
    holds = t7["queries"].nunique() == 1 and t8["queries"].nunique() > 1
    holds &= bool(t8["queries"].is_monotonic_increasing)
    holds &= bool(
        t7["decoder_layers"].is_monotonic_increasing and t8["decoder_layers"].is_monotonic_increasing
    )
    return Verdict(
        agree(holds and t7["decoder_layers"].nunique() > 1 and t8["decoder_layers"].nunique() > 1),
        {"detection": t7["queries"].tolist(), "segmentation": t8["queries"].tolist()},
        "Tables 7 and 8, in their order.",
    )


def c169(t7: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """640 over the named patch sizes, rounded, against the spatial locations of N, S and M."""
    own = [round(values["resolution"] / patch) for patch in values["patches"]]
    sizes = t7.set_index("size").loc[["N", "S", "M"]]
    printed = (sizes["resolution"] // sizes["patch_size"]).tolist()
    return Verdict(
        agree(own == printed),
        {"640 over patch, rounded": own, "N, S, M": printed},
        "The named patch sizes do not give the locations that they are said to give; 20 instead of 21 would.",
    )


def c171(t8: "pd.DataFrame", values: dict[str, Any]) -> Verdict:
    """A quarter of the resolution, and the spatial locations, of the first three rows."""
    first = t8.head(3)
    features = (first["resolution"] / 4).tolist()
    locations = (first["resolution"] / first["patch_size"]).tolist()
    return Verdict(
        agree(features == values["features"] and locations == values["locations"]),
        {"features": features, "locations": locations},
        "The rule leaves half a pixel at Max (I05).",
    )


def c172(t7: "pd.DataFrame", t8: "pd.DataFrame") -> Verdict:
    """Both mediums have the same number of locations a side."""
    grids = []
    for table in (t7, t8):
        grids.append(cell(table, "resolution", size="M") / cell(table, "patch_size", size="M"))
    return Verdict(agree(grids[0] == grids[1]), {"locations": grids}, "Tables 7 and 8.")
