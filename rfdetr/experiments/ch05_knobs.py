"""What the knobs do to AP, read from a finished search: on the balanced nominal grid, and by the token law.

Source: Section 3 and Appendix L (v1 H). Two nominal points of a grid can be one sub-network, so a table of
different sub-networks is no balanced design; shares of variance are computed on the nominal grid, where every
value of a knob meets every value of the others.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import Arch, SearchSpace, effective

if TYPE_CHECKING:
    import pandas as pd

KNOBS = list(Arch.KNOBS)


def nominal_table(table: "pd.DataFrame", space: SearchSpace) -> "pd.DataFrame":
    """One row per nominal point: the five nominal knobs, and side, AP and gflops of its sub-network.

    table: one row per different sub-network with the five knobs, AP and gflops.
    """
    import pandas as pd

    points = list(space.nominal())
    archs = [effective(*point) for point in points]
    found = pd.DataFrame([arch.to_dict() for arch in archs]).merge(
        table[[*KNOBS, "AP", "gflops"]].drop_duplicates(KNOBS), on=KNOBS, how="left"
    )
    nominal = pd.DataFrame(points, columns=KNOBS)
    return nominal.assign(side=[arch.grid for arch in archs], AP=found["AP"], gflops=found["gflops"])


def importance(nominal: "pd.DataFrame", accuracy: str = "AP") -> "pd.DataFrame":
    """Part of the variance of AP over a balanced grid that one knob's values alone explain: knob, share.

    nominal: from `nominal_table`. What the shares leave of 1 are interactions of knobs.
    """
    import pandas as pd

    total = nominal[accuracy].var(ddof=0)
    rows = []
    for knob in KNOBS:
        between = nominal.groupby(knob)[accuracy].mean().var(ddof=0)
        rows.append({"knob": knob, "share": between / total if total > 0 else np.nan})
    return pd.DataFrame(rows).sort_values("share", ascending=False, ignore_index=True)


def with_side(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with `side`, the tokens a side."""
    return table.assign(side=table["resolution"] // table["patch_size"])


def explained(table: "pd.DataFrame", columns: list[str], accuracy: str = "AP") -> float:
    """R² of AP by its mean over rows that agree in `columns`; NaN where AP does not vary."""
    means = table.groupby(columns)[accuracy].transform("mean")
    total = float(((table[accuracy] - table[accuracy].mean()) ** 2).sum())
    return 1 - float(((table[accuracy] - means) ** 2).sum()) / total if total > 0 else float("nan")


def law(table: "pd.DataFrame") -> "pd.DataFrame":
    """How much of AP the tokens a side explain, and what stands in their place. Columns: explained by,
    r_squared.
    """
    import pandas as pd

    full = with_side(table)
    rest = ["decoder_layers", "queries"]
    rows = [
        ("tokens a side, layers, queries", explained(full, ["side", *rest])),
        ("the same and windows", explained(full, ["side", "windows", *rest])),
        ("resolution, layers, queries", explained(full, ["resolution", *rest])),
        ("patch size, layers, queries", explained(full, ["patch_size", *rest])),
        ("tokens a side alone", explained(full, ["side"])),
    ]
    return pd.DataFrame(rows, columns=["explained by", "r_squared"])


def spread_at_equal_tokens(table: "pd.DataFrame") -> "pd.Series":
    """Largest minus smallest AP among sub-networks with equal tokens, windows, layers and queries but other
    resolution and patch size; one value per such group of two and more.
    """
    groups = with_side(table).groupby(["side", "windows", "decoder_layers", "queries"])["AP"]
    return (groups.max() - groups.min())[groups.size() > 1]


def patch_steps(nominal: "pd.DataFrame") -> "pd.DataFrame":
    """Every step to the next smaller patch size, other nominal knobs equal: gain (AP), tokens_ratio,
    gflops_ratio (smaller patch over larger).
    """
    import pandas as pd

    others = [knob for knob in KNOBS if knob != "patch_size"]
    ordered = nominal.sort_values("patch_size", ascending=False)
    by = ordered.groupby(others)
    frame = pd.DataFrame(
        {
            "gain": ordered["AP"] - by["AP"].shift(),
            "tokens_ratio": (ordered["side"] / by["side"].shift()) ** 2,
            "gflops_ratio": ordered["gflops"] / by["gflops"].shift(),
        }
    )
    return frame.dropna().reset_index(drop=True)


@dataclass(frozen=True)
class Change:
    """Mean change of AP with its 95 % interval, and the median ratio of operations, over `settings`."""

    gain: float
    low: float
    high: float
    gflops_ratio: float
    settings: int


def window_change(table: "pd.DataFrame", many: int = 4, few: int = 1) -> Change:
    """From `few` windows a side to `many` at the same resolution, patch size, layers and queries.

    The mean of each encoder setting counts as one value; the interval is Student's over these.
    """
    from scipy import stats

    index = ["resolution", "patch_size", "decoder_layers", "queries"]
    wide = table[table["windows"].isin([few, many])].pivot(
        index=index, columns="windows", values=["AP", "gflops"]
    )
    wide = wide.dropna()
    gains = (wide["AP"][many] - wide["AP"][few]).groupby(level=["resolution", "patch_size"]).mean()
    ratio = float((wide["gflops"][many] / wide["gflops"][few]).median()) if len(wide) else float("nan")
    count = len(gains)
    half = stats.t.ppf(0.975, count - 1) * gains.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    mean = float(gains.mean()) if count else float("nan")
    return Change(mean, mean - float(half), mean + float(half), ratio, count)
