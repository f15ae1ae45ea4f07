"""Our exported graph against those of other exporters, same weights, timed in turns: the kept ratios."""

from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.experiments.base import kept

if TYPE_CHECKING:
    import pandas as pd

NAME = "graph-ratio"
COMMAND = (
    "python benchmarks/bench_onnx.py --preset nano seg-nano --runtimes onnxruntime openvino"
    f" --published PYTHON --out results/{NAME}"
)
NOISE = 0.03
"""Ratios this far from 1 are not told from it: what medians of neighbouring passes repeat to on a machine
that other work shares.
"""


def loaded(root: Path | None = None) -> kept.Kept | None:
    """The kept ratios, or None where they are not in this copy."""
    return kept.find(NAME, root)


def said(ratios: "pd.DataFrame") -> str:
    """Whether our graph is at least as fast as each of the others, in sentences. ratios: of the kept
    result.
    """
    return " ".join(_said(str(name), group) for name, group in ratios.groupby("against", sort=False))


def _said(against: str, ratios: "pd.DataFrame") -> str:
    slower = ratios[ratios.ratio < 1 - NOISE]
    faster = ratios[ratios.ratio > 1 + NOISE]
    text = (
        f"The graph of {against} takes {ratios.ratio.min():.2f} to {ratios.ratio.max():.2f} times as long as"
        f" ours over {len(ratios)} settings: {len(faster)} beyond {100 * NOISE:.0f} % in favour of ours,"
        f" {len(slower)} against it"
    )
    if slower.empty:
        return text + ", the rest within."
    names = ", ".join(f"{r.preset} in {r.runtime}, threads: {r.threads}" for r in slower.itertuples())
    return f"{text} ({names}), the rest within."


def origin(result: kept.Kept) -> str:
    """Where the ratios come from, in a sentence for the page."""
    return result.origin.replace(f"python -m rfdetr results {NAME}", COMMAND)
