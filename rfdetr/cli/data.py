"""`python -m rfdetr data`: look at datasets, check them, convert them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rfdetr.errors import UserError

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
    data: Annotated[str, typer.Argument(help="A registered name or a COCO or VOC folder.")],
    split: Annotated[str | None, typer.Option(help="Only this split; default: all that there are.")] = None,
) -> None:
    """Count images and objects, decode every image, list every flaw."""
    from rfdetr.data.coco import CocoDataset
    from rfdetr.data.registry import load_dataset

    opened = 0
    for name in [split] if split else ["train", "val", "test"]:
        try:
            options: dict[str, Any] = {} if _embedded(data) else {"unreadable": "skip"}
            dataset = load_dataset(data, name, **options)
        except UserError:
            if split or (name == "test" and not opened):
                raise
            continue
        opened += 1
        objects = len(dataset.coco["annotations"])
        print(f"{name}: {len(dataset)} images, {objects} objects, classes {', '.join(dataset.class_names)}")
        if isinstance(dataset, CocoDataset):
            print(dataset.check())


def _embedded(name: str) -> bool:
    from rfdetr.data.scenes import DOMAINS

    return name in DOMAINS


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Pascal VOC folder.")],
    destination: Annotated[Path, typer.Argument(help="COCO-format folder to write; must not exist.")],
) -> None:
    """Convert a Pascal VOC folder to COCO format."""
    from rfdetr.data.voc import convert_voc

    print(convert_voc(source, destination))
    print(f"written: {destination}")
