"""The network that a training starts from, with the space and recipe that come with it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import PRESETS, SearchSpace
from rfdetr.cli.options import DEFAULT_PROFILE, Options
from rfdetr.errors import UserError
from rfdetr.networks import RANDOM, open_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR
    from rfdetr.training.checkpoint import Checkpoint

FINE_TUNING = "fine-tuning (Appendix A)"


@dataclass
class Beginning:
    """A network and the defaults that come with it.

    words: what it is. recipe: which recipe, in words. space: None for a network without sizes of its own.
    config: fields of `TrainConfig`; None stands for Appendix A's recipe. messages: what was done to weights.
    options: that named the network. resumed: it goes on with the run in --out.
    """

    model: "RFDETR"
    words: str
    recipe: str
    space: SearchSpace | None = None
    config: dict[str, Any] | None = None
    messages: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    resumed: bool = False


def _named(options: Options) -> dict[str, str]:
    """The given options that name a network; paths in full, so that two ways to write one are the same."""
    names = ("weights", "preset", "profile", "backbone")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return {k: str(Path(v).resolve()) if Path(v).exists() else v for k, v in given.items()}


def go_on(options: Options, saved: "Checkpoint", plan: dict[str, Any]) -> Beginning:
    """The network of the run in --out, whose weights are read when it goes on. plan: its plan.json; empty
    where there is none.
    """
    from rfdetr.model.detector import RFDETR

    before = plan.get("options", {})
    for name, value in _named(options).items():
        if plan and before.get(name) != value:
            raise UserError(
                f"the training in {options.out} began from {plan.get('start')}, not with --{name} {value}:"
                " leave that out to go on with it, give another --out for a new training, or --no-resume to"
                " replace it"
            )
    _check_sizes(options, saved.model, f"the network in {options.out}")
    return Beginning(
        RFDETR(**saved.model.to_dict()),
        plan.get("start", "as it was"),
        plan.get("recipe", "as it was"),
        saved.space,
        saved.config.to_dict(),
        options=before,
        resumed=True,
    )


def _check_sizes(options: Options, config: Any, owner: str, masks_may_change: bool = False) -> None:
    for name in ("decoder_layers", "queries", "segmentation"):
        wanted, found = getattr(options, name), getattr(config, name)
        if wanted is None or wanted == found or (masks_may_change and name == "segmentation"):
            continue
        flag = f"--{name.replace('_', '-')} {wanted}"
        if name == "segmentation":
            flag, has = "--segmentation" if wanted else "--no-segmentation", "a" if found else "no"
            raise UserError(f"{flag} contradicts {owner}, which has {has} mask head; leave the option out")
        how = f"; --arch trains fewer, up to {found}" if wanted < found else ""
        raise UserError(
            f"{flag} contradicts {owner}, which has {found} {name.replace('_', ' ')}: leave the option"
            f" out{how}"
        )


def from_weights(options: Options, weights: str, dataset: "DetectionDataset") -> Beginning:
    """A network that has been trained, or published, with class layers and mask head as they are wanted."""
    from rfdetr.training.finetune import adapt, space_of

    base = open_network(weights)
    _check_sizes(options, base.config, f"the network {weights}", masks_may_change=True)
    model, reports = adapt(base, dataset, options.segmentation)
    return Beginning(
        model,
        weights if weights.startswith(RANDOM) else f"weights of {weights}",
        FINE_TUNING,
        None if model.config.default_arch is None and model.origin is None else space_of(model),
        messages=[str(report) for report in reports],
        options=_named(options),
    )


def from_preset(options: Options, preset: str, dataset: "DetectionDataset") -> Beginning:
    """A network of a published configuration with random weights, or with DINOv2's in its backbone."""
    from rfdetr.model.detector import build
    from rfdetr.training.finetune import space_of

    if preset not in PRESETS:
        raise UserError(f"there is no configuration {preset!r}; choose one of {', '.join(PRESETS)}")
    knobs = _sizes(options)
    sizes: dict[str, Any] = {
        "categories": dataset.category_ids,
        "default_arch": PRESETS[preset].arch.replace(**knobs),
    }
    if options.segmentation is not None:
        sizes["segmentation"] = options.segmentation
    model = build(preset, **sizes)
    messages = _load_backbone(options, model)
    words = f"{preset}, {_initial(options)}"
    return Beginning(model, words, FINE_TUNING, space_of(model), None, messages, _named(options))


def from_profile(options: Options, dataset: "DetectionDataset") -> Beginning:
    """A network of a profile's sizes from random weights; with a backbone of DINOv2 it is fine-tuned."""
    from rfdetr.experiments.base.profiles import get_profile
    from rfdetr.model.detector import RFDETR

    name = options.profile or DEFAULT_PROFILE
    recipe = get_profile(name).recipe
    sizes: dict[str, Any] = {
        **recipe.model,
        **_sizes(options),
        "categories": dataset.category_ids,
        "segmentation": bool(options.segmentation),
    }
    model = RFDETR(**sizes)
    messages = _load_backbone(options, model)
    depth, queries = (model.config.decoder_layers,), (model.config.queries,)
    grid = recipe.training
    return Beginning(
        model,
        f"profile {name}, {_initial(options)}",
        FINE_TUNING if options.backbone else "from scratch",
        SearchSpace(grid.resolutions, grid.patch_sizes, grid.windows, depth, queries),
        None if options.backbone else dict(recipe.train),
        messages,
        {**_named(options), "profile": name},
    )


def _sizes(options: Options) -> dict[str, int]:
    names = ("decoder_layers", "queries")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _initial(options: Options) -> str:
    return "random weights" if options.backbone is None else "backbone of DINOv2, the rest random"


def _load_backbone(options: Options, model: "RFDETR") -> list[str]:
    if options.backbone is None:
        return []
    from rfdetr.model.dinov2 import load_dinov2

    return [str(load_dinov2(model, None if options.backbone == "dinov2" else options.backbone))]
