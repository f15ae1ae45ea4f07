"""Command line: `python -m rfdetr train | evaluate | search | export | predict | benchmark | t4 | data | book | audit`.

Exit codes: 0 good, 1 a failure (a chapter or check that did not pass), 2 wrong input, 130 interrupted.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rfdetr import cli_data, cli_measure, cli_results
from rfdetr.arch import Arch, ArchError, SearchSpace
from rfdetr.cli_common import Data, Knobs, Weights, chosen_arch, with_knobs
from rfdetr.errors import UserError
from rfdetr.networks import open_network

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="RF-DETR with its neural architecture search: train a supernet, search it, measure it, read the book.",
)

app.add_typer(cli_data.app, name="data")


@app.command()
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

    from rfdetr.data.registry import load_dataset
    from rfdetr.experiments.profiles import get_profile
    from rfdetr.model.detector import RFDETR, build
    from rfdetr.training.config import TrainConfig
    from rfdetr.training.loop import train as run

    recipe = get_profile(profile).recipe
    dataset, val = load_dataset(data, "train"), load_dataset(data, "val")
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"class_names": dataset.class_names, "segmentation": segmentation}
    sizes |= {k: v for k, v in (("decoder_layers", decoder_layers), ("queries", queries)) if v is not None}
    if weights is not None:
        from rfdetr.model.weights import with_classes

        start = open_network(weights)
        model = start if start.config.class_names == dataset.class_names else None
        if model is None:
            model, report = with_classes(start, dataset.num_classes, dataset.class_names)
            print(report)
    elif preset is not None:
        model = build(preset, dataset.num_classes, **sizes)
    else:
        model = RFDETR(dataset.num_classes, **{**recipe.model, **sizes})
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
        "steps": steps, "batch_size": batch_size, "accumulate": accumulate, "lr": lr, "encoder_lr": encoder_lr,
        "precision": precision,
    }  # fmt: skip
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
        print(f"{row['arch']}: AP {row['AP']:.3f} on {val!r}")
    print(f"checkpoint: {result.checkpoint}")


def _scene_names() -> tuple[str, ...]:
    from rfdetr.data.scenes import DOMAINS

    return tuple(DOMAINS)


@app.command()
def evaluate(
    weights: Weights,
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    arch: Knobs = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
) -> None:
    """COCO average precision of one sub-network, or of an ONNX file, on a dataset."""
    from rfdetr.data.registry import load_dataset
    from rfdetr.files import write_json

    dataset = load_dataset(data, split)
    if weights.endswith(".onnx"):
        from rfdetr.benchmark.accuracy import evaluate_artifact
        from rfdetr.benchmark.artifact import load_artifact

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
        print(f"  {metric:12s} {value:.4f}")
    for label, value in result.boxes.per_class.items():
        print(f"  AP of {label}: {value:.4f}")
    if out is not None:
        write_json(out, {"arch": name, "dataset": repr(dataset), **row, "per_class": result.boxes.per_class})


app.command()(cli_measure.search)
app.command()(cli_results.select)
app.command()(cli_results.results)
app.command()(cli_measure.benchmark)
app.command()(cli_measure.t4)


@app.command()
def export(
    weights: Weights,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")] = Path("model.onnx"),
    arch: Knobs = None,
    dynamic_batch: Annotated[bool, typer.Option(help="Leave the batch size open.")] = False,
    batch: Annotated[int, typer.Option(help="Fixed batch size.")] = 1,
) -> None:
    """Write one sub-network as an ONNX file and check it against the network."""
    from rfdetr.benchmark.export import export_onnx

    model = open_network(weights)
    artifact = export_onnx(model, chosen_arch(model, arch), out, dynamic_batch=dynamic_batch, batch=batch)
    print(f"{artifact.path}\nsha256 {artifact.sha256}")


@app.command()
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


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="smoke, cpu, full, gpu or t4.")] = "cpu",
    chapter: Annotated[list[str] | None, typer.Option(help="Only these chapters, e.g. 05_search.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value, for the chapters named.")
    ] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds that one cell may take.")] = None,
    force: Annotated[bool, typer.Option(help="Execute also what did not change.")] = False,
    site: Annotated[bool, typer.Option(help="Build the site after the chapters.")] = True,
) -> None:
    """Execute the chapters that changed and build the site."""
    from rfdetr.book import build_book, parse_parameters

    result = build_book(
        profile, chapter or None, parse_parameters(parameter or []), timeout=timeout, force=force, site=site
    )
    raise typer.Exit(result.exit_code)


# Newer releases of typer carry their own copy of click, so the class is taken from where it surely is.
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; user errors are one line on standard error."""
    try:
        code = app(args=arguments, prog_name="python -m rfdetr", standalone_mode=False)
    except (UserError, ArchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("\ninterrupted; what was finished is kept, the same command goes on", file=sys.stderr)
        return 130
    except _USAGE_ERROR as error:
        error.show()
        return 2
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return code if isinstance(code, int) else 0
