"""What the sets of the study `search-regret` have in common: which searches are replayed, a replay as a part,
and the accuracies of one encoder setting on few and on many images.

Source: Section 3 and Appendix A of the paper, whose search evaluates everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfdetr.arch import Arch
from rfdetr.experiments.base.parts import Part
from rfdetr.search import blocks, budget, replay
from rfdetr.search.grid import GridEvaluator, Pair, Triple
from rfdetr.search.matches import Matches

if TYPE_CHECKING:
    import pandas as pd

CERTAIN = ("token-rule", "token-rule-tenth")
"""Methods that draw nothing: one seed is all."""


def replays(
    name: str,
    call: str,
    common: Mapping[str, Any],
    needs: Sequence[str],
    budgets: Iterable[float],
    seeds: range,
) -> list[Part]:
    """One part `NAME-METHOD-SEED-BUDGET` per budget, method and seed, small budgets first.

    call: function of a part; it gets `common` and `budget`, `sampler`, `seed`
    """
    return [
        Part(
            f"{name}-{sampler}-{seed}-{cut:g}",
            call,
            {**common, "budget": cut, "sampler": sampler, "seed": seed},
            tuple(needs),
        )
        for cut in budgets
        for sampler in reversed(budget.SAMPLERS)
        for seed in (seeds[:1] if sampler in CERTAIN else seeds)
    ]


def replayed(
    table: "pd.DataFrame", costs: "pd.Series", images: int, cut: float, sampler: str, seed: int
) -> dict[str, Any]:
    """A row of `replay.regret_table`: one search of an exact table (with `predicted_ms`, and AP on all of
    `images` and on the first few) for the part `cut` of its cost.
    """
    rows = replay.regret_table(
        table,
        costs,
        images=images,
        samplers=[sampler],
        seeds=[seed],
        costs=[cut],
        cost="predicted_ms",
    )
    return {str(k): v for k, v in rows.iloc[0].to_dict().items()}


def exact_setting(
    evaluator: GridEvaluator, triple: Triple, pairs: Iterable[Pair]
) -> tuple[dict[str, Any], Matches]:
    """AP of all sub-networks of one encoder setting on the first 20, 50, ... images, and on all.

    Returns plain values (`triple`, `pairs`, `nested`: number of images -> AP of each pair, `seconds`) and
    what was matched. Numbers of images on which no object is to be found are left out.
    """
    truth, count = evaluator.images.truth, len(evaluator.images)
    order, matches, seconds = evaluator.block(triple, pairs, range(count))
    objects = truth.objects.counts[..., 0].sum(axis=1).cumsum()
    steps = tuple(n for n in blocks.levels(count) if objects[n - 1] or n == count)
    found = [matches[""].on(np.arange(block.start, block.stop)) for block in blocks.blocks(steps)]
    nested = blocks.nested_ap(truth, found)
    value = {
        "triple": list(triple),
        "pairs": [list(pair) for pair in order],
        "nested": {str(n): row for n, row in zip(steps, nested.tolist(), strict=True)},
        "seconds": seconds,
    }
    return value, matches[""]


def nested_table(values: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """The five knobs, AP, and AP_20, AP_50, ... of the first so many images, from values of
    `exact_setting`.
    """
    import pandas as pd

    frames = []
    for value in values:
        knobs = [[*value["triple"], *pair] for pair in value["pairs"]]
        columns = {f"AP_{n}": row for n, row in value["nested"].items()}
        whole = f"AP_{max(map(int, value['nested']))}"
        frame = pd.DataFrame(knobs, columns=list(Arch.KNOBS)).assign(**columns)
        frames.append(frame.rename(columns={whole: "AP"}))
    return pd.concat(frames, ignore_index=True)
