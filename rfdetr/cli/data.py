"""`python -m rfdetr data`: look at datasets, fetch, check, convert and draw them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rfdetr.cli.arguments import SkipMissing, open_data
from rfdetr.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Look at datasets, fetch, check, convert and draw them.",
)
Source = Annotated[
    str, typer.Argument(metavar="DATA", help="A registered name (`data list`) or the folder of a dataset.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Registered names, or all.")]


@app.command("list")
def list_datasets() -> None:
    """Names that every command takes, besides the path of a folder."""
    from rfdetr.data.download import whereabouts
    from rfdetr.data.manifests import load_manifest, manifest_names
    from rfdetr.data.scenes import DOMAINS

    for name, domain in DOMAINS.items():
        print(f"{name:17s} embedded scenes: {domain.title}")
    for name in manifest_names():
        manifest = load_manifest(name)
        images = f", {manifest.images} pictures" if manifest.images else ""
        print(f"{name:17s} {manifest.title}{images}; {manifest.licence}; {whereabouts(manifest)}")


@app.command()
def fetch(
    names: Names,
    split: Annotated[
        str | None, typer.Option(help="Of a large dataset, this split alone; default: all.")
    ] = None,
) -> None:
    """Fetch registered datasets: from the folder that RFDETR_MIRROR names, else from their source."""
    from rfdetr.data.download import fetch_dataset

    for manifest in _manifests(names):
        folder = fetch_dataset(manifest, split)
        print(f"{manifest.name}: {folder} ({manifest.title}; {manifest.licence})")
        if manifest.attribution:
            print(f"  {manifest.attribution}")


@app.command()
def verify(names: Names) -> None:
    """Compare fetched datasets with their manifests: files, pictures, objects of every class."""
    from rfdetr.data.download import verify as verify_files
    from rfdetr.data.registry import verify_counts

    for manifest in _manifests(names):
        print(f"{manifest.name}: {verify_files(manifest)}")
        if manifest.images:
            print(f"{manifest.name}: {verify_counts(manifest)}")


def _manifests(names: list[str]) -> list[Any]:
    """Manifests of registered names; "all": those that are fetched without an account or a question."""
    from rfdetr.data.manifests import load_manifest, manifest_names

    if names == ["all"]:
        found = [load_manifest(name) for name in manifest_names()]
        return [manifest for manifest in found if manifest.kind == "archive"]
    return [load_manifest(name) for name in names]


@app.command()
def check(
    data: Source,
    split: Annotated[str | None, typer.Option(help="Only this split; default: all that there are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write all of it to this JSON file.")] = None,
) -> None:
    """Open every split, decode every image, compare the splits, list every flaw.

    Exit code 0: no problem; 1: problems, or a split that cannot be opened; 2: there is no such dataset.
    """
    from rfdetr.data.folders import SPLITS, canonical_split
    from rfdetr.data.inspection import inspect_dataset
    from rfdetr.files import check_target, write_json

    if out is not None:
        check_target(out)
    splits = (canonical_split(split),) if split else SPLITS
    found = inspect_dataset(data, splits, lambda text: print(f"{text}\n", flush=True))
    if found.note:
        print(found.note)
    if found.between or found.between.notes:
        print(found.between)
    if found.stopping:
        print(f"`train` will stop: {'; '.join(found.stopping)}")
    if out is not None:
        write_json(out, found.to_dict())
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def stats(
    data: Source,
    split: Annotated[str | None, typer.Option(help="Only this split; default: all together.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    skip_missing: SkipMissing = False,
) -> None:
    """Objects per image, object and image sizes, classes: what the choice of a network depends on."""
    from rfdetr.data.statistics import Statistics
    from rfdetr.files import check_target, write_json

    if out is not None:
        check_target(out)
    splits = _open(data, split, skip_missing)
    found = Statistics.of(*splits.values())
    print(f"{data}: {', '.join(f'{len(dataset)} {name}' for name, dataset in splits.items())}")
    note = next(iter(splits.values())).split_note
    if note:
        print(note)
    print(found.table())
    if out is not None:
        write_json(out, found.to_dict())


@app.command()
def show(
    data: Source,
    split: Annotated[str | None, typer.Option(help="Only this split; default: some of each.")] = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write; default: NAME.png.")] = None,
    count: Annotated[int, typer.Option(help="Pictures on the sheet.")] = 12,
    skip_missing: SkipMissing = False,
) -> None:
    """Draw annotated pictures of a dataset, from few to many objects, on one sheet."""
    from rfdetr.data.drawing import contact_sheet, save_picture
    from rfdetr.files import check_target

    if count < 1:
        raise UserError(f"--count is a number of pictures of at least 1, not {count}")
    if out is not None:
        check_target(out)
    splits = _open(data, split, skip_missing)
    name = next(iter(splits.values())).name
    counts = ", ".join(f"{len(dataset)} {which}" for which, dataset in splits.items())
    sheet = contact_sheet(splits, f"{name}: {counts}", count)
    target = out or Path(f"{name.replace('/', '-')}.png")
    save_picture(sheet, target)
    print(f"written: {target}")


def _open(data: str, split: str | None, skip_missing: bool) -> dict[str, Any]:
    from rfdetr.data.formats.inventory import canonical_split
    from rfdetr.data.registry import available_splits

    names = (canonical_split(split),) if split else available_splits(data)
    return {name: open_data(data, name, skip_missing) for name in names}


def _check_new(folder: Path) -> None:
    """UserError for a destination that exists, or where none can be made."""
    from rfdetr.files import check_folder

    if folder.exists():
        raise UserError(f"{folder} exists already: choose a new folder")
    check_folder(folder, "destination")


@app.command()
def convert(
    source: Source,
    destination: Annotated[Path, typer.Argument(help="COCO-format folder to write; must not exist.")],
    skip_missing: SkipMissing = False,
) -> None:
    """Write a dataset of any known format as a COCO-format folder with train, valid and test."""
    from rfdetr.data.conversion import write_folder

    _check_new(destination)
    splits = _open(source, None, skip_missing)
    write_folder(splits, destination)
    for name, dataset in splits.items():
        print(f"{name}: {len(dataset)} images, {len(dataset.coco['annotations'])} objects")
        if dataset.report:
            print(dataset.report)
    note = next(iter(splits.values())).split_note
    if note:
        print(note)
    print(f"written: {destination}")


@app.command()
def masks(
    source: Source,
    destination: Annotated[Path, typer.Argument(help="COCO-format folder to write; must not exist.")],
    model: Annotated[str, typer.Option(help="Published SAM 2 weights.")] = "facebook/sam2.1-hiera-large",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    skip_missing: SkipMissing = False,
) -> None:
    """Write a dataset that has boxes alone with masks by SAM 2, as the paper does for Objects365.

    Needs `pip install sam2`. Stopped, the same command goes on.
    """
    from rfdetr.data.pseudo_masks import add_masks, sam2_segmenter

    _check_new(destination)
    splits = _open(source, None, skip_missing)
    add_masks(splits, destination, sam2_segmenter(model, device))
    print(f"written: {destination}")
