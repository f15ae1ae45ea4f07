"""`python -m rfdetr predict`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfdetr.cli.arguments import Categories, Knobs, chosen_arch, exported_file
from rfdetr.networks import is_exported, open_network

if TYPE_CHECKING:
    from rfdetr.model.detections import Detections
    from rfdetr.model.predict import Options


def predict(
    weights: Annotated[
        str,
        typer.Argument(
            help=(
                "A checkpoint.pt of `train` or its folder, an exported file (.onnx, .xml, .engine), a"
                " published name such as nano, or nano:FILE."
            )
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them (searched in depth).")],
    arch: Knobs = None,
    threshold: Annotated[float, typer.Option(help="Least score of a detection.")] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures with boxes, predictions.json and pictures.json."),
    ] = None,
    categories: Categories = None,
) -> None:
    """Detect objects in images; print them, and draw them into --out.

    Results are written picture by picture. predictions.json is a COCO results file (with file and class
    names); pictures.json says which picture has which image_id and output. Pictures that cannot be read are
    listed at the end, and the exit code is then 1.
    """
    from rfdetr.cli.predictions import Outputs, find_pictures
    from rfdetr.model.predict import Options
    from rfdetr.progress import progress_bar

    files = find_pictures(images, out)
    unreadable: dict[Path, str] = {}
    options = Options(
        threshold,
        keep_images=out is not None,
        unreadable=lambda name, error: unreadable.update({Path(name): str(error)}),
    )
    found = _open(weights, arch, categories, files, options)
    outputs = None if out is None else Outputs(out, files)
    numbers = {file: number for number, file in enumerate(files, start=1)}
    # A terminal that scrolls is progress enough; a bar is for output that goes to a file.
    with progress_bar(len(files) > 1 and not _terminal(), len(files), "predict", "picture") as report:
        for detections in found:
            file = Path(str(detections.source))
            if outputs:
                outputs.add(file, numbers[file], detections)
            print(f"{file}: {len(detections)} objects")
            for name, score, box in zip(detections.names, detections.scores, detections.boxes, strict=True):
                print(f"  {name} {float(score):.2f} at {', '.join(f'{float(v):.0f}' for v in box)}")
            report(numbers[file], len(files))
    if outputs:
        outputs.finish(numbers, unreadable)
        print(f"pictures, predictions.json and pictures.json: {out}")
    if unreadable:
        print(f"{len(unreadable)} of {len(files)} pictures could not be read:")
        for message in unreadable.values():
            print(f"  {message}")
        raise typer.Exit(1)


def _open(
    weights: str, arch: str | None, categories: str | None, files: list[Path], options: "Options"
) -> "Iterator[Detections]":
    if is_exported(weights):
        return exported_file(weights, arch, categories).predict_each(files, options)
    model = open_network(weights, categories)
    return model.predict_each(files, chosen_arch(model, arch), options)


def _terminal() -> bool:
    import sys

    return sys.stdout.isatty()
