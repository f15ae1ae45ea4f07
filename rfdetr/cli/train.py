"""`python -m rfdetr train` and `evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rfdetr.arch import Arch, SearchSpace
from rfdetr.cli.arguments import Data, Knobs, Weights, chosen_arch, shown, with_knobs
from rfdetr.networks import open_network


def train(
    data: Data = "digits",
    out: Annotated[Path, typer.Option(help="Folder of checkpoint, log and evaluations.")] = Path(
        "runs/train"
    ),
    profile: Annotated[
        str, typer.Option(help="Sizes and recipe to start from: smoke, cpu, full, gpu.")
    ] = "cpu",
    preset: Annotated[
        str | None, typer.Option(help="Network of a published configuration, e.g. nano.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from this checkpoint's weights (fine-tuning).")
    ] = None,
    arch: Knobs = None,
    resolutions: Annotated[str | None, typer.Option(help="Training grid, px, e.g. 128,160,192.")] = None,
    patch_sizes: Annotated[str | None, typer.Option(help="Training grid, px.")] = None,
    windows: Annotated[str | None, typer.Option(help="Training grid, windows per side.")] = None,
    decoder_layers: Annotated[int | None, typer.Option(help="Decoder layers of the network.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries of the network.")] = None,
    segmentation: Annotated[bool, typer.Option(help="Add a mask head (the data needs masks).")] = False,
    steps: Annotated[int | None, typer.Option(help="Weight updates in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per forward pass and process.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes per weight update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of all parts but the backbone.")] = None,
    encoder_lr: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, architectures and augmentation.")] = 0,
    evaluate_every: Annotated[
        int, typer.Option(help="Steps between evaluations on val; 0: at the end only.")
    ] = 0,
    devices: Annotated[int, typer.Option(help="Processes (GPUs) on this machine.")] = 1,
    resume: Annotated[bool, typer.Option(help="Go on from a checkpoint in --out.")] = True,
) -> None:
    """Train a supernet (or, with --arch, one architecture) on a dataset."""
    import torch

    from rfdetr.data.checks import before_training
    from rfdetr.data.registry import load_dataset
    from rfdetr.experiments.base.profiles import get_profile
    from rfdetr.model.detector import RFDETR, build
    from rfdetr.training.config import TrainConfig
    from rfdetr.training.loop import train as run

    recipe = get_profile(profile).recipe
    dataset, val = load_dataset(data, "train"), load_dataset(data, "val")
    before_training(dataset, val)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"categories": dataset.category_ids, "segmentation": segmentation}
    sizes |= {k: v for k, v in (("decoder_layers", decoder_layers), ("queries", queries)) if v is not None}
    if weights is not None:
        from rfdetr.model.weights import with_classes

        start = open_network(weights)
        model = start if start.config.categories == dataset.category_ids else None
        if model is None:
            model, report = with_classes(start, categories=dataset.category_ids)
            print(report)
    elif preset is not None:
        model = build(preset, **sizes)
    else:
        model = RFDETR(**{**recipe.model, **sizes})
    config = model.config
    base = SearchSpace(
        recipe.training.resolutions,
        recipe.training.patch_sizes,
        recipe.training.windows,
        (config.decoder_layers,),
        (config.queries,),
    )
    given = {"resolutions": resolutions, "patch_sizes": patch_sizes, "windows": windows}
    space: SearchSpace | Arch = Arch.parse(arch) if arch else with_knobs(base, **given)
    changes = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "lr": lr,
        "encoder_lr": encoder_lr,
        "precision": precision,
    }
    values = {**recipe.train, **{k: v for k, v in changes.items() if v is not None}}
    values |= {"seed": seed, "evaluate_every": evaluate_every, "augment": data not in _scene_names()}
    result = run(
        model,
        dataset,
        space,
        TrainConfig.from_dict(values),
        out,
        val,
        resume=resume,
        progress=True,
        devices=devices,
    )
    for row in [row for row in result.evaluations if row["step"] == result.step]:
        print(f"{row['arch']}: AP {shown(row['AP'], 3)} on {val!r}")
    print(f"checkpoint: {result.checkpoint}")


def _scene_names() -> tuple[str, ...]:
    from rfdetr.data.scenes import DOMAINS

    return tuple(DOMAINS)


def evaluate(
    weights: Weights,
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    arch: Knobs = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """COCO average precision of one sub-network, or of an ONNX file, on a dataset."""
    from rfdetr.data.checks import announce
    from rfdetr.data.registry import load_dataset
    from rfdetr.files import write_json

    dataset = load_dataset(data, split)
    announce(dataset)
    if weights.endswith(".onnx"):
        from rfdetr.benchmark.accuracy import evaluate_artifact
        from rfdetr.export.artifact import load_artifact

        artifact = load_artifact(weights)
        result, name = evaluate_artifact(artifact, dataset), artifact.name
    else:
        from rfdetr.evaluation.coco import evaluate as run

        model = open_network(weights)
        chosen = chosen_arch(model, arch)
        result, name = run(model, dataset, chosen, batch_size=batch_size, progress=True), chosen.id
    row = result.row()
    print(f"{name} on {dataset!r}")
    for metric, value in row.items():
        print(f"  {metric:12s} {shown(value)}")
    for label, value in result.boxes.per_class.items():
        print(f"  AP of {label}: {shown(value)}")
    if out is not None:
        write_json(out, {"arch": name, "dataset": repr(dataset), **row, "per_class": result.boxes.per_class})
