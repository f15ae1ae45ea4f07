"""Was the search worth it? One fixed architecture, trained alone for as long as the search trained in all."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rfdetr.arch import PRESETS, Arch, SearchSpace
from rfdetr.evaluation.coco import evaluate
from rfdetr.model.config import ModelConfig
from rfdetr.model.identity import fingerprint
from rfdetr.nas.choose import compared, scored
from rfdetr.nas.finetune import alone
from rfdetr.nas.measure import relative_cost
from rfdetr.nas.network import start
from rfdetr.nas.plan import RESERVE_S
from rfdetr.nas.run import Run
from rfdetr.nas.stages import once
from rfdetr.search.timing import Timings
from rfdetr.training.checkpoint import model_from_checkpoint
from rfdetr.training.log import read_log


def fixed_arch(space: SearchSpace, default: Arch | None) -> Arch:
    """The architecture that a user without a search would take: the network's published one, else the middle
    of the grid.

    The middle: of all encoder settings the one with the median number of tokens, all layers and queries.
    """
    if default is not None and default in {preset.arch for preset in PRESETS.values()}:
        return default
    archs = sorted(space.distinct(), key=lambda arch: (arch.tokens, -arch.windows, arch.resolution))
    return archs[len(archs) // 2]


def same_cost(run: Run, arch: Arch, config: ModelConfig) -> int:
    """Steps on `arch` whose operations are those of all steps that the search took: of the supernet, which
    may have stopped before its planned ones, and of the chosen networks.
    """
    spent = float(run.result("train")["steps"])
    for row in run.result("fine-tune")["networks"] if run.has("fine-tune") else ():
        one = Arch.parse(row["arch"])
        spent += row["steps"] * relative_cost(config, one, run.space, run.config)
    return max(1, round(spent / relative_cost(config, arch, run.space, run.config)))


def _steps(run: Run, arch: Arch, config: ModelConfig) -> dict[str, Any]:
    """steps, and share: which part of the same cost they are, 1 unless the hours have no time for all."""
    wanted, left = same_cost(run, arch, config), run.left_s
    if left is None:
        return {"steps": wanted, "share": 1.0}
    rows = [row["seconds"] for row in read_log(run.folder("train")) if row["arch"] == arch.id]
    each = float(np.median(rows)) if rows else run.step_cost(arch)
    steps = max(1, min(wanted, int((left - RESERVE_S) / each)))
    return {"steps": steps, "share": steps / wanted}


def _latency(run: Run, arch: Arch, folder: Path) -> float:
    """Latency of the fixed architecture in ms, timed as the chosen ones were."""
    if not (folder / "latency.csv").is_file():
        shutil.copyfile(run.folder("choose") / "latency.csv", folder / "latency.csv")
    model = run.network()
    timings = Timings(folder, model, fingerprint(model), run.protocol)
    rows = timings.measured([arch])
    return float(rows.loc[rows["arch"] == arch.id, "latency_ms"].iloc[-1])


def fixed(run: Run, folder: Path) -> dict[str, Any]:
    """Train it in `folder`, evaluate it on the test split, and hold every chosen network against it there."""
    begin = start(run.options, run.data("train"), run.proposal)
    arch = fixed_arch(run.space, begin.model.config.default_arch)
    found = once(folder / "steps.json", partial(_steps, run, arch, begin.model.config))
    begin.model.config = begin.model.config.replace(default_arch=arch)
    config = alone(run.config, int(found["steps"]))
    notes = {"start": begin.origin, "recipe": "that of the supernet, on one architecture alone"}
    run.trainer(begin.model, arch, config, folder, notes=notes)
    model, test = model_from_checkpoint(folder), run.data("test")
    numbers, result = scored(model, test, arch, run.metric, run.options.seed)
    rows = []
    for entry in run.chosen:
        network, one, _ = run.final(entry["arch"])
        held = compared(test, evaluate(network, test, one), result, run.metric, run.options.seed)
        rows.append({"arch": entry["arch"], "latency_ms": entry["latency_ms"], **held})
    latency = _latency(run, arch, folder)
    return {"arch": arch.id, "latency_ms": latency, **found, "test": numbers, "against": rows}
