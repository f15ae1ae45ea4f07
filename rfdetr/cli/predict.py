"""`python -m rfdetr predict`."""

from pathlib import Path
from typing import Annotated

import typer

from rfdetr.cli.arguments import Knobs, Weights, chosen_arch
from rfdetr.errors import UserError
from rfdetr.networks import open_network


def predict(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    arch: Knobs = None,
    threshold: Annotated[float, typer.Option(help="Least score of a detection.")] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures with boxes and predictions.json.")
    ] = None,
) -> None:
    """Detect objects in images; print them, and draw them into --out."""
    from rfdetr.data.folders import image_files
    from rfdetr.files import write_json

    model = open_network(weights)
    chosen = chosen_arch(model, arch)
    files = [file for path in images for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"no images in {', '.join(map(str, images))}")
    found = model.predict(files, chosen, threshold)
    records = []
    for number, (file, detections) in enumerate(zip(files, found, strict=True), start=1):
        print(f"{file}: {len(detections)} objects")
        for name, score, box in zip(detections.names, detections.scores, detections.boxes, strict=True):
            print(f"  {name} {float(score):.2f} at {', '.join(f'{float(v):.0f}' for v in box)}")
        records += [{"file": str(file), **record} for record in detections.to_coco(number)]
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            detections.plot(out / f"{file.stem}.png")
    if out is not None:
        write_json(out / "predictions.json", records)
        print(f"pictures and predictions.json: {out}")
