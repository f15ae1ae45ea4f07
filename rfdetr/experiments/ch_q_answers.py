"""Questions that readers ask: numbers from kept results, from the printed tables and from counting.

Everything here takes seconds; what a training would have to say comes from `results/`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rfdetr.arch import PRESETS, SEARCH_GRID, TRAINING_GRID, Arch
from rfdetr.benchmark.flops import analytic, params_by_part
from rfdetr.experiments.ch00_introduction import supernet_config
from rfdetr.model.config import preset_config
from rfdetr.paper import tables
from rfdetr.search.pareto import front

if TYPE_CHECKING:
    import pandas as pd

OTHERS = {knob: [other for other in Arch.KNOBS if other != knob] for knob in Arch.KNOBS}
"""For each knob the other four."""


PARTS = {
    "backbone": ("windowed attention", "global attention", "backbone MLP"),
    "projector": ("projector",),
    "decoder": ("decoder position", "decoder self-attention", "decoder cross-attention", "decoder FFN"),
}
"""Parts that hold nearly all weights, and the stages in which they are used."""


def weights_used() -> "pd.DataFrame":
    """How much of the paper's supernet a sub-network uses: name, arch, backbone_m, rest_m (millions of
    weights in use), share (of the largest sub-network's).
    """
    import pandas as pd

    config = supernet_config()
    names = {"smallest": SEARCH_GRID.smallest, "largest": SEARCH_GRID.largest}
    archs = {**names, **{name: PRESETS[name].arch for name in ("nano", "medium")}}
    rows = []
    for name, arch in archs.items():
        parts = params_by_part(config, arch, groups=1)
        backbone = sum(value for part, value in parts.items() if part.startswith(("backbone", "patch")))
        rows.append((name, arch.id, backbone / 1e6, (sum(parts.values()) - backbone) / 1e6))
    df = pd.DataFrame(rows, columns=["name", "arch", "backbone_m", "rest_m"])
    total = df.backbone_m + df.rest_m
    return df.assign(share=total / total.max()).sort_values("share", ignore_index=True)


def exposure(epochs: int) -> dict[str, float]:
    """What `epochs` of training mean for one encoder setting of the paper's training grid.

    Keys: settings (points of the grid), each (epochs that draw one of them), epochs.
    """
    return {"epochs": epochs, "settings": len(TRAINING_GRID), "each": epochs / len(TRAINING_GRID)}


def other_trainings(networks: "pd.DataFrame") -> "pd.DataFrame":
    """The ranking study's sub-networks as inherited and as trained otherwise, same architectures and seeds.

    networks   of `results/ranking`
    Columns: kind (`tuned` further, trained `alone`, alone for a `share` of the supernet's cost), steps (their
    own), architectures, updates (mean number of the supernet's steps with their encoder setting), AP,
    inherited, difference (means over architectures).
    """
    import pandas as pd

    keys = ["arch", "seed"]
    inherited = networks.loc[networks["kind"] == "inherited", [*keys, "updates", "AP"]]
    rows = []
    for kind, part in networks[networks["kind"] != "inherited"].groupby("kind"):
        both = part[[*keys, "steps", "AP"]].merge(inherited, on=keys, suffixes=("", "_before"))
        counts = float(both["steps"].mean()), both["arch"].nunique(), float(both["updates"].mean())
        rows.append((kind, *counts, float(both["AP"].mean()), float(both["AP_before"].mean())))
    names = ["kind", "steps", "architectures", "updates", "AP", "inherited"]
    df = pd.DataFrame(rows, columns=names)
    return df.assign(difference=df["AP"] - df["inherited"]).sort_values("steps", ignore_index=True)


def by_depth(table: "pd.DataFrame") -> "pd.DataFrame":
    """The encoder setting of a search's best sub-network at every depth, with its queries.

    Columns: decoder_layers, AP, gflops, lost (AP below the deepest), saved (share of its operations).
    """
    best = table.iloc[int(table["AP"].to_numpy().argmax())]
    same = np.logical_and.reduce([table[knob] == best[knob] for knob in OTHERS["decoder_layers"]])
    rows = table[same].sort_values("decoder_layers", ignore_index=True)
    last = rows.iloc[-1]
    df = rows[["decoder_layers", "AP", "gflops"]]
    return df.assign(lost=last["AP"] - df["AP"], saved=1 - df["gflops"] / last["gflops"])


def by_queries(table: "pd.DataFrame") -> "pd.DataFrame":
    """The best sub-network of a search with other numbers of queries: queries, AP, gflops, saved."""
    best = table.iloc[int(table["AP"].to_numpy().argmax())]
    same = np.logical_and.reduce([table[knob] == best[knob] for knob in OTHERS["queries"]])
    rows = table[same].sort_values("queries", ascending=False, ignore_index=True)
    return rows[["queries", "AP", "gflops"]].assign(saved=1 - rows["gflops"] / rows["gflops"].iloc[0])


def one_knob(table: "pd.DataFrame", limits: int = 12) -> "pd.DataFrame":
    """What a search over one knob alone reaches, the other four fixed at their best common values.

    Compared at `limits` costs spread evenly (in the logarithm) over the front of all five knobs. For each
    knob the other four are those with the highest mean AP over the costs; a cost that nothing reaches counts
    as AP 0. Columns: knob, values (of the knob there), fixed (the others), AP, lost (below the whole front).
    """
    import pandas as pd

    best = front(table, cost="gflops")
    costs = np.geomspace(best["gflops"].min(), best["gflops"].max(), limits)
    whole = _reached(best, costs).mean()
    rows = []
    for knob, others in OTHERS.items():
        parts = [part for _, part in table.groupby(others)]
        means = [float(_reached(part, costs).mean()) for part in parts]
        chosen = int(np.argmax(means))
        part = parts[chosen]
        fixed = ", ".join(f"{name.replace('_', ' ')} {part[name].iloc[0]}" for name in others)
        rows.append((knob, part[knob].nunique(), fixed, means[chosen], whole - means[chosen]))
    return pd.DataFrame(rows, columns=["knob", "values", "fixed", "AP", "lost"])


def _reached(rows: "pd.DataFrame", costs: np.ndarray) -> np.ndarray:
    """Best AP at each cost or below; 0 where nothing is that cheap."""
    ordered = rows.sort_values("gflops")
    best = np.r_[0.0, np.maximum.accumulate(ordered["AP"].to_numpy())]
    return np.asarray(best[np.searchsorted(ordered["gflops"].to_numpy(), costs * (1 + 1e-9), side="right")])


def against(family: str = "D-FINE") -> "pd.DataFrame":
    """RF-DETR against another family at its printed latencies, AP interpolated between sizes (Tables 2 and
    12): size, latency_ms, AP, ours, difference. Sizes outside RF-DETR's latencies are left out.
    """
    import pandas as pd

    printed = pd.concat([tables.table(2), tables.table(12)]).drop_duplicates(["model", "size"])
    printed = printed[printed["latency_runtime"] == "tensorrt"].dropna(subset=["latency_ms", "ap"])
    ours = printed[printed["model"] == "RF-DETR"].sort_values("latency_ms")
    theirs = printed[printed["model"] == family].sort_values("latency_ms")
    inside = theirs["latency_ms"].between(ours["latency_ms"].min(), ours["latency_ms"].max())
    theirs = theirs[inside]
    level = np.interp(theirs["latency_ms"], ours["latency_ms"], ours["ap"])
    df = theirs[["size", "latency_ms"]].assign(AP=theirs["ap"], ours=level)
    return df.assign(difference=df.ours - df.AP).reset_index(drop=True)


def trainings() -> "pd.DataFrame":
    """Printed sizes per family in Tables 2 and 12: family, sizes."""
    import pandas as pd

    printed = pd.concat([tables.table(2), tables.table(12)]).drop_duplicates(["model", "size"])
    counts = printed.groupby("model", sort=False)["size"].nunique()
    return counts.rename("sizes").rename_axis("family").reset_index()


def hidden_attention(names: Sequence[str] = ("nano", "small", "medium", "large")) -> "pd.DataFrame":
    """What a count without attention leaves out: size, tokens, gflops, hidden (share)."""
    import pandas as pd

    rows = []
    for name in names:
        counted = analytic(preset_config(name), PRESETS[name].arch)
        hidden = 1 - counted.gflops_no_attention / counted.gflops
        rows.append((name, PRESETS[name].arch.tokens, counted.gflops, hidden))
    return pd.DataFrame(rows, columns=["size", "tokens", "gflops", "hidden"])


def equal_operations(timed: "pd.DataFrame", table: "pd.DataFrame", within: float = 0.02) -> "pd.DataFrame":
    """Pairs of timed sub-networks with the same operations: how far their latencies are apart.

    timed   of `results/full-search`; the fastest round of each counts. Neighbours in the order of operations
    that differ by at most `within` are a pair. Columns: first, second (ids), gflops, ratio (slower to
    faster), tokens_ratio (more tokens to fewer).
    """
    import pandas as pd

    rows = timed.merge(table[[*Arch.KNOBS, "gflops"]], on=list(Arch.KNOBS)).sort_values("gflops")
    gflops, ms = rows["gflops"].to_numpy(dtype=float), rows["latency_low_ms"].to_numpy(dtype=float)
    tokens = (rows["resolution"] / rows["patch_size"]).to_numpy(dtype=float) ** 2
    first = np.flatnonzero(gflops[1:] <= gflops[:-1] * (1 + within))

    def apart(values: np.ndarray) -> np.ndarray:
        one, other = values[first], values[first + 1]
        return np.asarray(np.maximum(one, other) / np.minimum(one, other))

    names = rows["arch"].to_numpy()
    pairs = {"first": names[first], "second": names[first + 1], "gflops": gflops[first]}
    return pd.DataFrame({**pairs, "ratio": apart(ms), "tokens_ratio": apart(tokens)})


def reuse(name: str = "nano") -> "pd.DataFrame":
    """How often a picture uses each weight: part, million weights, uses (multiplications per weight).

    Attention, which multiplies no weights, is left out.
    """
    import pandas as pd

    config, arch = preset_config(name), PRESETS[name].arch
    counted, parts = analytic(config, arch), params_by_part(config, arch, groups=1)
    bare = {s: v - counted.attention_by_stage.get(s, 0.0) for s, v in counted.by_stage.items()}
    rows = []
    for part, stages in PARTS.items():
        weights = sum(value for name, value in parts.items() if name.startswith(part)) / 1e6
        rows.append((part, weights, sum(bare[stage] for stage in stages) / 2))
    df = pd.DataFrame(rows, columns=["part", "weights_m", "gmacs"])
    return df.assign(uses=1e3 * df.gmacs / df.weights_m)


def alike(table: "pd.DataFrame", low: float) -> dict[str, float]:
    """Sub-networks whose AP is not below `low`, the lower end of the best one's interval.

    Keys: networks, all, cheapest (GFLOPs), best (GFLOPs of the best).
    """
    near = table[table["AP"] >= low]
    return {
        "networks": len(near),
        "all": len(table),
        "cheapest": float(near["gflops"].min()),
        "best": float(table["gflops"].to_numpy()[table["AP"].to_numpy().argmax()]),
    }
