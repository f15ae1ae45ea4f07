"""What a training starts from: network, data, space and recipe out of the options of `train`.

A network that exists (`--weights`, `--preset`) is trained further: Appendix A's recipe, a space around its
own sizes. A network made from a profile starts from random weights: the profile's sizes, space and recipe. A
run that is in `--out` already goes on with what it was started with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch, SearchSpace
from rfdetr.cli.arguments import numbers, open_data, with_knobs
from rfdetr.cli.begin import Beginning, from_preset, from_profile, from_weights, go_on
from rfdetr.cli.options import DEFAULT_DATA, Options
from rfdetr.errors import UserError
from rfdetr.files import read_json

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR
    from rfdetr.training.checkpoint import Checkpoint
    from rfdetr.training.config import TrainConfig


@dataclass(frozen=True)
class Start:
    """Everything that a training needs. notes: see `rfdetr.training.loop.train`. messages: what was done to
    weights on the way, for the terminal.
    """

    model: "RFDETR"
    dataset: "DetectionDataset"
    val: "DetectionDataset | None"
    space: SearchSpace
    config: "TrainConfig"
    notes: dict[str, Any]
    messages: list[str]


def start(options: Options) -> Start:
    """The network, data, space and recipe of a training. Raises UserError for options that contradict each
    other, the network or the data.
    """
    import torch

    from rfdetr.training.plan import PLAN

    options.check()
    saved = _saved(options)
    plan = (read_json(options.out / PLAN) or {}) if saved else {}
    source = options.data or (saved.provenance.get("source") if saved else None) or DEFAULT_DATA
    skip_missing = options.skip_missing or plan.get("skip_missing", False)
    dataset, val, messages = _data(source, skip_missing)
    seed = options.seed if options.seed is not None else (saved.config.seed if saved else 0)
    torch.manual_seed(seed)
    if saved is not None:
        begun = go_on(options, saved, plan)
    elif options.weights is not None:
        begun = from_weights(options, options.weights, dataset)
    elif options.preset is not None:
        begun = from_preset(options, options.preset, dataset)
    else:
        begun = from_profile(options, dataset)
    space = _space(options, begun)
    config = _recipe(options, begun, space, len(dataset), source)
    notes = {
        "start": begun.words,
        "recipe": begun.recipe,
        "source": source if _is_name(source) else str(Path(source).resolve()),
        "options": begun.options,
        "skip_missing": skip_missing,
    }
    return Start(begun.model, dataset, val, space, config, notes, [*messages, *begun.messages])


def _data(source: str, skip_missing: bool) -> "tuple[DetectionDataset, DetectionDataset | None, list[str]]":
    from rfdetr.data.checks import before_training
    from rfdetr.data.registry import available_splits

    dataset, messages = open_data(source, "train", skip_missing), []
    val = open_data(source, "val", skip_missing) if "val" in available_splits(source) else None
    if val is None:
        messages.append(
            f"{source} has no validation split: no AP will be computed; `evaluate` takes any split"
        )
    if val is not None and val.untrainable:
        messages.append(f"AP on val is undefined: {val.untrainable}")
        val = None
    before_training(dataset, val)
    return dataset, val, messages


def _is_name(source: str) -> bool:
    from rfdetr.data.registry import dataset_names

    return source in dataset_names() or not Path(source).exists()


def _saved(options: Options) -> "Checkpoint | None":
    """The checkpoint of the run in --out, if the training goes on from it."""
    from rfdetr.training.checkpoint import LAST, load_checkpoint

    path = options.out / LAST
    if not options.resume or not path.is_file():
        return None
    return load_checkpoint(path)


def _space(options: Options, begun: Beginning) -> SearchSpace:
    """What the training draws from: the options, or what comes with the network."""
    from rfdetr.training.inputs import single_point

    if options.arch is not None:
        arch = Arch.parse(options.arch)
        begun.model.config.check(arch)
        return single_point(arch)
    given = {name: getattr(options, name) for name in ("resolutions", "patch_sizes", "windows")}
    if begun.space is None:
        config = begun.model.config
        if missing := [name for name, text in given.items() if not text]:
            raise UserError(
                "this network has no sizes of its own: give --arch, or the grid"
                f" ({', '.join('--' + name.replace('_', '-') for name in missing)})"
            )
        resolutions, patches, windows = (
            numbers(text or "", name.replace("_", "-")) for name, text in given.items()
        )
        return SearchSpace(resolutions, patches, windows, (config.decoder_layers,), (config.queries,))
    return with_knobs(begun.space, **given)


def _recipe(
    options: Options, begun: Beginning, space: SearchSpace, images: int, source: str
) -> "TrainConfig":
    from rfdetr.data.scenes import DOMAINS
    from rfdetr.training.config import TrainConfig
    from rfdetr.training.finetune import recipe_of

    values = recipe_of(begun.model, space, images).to_dict() if begun.config is None else begun.config
    values = {**values, **options.recipe}
    if options.seed is not None:
        values["seed"] = options.seed
    if not begun.resumed:
        # Digits and letters mean something else in a mirror, and the painter varies its scenes enough.
        values["augment"] = source not in DOMAINS
        if "steps" in options.recipe:
            values["warmup_steps"] = min(values.get("warmup_steps", 0), values["steps"] // 10)
        if values.get("patience") and not values.get("evaluate_every"):
            values["evaluate_every"] = max(1, values["steps"] // 20)
    return TrainConfig.from_dict(values)
