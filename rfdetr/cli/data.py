"""`python -m rfdetr data`: look at datasets, check them, convert them."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Look at datasets, check and convert them."
)


@app.command("list")
def list_datasets() -> None:
    """Names that every command takes, besides the path of a COCO or VOC folder."""
    from rfdetr.data.manifests import load_manifest, manifest_names
    from rfdetr.data.scenes import DOMAINS

    for name, domain in DOMAINS.items():
        print(f"{name:12s} embedded scenes: {domain.title}")
    for name in manifest_names():
        print(f"{name:12s} {load_manifest(name).title}")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="A registered name or the folder of a dataset.")],
    split: Annotated[str | None, typer.Option(help="Only this split; default: all that there are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write all of it to this JSON file.")] = None,
) -> None:
    """Open every split, decode every image, compare the splits, list every flaw.

    Exit code 0: no problem; 1: problems, or a split that cannot be opened; 2: there is no such dataset.
    """
    from rfdetr.data.folders import SPLITS, canonical_split
    from rfdetr.data.inspection import inspect_dataset
    from rfdetr.files import write_json

    splits = (canonical_split(split),) if split else SPLITS
    found = inspect_dataset(data, splits, lambda text: print(f"{text}\n", flush=True))
    if found.between:
        print(found.between)
    if found.stopping:
        print(f"`train` will stop: {'; '.join(found.stopping)}")
    if out is not None:
        write_json(out, found.to_dict())
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Pascal VOC folder.")],
    destination: Annotated[Path, typer.Argument(help="COCO-format folder to write; must not exist.")],
) -> None:
    """Convert a Pascal VOC folder to COCO format."""
    from rfdetr.data.voc import convert_voc

    print(convert_voc(source, destination))
    print(f"written: {destination}")
