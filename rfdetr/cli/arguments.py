"""What several commands share: arguments, and how a network and its architecture are named on the command
line.
"""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.benchmark.accuracy import ArtifactModel
    from rfdetr.data.dataset import DetectionDataset
    from rfdetr.model.detector import RFDETR

Data = Annotated[
    str | None,
    typer.Option(
        help=(
            "A registered name (digits, bccd, ...) or a folder of pictures and annotations; default: that of"
            " the network's training."
        )
    ),
]
Weights = Annotated[
    str,
    typer.Argument(
        help=(
            "A checkpoint.pt of `train` or its folder, a published name such as nano, nano:FILE, or"
            " random:nano."
        )
    ),
]
Knobs = Annotated[
    str | None,
    typer.Option("--arch", help="r96-p8-w2-d3-q30, or the name of a preset; default: the network's own."),
]

Categories = Annotated[
    str | None,
    typer.Option(
        help=(
            "What the classes are, for weights or files that do not say it: coco, or a JSON file that lists"
            " them (a COCO annotation file)."
        )
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Go on without pictures that are missing or damaged.")
]


def open_data(name: str, split: str, skip_missing: bool) -> "DetectionDataset":
    """A split of a dataset by its name or folder. Raises UserError as `load_dataset`."""
    from rfdetr.data.registry import load_dataset

    return load_dataset(name, split, unreadable="skip" if skip_missing else "error")


def numbers(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers of a text like `64,96,128`, each at least 1 (layers: 0); UserError naming the option
    otherwise.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{name} takes whole numbers with commas, e.g. 64,96,128, not {text!r}") from None
    least = 0 if name == "decoder-layers" else 1
    if min(found) < least:
        raise UserError(f"--{name} takes numbers of at least {least}, not {min(found)}")
    return found


def check_counts(**given: int | None) -> None:
    """UserError for an option that counts something and is below 1."""
    for name, value in given.items():
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def with_knobs(base: SearchSpace, **given: str | None) -> SearchSpace:
    """`base` with the knobs that were given as text."""
    fields = ("resolutions", "patch_sizes", "windows", "decoder_layers", "queries")
    names = {field: field.replace("_", "-") for field in fields}
    values = {f: numbers(text, names[f]) if (text := given.get(f)) else getattr(base, f) for f in fields}
    return SearchSpace(**values)


def exported_file(weights: str, arch: str | None, categories: str | None) -> "ArtifactModel":
    """An exported file, ready to predict. UserError with --arch: the file is one sub-network already."""
    from rfdetr.benchmark.accuracy import load_exported

    if arch is not None:
        raise UserError(f"{weights} already is one sub-network; --arch goes with a checkpoint or a name")
    return load_exported(weights, categories=categories)


def chosen_arch(model: "RFDETR", text: str | None) -> Arch:
    """The architecture that --arch names, or the network's own, which is then said; UserError or ArchError
    that names some of this network's when there is none such.
    """
    if text is not None:
        given = Arch.parse(text)
        model.config.check(given)
        if model.origin is not None and not model.origin.trained(given):
            print(
                f"{given.id} was never trained: training drew no {given.resolution} px with patch"
                f" {given.patch_size} and {given.windows} windows; its weights are resized"
            )
        return given
    arch, origin = model.config.default_arch, model.origin
    if arch is None and origin is not None:
        arch = origin.space.largest  # trainings of earlier versions named none
    if arch is None:
        raise UserError(
            "this network has no architecture of its own: name one with --arch, e.g. --arch"
            f" {suggestion(model)}"
        )
    if origin is not None:
        others = [other.id for other in origin.examples() if other != arch]
        hint = f"; --arch takes others, trained were e.g. {', '.join(others)}" if others else ""
        print(f"architecture {arch.id}{hint}")
    return arch


def suggestion(model: "RFDETR") -> Arch:
    """Some architecture that the network can be: its stored kernel and position grid, all its depth."""
    config = model.config
    tokens = config.position_grid**2
    return Arch(
        config.base_patch * config.position_grid,
        config.base_patch,
        1,
        config.decoder_layers,
        min(config.queries, tokens),
    )


def chosen_device(name: str) -> str:
    """cpu or cuda for "auto"; UserError when cuda is asked for and is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu, or a build of torch for its driver")
    return name


def chosen_data(model: "RFDETR | None", data: str | None) -> str:
    """The dataset that --data names, or the one that the network was trained on, which is then said."""
    if data is not None:
        return data
    known = model.origin.data if model is not None and model.origin is not None else ""
    if not known:
        raise UserError("this network does not know its data: name a dataset or its folder with --data")
    print(f"data {known} (that of the training)")
    return known


def shown(value: float | None, digits: int = 4) -> str:
    """A metric in words: without objects of a class or size it is undefined (NaN, or null in a file)."""
    return "undefined: no objects" if value is None or math.isnan(value) else f"{value:.{digits}f}"
