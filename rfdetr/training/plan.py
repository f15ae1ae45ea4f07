"""What a training is going to do, in words and as data: printed before the first step and kept beside the
checkpoint as plan.json and README.md.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rfdetr.arch import SearchSpace, effective, round_resolution
from rfdetr.data.dataset import DetectionDataset
from rfdetr.files import write_atomic, write_json
from rfdetr.model.detector import RFDETR
from rfdetr.training.config import TrainConfig
from rfdetr.training.log import duration
from rfdetr.training.optim import lr_of

PLAN, README = "plan.json", "README.md"
SHOWN = 4  # roundings that are written out


def rounded(space: SearchSpace) -> str:
    """One line about the grid's resolutions that are no whole number of windows of patches; "" if all are."""
    found = [
        f"{r} px with patch {p}, {w} window{'s' * (w != 1)}: {round_resolution(r, p, w)} px"
        for r in space.resolutions
        for p in space.patch_sizes
        for w in space.windows
        if round_resolution(r, p, w) != r
    ]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"rounded down to whole windows of patches: {'; '.join(found[:SHOWN])}{more}" if found else ""


def limited(space: SearchSpace) -> str:
    """One line about encoder settings with fewer tokens than queries; "" if there are none."""
    queries = space.queries[-1]
    archs = [effective(*triple, 0, queries) for triple in space.triples()]
    few = min(archs, key=lambda arch: arch.tokens)
    if few.tokens >= queries:
        return ""
    return (
        f"fewer tokens than the {queries} queries: {sum(a.tokens < queries for a in archs)} of {len(archs)}"
        f" settings, down to {few.tokens} queries at {few.resolution} px with patch {few.patch_size}"
    )


