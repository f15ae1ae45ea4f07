"""`python -m rfdetr train` and `evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfdetr.cli.arguments import (
    Categories,
    Data,
    Knobs,
    SkipMissing,
    Weights,
    check_counts,
    chosen_arch,
    chosen_data,
    exported_file,
    open_data,
    shown,
)
from rfdetr.networks import is_exported, open_network

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset


def train(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder of checkpoint, log, plan and evaluations.")] = Path(
        "runs/train"
    ),
    profile: Annotated[
        str | None,
        typer.Option(
            help="From random weights: sizes, training grid and recipe of smoke, cpu (default), full or gpu."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Network of a published configuration, e.g. nano, with random weights.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help=(
                "Train this network further: nano, nano:FILE, or a checkpoint or folder of `train`. Recipe of"
                " the paper's Appendix A; grid around its own sizes, or the one it was trained on."
            )
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Start the backbone of --preset or --profile from DINOv2: dinov2, or a file."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="Train this one architecture, e.g. r96-p8-w2-d3-q30, instead of a grid."),
    ] = None,
    resolutions: Annotated[str | None, typer.Option(help="Training grid, px, e.g. 128,160,192.")] = None,
    patch_sizes: Annotated[str | None, typer.Option(help="Training grid, px.")] = None,
    windows: Annotated[str | None, typer.Option(help="Training grid, windows per side.")] = None,
    decoder_layers: Annotated[int | None, typer.Option(help="Decoder layers of a new network.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries of a new network.")] = None,
    segmentation: Annotated[
        bool | None,
        typer.Option(help="With a mask head (the data needs masks) or without; default: as the network is."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Weight updates in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per forward pass and process.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes per weight update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of all parts but the backbone.")] = None,
    encoder_lr: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, architectures and augmentation; default 0.")
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations on val; 0 (default): at the end only.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many evaluations without a better AP, and keep the best weights."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Also write curves for TensorBoard (pip install tensorboard).")
    ] = False,
    devices: Annotated[
        int,
        typer.Option(
            help="Processes on this machine, each with --batch-size images: one per GPU, or sharing the"
            " processor, where 2 to 4 of them train a small network faster than one."
        ),
    ] = 1,
    resume: Annotated[bool, typer.Option(help="Go on from a checkpoint in --out.")] = True,
    skip_missing: SkipMissing = False,
) -> None:
    """Train a supernet (or, with --arch, one architecture) on a dataset.

    What was chosen is printed before the first step and kept in --out. The same command again, or `train
    --out` alone, goes on with a training that was stopped.
    """
    from rfdetr.cli.start import Options, start
    from rfdetr.files import check_folder
    from rfdetr.training.evaluations import FILLED, empty_masks
    from rfdetr.training.loop import train as run

    check_folder(out)
    recipe = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "encoder_lr": encoder_lr,
        "precision": precision,
        "evaluate_every": evaluate_every,
        "patience": patience,
    }
    begun = start(
        Options(
            out=out,
            data=data,
            profile=profile,
            preset=preset,
            weights=weights,
            backbone=backbone,
            arch=arch,
            resolutions=resolutions,
            patch_sizes=patch_sizes,
            windows=windows,
            decoder_layers=decoder_layers,
            queries=queries,
            segmentation=segmentation,
            seed=seed,
            resume=resume,
            skip_missing=skip_missing,
            recipe={name: value for name, value in recipe.items() if value is not None},
        )
    )
    for message in begun.messages:
        print(message, flush=True)
    result = run(
        begun.model,
        begun.dataset,
        begun.space,
        begun.config,
        out,
        begun.val,
        resume=resume,
        progress=True,
        devices=devices,
        notes=begun.notes,
        tensorboard=tensorboard,
    )
    for row in [row for row in result.evaluations if row["step"] == result.best_step]:
        masks = f", mask AP {shown(row['mask_AP'], 3)}" if "mask_AP" in row else ""
        print(f"{row['arch']}: AP {shown(row['AP'], 3)}{masks} on {begun.val!r}")
        if not row.get(FILLED, 1.0):
            print(f"warning: {empty_masks(row['arch'])}")
    if result.best_step != result.step:
        print(f"the best weights are those of step {result.best_step} of {result.step}")
    print(f"checkpoint: {result.checkpoint}")


def evaluate(
    weights: Weights,
    data: Data = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test; default: test, or val if there is no test split."),
    ] = None,
    arch: Knobs = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
    categories: Categories = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    skip_missing: SkipMissing = False,
) -> None:
    """COCO average precision of one sub-network, or of an exported file, on a dataset."""
    from rfdetr.evaluation.coco import evaluate as run
    from rfdetr.files import check_target, write_json
    from rfdetr.training.evaluations import empty_masks, filled_share

    check_counts(batch_size=batch_size)
    if out is not None:
        check_target(out)
    if is_exported(weights):
        file = exported_file(weights, arch, categories)
        dataset = _evaluated(chosen_data(None, data), split, skip_missing)
        result, name = run(file, dataset, batch_size=batch_size, progress=True), file.runtime.artifact.name
    else:
        model = open_network(weights, categories)
        dataset = _evaluated(chosen_data(model, data), split, skip_missing)
        chosen = chosen_arch(model, arch)
        result, name = run(model, dataset, chosen, batch_size=batch_size, progress=True), chosen.id
    row = result.row()
    if out is not None:  # before anything is printed: whoever reads the output may leave after a line
        write_json(out, {"arch": name, "dataset": repr(dataset), **row, "per_class": result.boxes.per_class})
    print(f"{name} on {dataset!r}")
    for metric, value in row.items():
        print(f"  {metric:12s} {shown(value)}")
    if result.masks is not None and not filled_share(result.detections):
        print(f"warning: {empty_masks(name)}")
    for label, value in result.boxes.per_class.items():
        print(f"  AP of {label}: {shown(value)}")


def _evaluated(data: str, split: str | None, skip_missing: bool) -> "DetectionDataset":
    """The split that is evaluated, its problems said; test, or val where there is no test split."""
    from rfdetr.data.checks import announce
    from rfdetr.errors import NotFoundError

    try:
        dataset = open_data(data, split or "test", skip_missing)
    except NotFoundError as error:
        if split is not None:
            raise
        try:
            dataset = open_data(data, "val", skip_missing)
        except NotFoundError:
            raise error from None
        print(f"{data} has no test split: evaluating val")
    announce(dataset)
    return dataset
