"""What several commands share: arguments, and how a network and its architecture are named on the command
line.
"""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from rfdetr.arch import Arch, SearchSpace
from rfdetr.errors import UserError

if TYPE_CHECKING:
    from rfdetr.model.detector import RFDETR

Data = Annotated[str, typer.Option(help="A registered name (digits, bccd, ...) or a COCO or VOC folder.")]
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


def numbers(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers of a text like `64,96,128`; UserError naming the option otherwise."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{name} takes whole numbers with commas, e.g. 64,96,128, not {text!r}") from None


def with_knobs(base: SearchSpace, **given: str | None) -> SearchSpace:
    """`base` with the knobs that were given as text."""
    fields = ("resolutions", "patch_sizes", "windows", "decoder_layers", "queries")
    names = {field: field.replace("_", "-") for field in fields}
    values = {f: numbers(text, names[f]) if (text := given.get(f)) else getattr(base, f) for f in fields}
    return SearchSpace(**values)


def chosen_arch(model: "RFDETR", text: str | None) -> Arch:
    """The architecture that --arch names, or the network's own; UserError or ArchError when there is none
    such.
    """
    if text is not None:
        arch = Arch.parse(text)
        model.config.check(arch)
        return arch
    if model.config.default_arch is None:
        raise UserError(
            "this network has no default architecture; name one with --arch, e.g. --arch r96-p8-w2-d3-q30"
        )
    return model.config.default_arch


def shown(value: float | None, digits: int = 4) -> str:
    """A metric in words: without objects of a class or size it is undefined (NaN, or null in a file)."""
    return "undefined: no objects" if value is None or math.isnan(value) else f"{value:.{digits}f}"