def make_plan(
    model: RFDETR,
    dataset: DetectionDataset,
    val: DetectionDataset | None,
    space: SearchSpace,
    config: TrainConfig,
    processes: int,
    precision: str,
    notes: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that was chosen, as plain values. notes: what the caller knows (`start`: the network in
    words; `source`: the name or folder of the data).
    """
    images = config.batch_size * config.accumulate * processes
    sizes = model.config
    last = sizes.feature_layers[-1] - 1
    rates = {
        part: lr_of(parameter, config, sizes)
        for part, parameter in (
            ("backbone, first block", "backbone.blocks.0.fc1.weight"),
            ("backbone, last block", f"backbone.blocks.{last}.fc1.weight"),
            ("decoder", "decoder.norm.weight"),
            ("rest", "projector.norm.weight"),
        )
    }
    return {
        **notes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": repr(dataset),
        "val": None if val is None else repr(val),
        "classes": list(dataset.class_names),
        "space": asdict(space),
        "settings": len(space.triples()),
        "rounded": rounded(space),
        "limited": limited(space),
        "default_arch": str(sizes.default_arch),
        "learning_rates": rates,
        "precision": precision,
        "images_per_step": images,
        "steps": config.steps,
        "epochs": round(config.steps * images / len(dataset), 2),
        "config": config.to_dict(),
        "network": sizes.to_dict(),
    }


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan for the terminal, one fact a line."""
    config = TrainConfig.from_dict(plan["config"])
    start = plan.get("start", "as given")
    processes = plan["images_per_step"] // (config.batch_size * config.accumulate)
    shared = f" in each of {processes} processes" if processes > 1 else ""
    found = [
        ("network", f"{start}, {plan['parameters'] / 1e6:.1f} M parameters, {len(plan['classes'])} classes"),
        ("data", plan["data"] + (f"; validation {plan['val']}" if plan["val"] else "; no validation")),
        ("space", _space(plan, config)),
        *(("", plan[key]) for key in ("rounded", "limited") if plan[key]),
        ("recipe", _recipe(plan, config)),
        (
            "steps",
            f"{config.steps:,} of {plan['images_per_step']} pictures ({config.batch_size} at a time{shared}):"
            f" {plan['epochs']:g} epochs",
        ),
        ("val", _evaluation(plan, config)),
    ]
    return [f"{name:9s}{text}" for name, text in found]


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _space(plan: Mapping[str, Any], config: TrainConfig) -> str:
    space, own = plan["space"], plan["default_arch"]
    if plan["settings"] == 1:
        return f"one architecture, {own}"
    text = (
        f"{_listed(space['resolutions'])} px, patch {_listed(space['patch_sizes'])}, windows"
        f" {_listed(space['windows'])}: {plan['settings']} encoder settings, one a step;"
        f" {space['decoder_layers'][-1]} decoder layers, {space['queries'][-1]} queries; default {own}"
    )
    return text + (" (every second step)" if config.anchor else "")


def _recipe(plan: Mapping[str, Any], config: TrainConfig) -> str:
    rates = plan["learning_rates"]
    low, high = rates["backbone, first block"], rates["backbone, last block"]
    backbone = f"{low:.2g}" if math.isclose(low, high) else f"{low:.2g} (first block) to {high:.2g} (last)"
    warm = f", {config.warmup_steps} steps of warm-up" if config.warmup_steps else ""
    return (
        f"{plan.get('recipe', 'given')}: lr {config.lr:g}, backbone {backbone}, schedule"
        f" {config.schedule}{warm}, "
        + (f"clipping {config.clip_norm:g}, " if config.clip_norm is not None else "no clipping, ")
        + (f"averaged weights (EMA {config.ema_decay:g}), " if config.ema_decay is not None else "no EMA, ")
        + ("flip and crop, " if config.augment else "no augmentation, ")
        + plan["precision"]
    )


def _evaluation(plan: Mapping[str, Any], config: TrainConfig) -> str:
    if plan["val"] is None:
        return "there is no validation split: no AP is computed and the last weights are kept"
    every = f"every {config.evaluate_every} steps and " if config.evaluate_every else ""
    stop = f"; stops after {config.patience} evaluations without a better AP" if config.patience else ""
    return f"AP {every}at the end{stop}"


def estimate(seconds: float, done: int, left: int) -> str:
    """The line about the time, from the first steps."""
    each = seconds / max(1, done)
    return (
        f"{'time':9s}about {duration(each * left)} for {left:,} more steps ({each:.2g} s a step in the first"
        f" {done})"
    )


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """plan.json and README.md, each written whole."""
    write_json(folder / PLAN, plan)
    write_atomic(folder / README, _readme(folder, plan))


def _readme(folder: Path, plan: Mapping[str, Any]) -> str:
    run, command = folder.as_posix(), "python -m rfdetr"
    masks = " with masks" if plan["network"]["segmentation"] else ""
    chosen = "\n".join(lines(plan))
    data = "" if plan.get("source") else " --data DATA"
    remembered = (
        "the data's folder is remembered" if plan.get("source") else "DATA is the name or folder of the data"
    )
    return f"""# A training

One network{masks} that holds many: every step trained one of its encoder settings, each can be used alone.

```
{chosen}
```

| file | what it is |
| --- | --- |
| `checkpoint.pt` | weights (trained and averaged), optimiser, position: a stopped training goes on from it |
| `best.pt` | the weights with the best AP on val; only of a training with `--patience`, and then used first |
| `log.jsonl`, `log.csv` | losses, gradient norm, architecture and speed of every step |
| `evaluations.jsonl`, `evaluations.csv` | AP on val of a few sub-networks, with the step |
| `plan.json` | everything that was chosen, as data |

Go on from here ({remembered}):

```
# go on with a training that was stopped
{command} train --out {run}{data}
# AP of {plan["default_arch"]}; --arch takes another one
{command} evaluate {run}{data} --split test
# AP and latency of its sub-networks
{command} search {run}{data} --out {run}-search
# one of them as a file
{command} export {run} --out model.onnx
# train longer, or with another --data
{command} train --weights {run}{data} --out {run}-2
```
"""
