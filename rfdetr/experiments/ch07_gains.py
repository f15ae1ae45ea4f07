"""What a runtime and a precision gain on a processor, and how that grows with the size of a network."""

from typing import TYPE_CHECKING, Any

from rfdetr.experiments.ch07_orders import kendall
from rfdetr.experiments.ch07_timed import both_ways, gflops_of

if TYPE_CHECKING:
    import pandas as pd

    from rfdetr.experiments.base.kept import Kept

BASE = ("onnxruntime", "fp32")
"""What everything is held against."""


def gains(result: "Kept", protocol: str = "buffered", threads: int = 1) -> "pd.DataFrame":
    """Speed-up over ONNX Runtime in FP32, one row per model and other runtime or precision.

    Columns: model, way ("openvino int8"), gflops, base_ms, ms, gain, built (precision as read back from the
    loaded graph), noisy (whether one of the two timings was marked so). Empty where nothing else was timed.
    """
    import pandas as pd

    models = result.tables["models"]
    part = models[(models.protocol == protocol) & (models.threads == threads)]
    base = part[(part.runtime == BASE[0]) & (part.asked == BASE[1])].set_index("model")
    rows: list[dict[str, Any]] = []
    others = part[~((part.runtime == BASE[0]) & (part.asked == BASE[1]))]
    times = {str(model): float(ms) for model, ms in base["median_ms"].items()}
    noisy = {str(model): bool(share) for model, share in base["noisy"].items()}
    row: Any
    for row in others.itertuples():
        if row.model in times:
            from_ms = times[row.model]
            rows.append(
                {
                    "model": row.model,
                    "way": f"{row.runtime} {row.asked}",
                    "gflops": gflops_of(str(row.model)),
                    "base_ms": from_ms,
                    "ms": row.median_ms,
                    "gain": from_ms / row.median_ms,
                    "built": row.precision,
                    "noisy": bool(row.noisy or noisy[row.model]),
                }
            )
    columns = ["model", "way", "gflops", "base_ms", "ms", "gain", "built", "noisy"]
    return pd.DataFrame(rows, columns=columns)


def beside(found: "pd.DataFrame") -> "pd.DataFrame":
    """One row per model, cheapest first: model, gflops, base_ms, and the gain of each way. found: from
    `gains`.
    """
    wide = found.pivot_table(index=["model", "gflops", "base_ms"], columns="way", values="gain", sort=False)
    return wide.reset_index().sort_values("gflops", kind="stable", ignore_index=True)


def growth(found: "pd.DataFrame") -> "pd.DataFrame":
    """Whether larger networks gain more: one row per way.

    Columns: way, models, least, median, most (of the gain), tau (Kendall, gain with GFLOPs), low, high (95 %
    over resampled models), p, resolved, built.
    """
    import pandas as pd

    rows = []
    for way, part in found.groupby("way", sort=False):
        order = kendall(part.gain.to_numpy(float), part.gflops.to_numpy(float))
        spread = {"least": part.gain.min(), "median": part.gain.median(), "most": part.gain.max()}
        built = ", ".join(sorted(set(map(str, part.built))))
        rows.append({"way": way, **spread, **order, "built": built})
    return pd.DataFrame(rows)


def said(found: "pd.DataFrame", model: str) -> str:
    """What is gained at one size, whether it grows, and whether the precision asked for was the one built.

    found: from `gains`. model: e.g. "nano".
    """
    grown = growth(found).set_index("way")
    one = found[found.model == model].set_index("way")
    sentences = []
    if len(one):
        each = ", ".join(f"{way} {gain:.2f}" for way, gain in one.gain.items())
        sentences.append(f"Times as fast as ONNX Runtime in FP32 at the size of {model}: {each}.")
    for way, row in grown.iterrows():
        size = f"Over {row.models} models {way} gains {row.least:.2f} to {row.most:.2f}"
        if not row.resolved:
            trend = "whether larger ones gain more is not resolved"
        else:
            trend = "larger ones gain more" if row.tau > 0 else "larger ones gain less"
        sentences.append(f"{size}; {trend} (tau with GFLOPs {row.tau:+.2f}, p {row.p:.2g}).")
    sentences.append(_built(found))
    return " ".join(sentences)


def _built(found: "pd.DataFrame") -> str:
    """Whether the graphs were executed in the precision that was asked for: on a processor without
    instructions for it a runtime takes another, and parts of a graph may have none.
    """
    other = found[found.way.str.split().str[-1] != found.built]
    if other.empty:
        return "Every graph was executed in the precision that was asked for, as read back after loading."
    text = (
        f"Of {len(found)} graphs {len(found) - len(other)} were executed in the precision that was asked for."
    )
    mixed, rest = other[other.built == "mixed"], other[other.built != "mixed"]
    if len(mixed):
        names = ", ".join(f"{m} ({way})" for m, way in zip(mixed.model, mixed.way, strict=True))
        text += f" In these less than nine tenths of the products were: {names}."
    if len(rest):
        kinds = sorted({f"{way} as {built}" for way, built in zip(rest.way, rest.built, strict=True)})
        text += (
            f" Executed in another one: {', '.join(kinds)}. A processor without instructions for a precision"
            " has nothing to gain from it."
        )
    return text


def inside_and_outside(result: "Kept") -> "pd.DataFrame | None":
    """What suppression over all pairs of box and class (as in published accuracies) costs over that of the
    best class of each box (as deployed); both are in the file. None where no model was timed both ways.

    Columns: model, runtime, asked, threads, protocol, deployed_ms, evaluation_ms, added (%).
    """
    models = result.tables["models"]
    keys = ["runtime", "asked", "threads", "protocol"]
    both = both_ways(models, "evaluation", keys)
    if both.empty:
        return None
    return both[["model", *keys]].assign(
        deployed_ms=both.median_ms,
        evaluation_ms=both.median_ms_other,
        added=100 * (both.median_ms_other / both.median_ms - 1),
    )
