"""Was the search worth it? One fixed architecture, trained alone for as long as the search trained in all."""

from pathlib import Path
from typing import Any

from rfdetr.arch import PRESETS, Arch, SearchSpace
from rfdetr.evaluation.bootstrap import paired_difference
from rfdetr.evaluation.coco import evaluate
from rfdetr.nas.choose import RESAMPLES, matches, scored
from rfdetr.nas.finetune import alone
from rfdetr.nas.measure import relative_cost
from rfdetr.nas.plan import start
from rfdetr.nas.run import Run
from rfdetr.training.loop import train


def fixed_arch(space: SearchSpace, default: Arch | None) -> Arch:
    """The architecture that a user without a search would take: the network's published one, else the middle
    of the grid.

    The middle: of all encoder settings the one with the median number of tokens, all layers and queries.
    """
    if default is not None and default in {preset.arch for preset in PRESETS.values()}:
        return default
    archs = sorted(space.distinct(), key=lambda arch: (arch.tokens, -arch.windows, arch.resolution))
    return archs[len(archs) // 2]


def fixed(run: Run, folder: Path) -> dict[str, Any]:
    """Train it in `folder`, evaluate it on the test split, and hold every chosen network against it there."""
    begin = start(run.options, run.data("train"), run.proposal)
    arch = fixed_arch(run.space, begin.model.config.default_arch)
    # What was really trained: a supernet whose AP no longer rises stops before its planned steps.
    spent = float(run.result("train")["steps"])
    if run.has("fine-tune"):
        tuned = run.result("plan")["tune_steps"]
        chosen = [Arch.parse(entry["arch"]) for entry in run.chosen]
        spent += sum(tuned * relative_cost(begin.model.config, one, run.space) for one in chosen)
    steps = max(1, round(spent / relative_cost(begin.model.config, arch, run.space)))
    config = alone(run.config, steps)
    begin.model.config = begin.model.config.replace(default_arch=arch)
    notes = {"start": begin.origin, "recipe": "that of the supernet, on one architecture alone"}
    model = train(begin.model, run.data("train"), arch, config, folder, run.data("val"), notes=notes).model
    test = run.data("test")
    numbers, result = scored(model, test, arch, run.metric, run.options.seed)
    own = matches(test, result, run.metric)
    rows = []
    for entry in run.chosen:
        network, one, _ = run.final(entry["arch"])
        other = matches(test, evaluate(network, test, one), run.metric)
        found = paired_difference(other, own, resamples=RESAMPLES, seed=run.options.seed)
        rows.append(
            {
                "arch": entry["arch"],
                "difference": found.diff,
                "low": found.low,
                "high": found.high,
                "resolved": found.resolved,
            }
        )
    return {"arch": arch.id, "steps": steps, "test": numbers, "against": rows}
