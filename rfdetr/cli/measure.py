"""`python -m rfdetr export`, `benchmark` and `t4`: one artifact, its latency, its accuracy."""

from pathlib import Path
from typing import Annotated

import typer

from rfdetr.cli.arguments import Categories, Knobs, Weights, check_counts, chosen_arch
from rfdetr.errors import UserError
from rfdetr.files import check_folder, check_target
from rfdetr.networks import open_network, runtime_for

PRECISION_HELP = (
    "fp32, or what the runtime can: fp16 (the default of tensorrt), tf32 (tensorrt), bf16 (openvino, torch),"
    " int8 (openvino, onnxruntime), int8+bf16 (openvino)."
)


def export(
    weights: Weights,
    out: Annotated[
        Path | None, typer.Option(help="File to write (a folder for transformers); default: model.<ending>.")
    ] = None,
    arch: Knobs = None,
    format: Annotated[
        str,
        typer.Option(
            help=(
                "onnx; openvino (.xml) and tensorrt (.engine) need their runtimes; published: a checkpoint"
                " of the"
                " published package; transformers: a folder for from_pretrained."
            )
        ),
    ] = "onnx",
    io: Annotated[
        str, typer.Option(help="Names of the ONNX tensors: own, or published (input; dets, labels, masks).")
    ] = "own",
    precision: Annotated[str, typer.Option(help="Of a TensorRT engine.")] = "fp16",
    dynamic_batch: Annotated[bool, typer.Option(help="Leave the batch size open.")] = False,
    batch: Annotated[int, typer.Option(help="Fixed batch size.")] = 1,
    categories: Categories = None,
) -> None:
    """Write one sub-network as a file that works alone, checked against the network."""
    from rfdetr.export.formats import ENDINGS, write

    if format not in ENDINGS:
        raise UserError(f"--format is one of {', '.join(ENDINGS)}, not {format!r}")
    if io not in ("own", "published"):
        raise UserError(f"--io is own or published, not {io!r}")
    if io == "published" and format != "onnx":
        raise UserError(
            f"--io published names the tensors of an ONNX file; leave it out with --format {format}"
        )
    target = out or Path(f"model{ENDINGS[format]}")
    if format == "transformers":
        check_folder(target)
    else:
        check_target(target, suffix=ENDINGS[format])
    model = open_network(weights, categories)
    chosen = chosen_arch(model, arch)
    if format == "tensorrt":
        from rfdetr.benchmark.runtimes.tensorrt_build import build_engine
        from rfdetr.export.onnx import export_onnx

        onnx_file = target.with_suffix(".onnx")
        source = export_onnx(model, chosen, onnx_file, dynamic_batch=dynamic_batch, batch=batch)
        engine = build_engine(source, target, precision)
        print(f"{engine.path}\nsha256 {engine.sha256}")
        return
    print(write(model, chosen, target, format, io, dynamic_batch=dynamic_batch, batch=batch))


def benchmark(
    target: Annotated[
        str, typer.Argument(help="An .onnx, .xml or .engine file, a checkpoint, nano, or random:nano.")
    ],
    runtime: Annotated[
        str | None,
        typer.Option(
            help=(
                "onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, tensorrt, torch,"
                " torch-compile, torch-cudagraph; default: the file's, or onnxruntime."
            )
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="buffered (default), sustained, rate; may be repeated.")
    ] = None,
    arch: Knobs = None,
    precision: Annotated[str, typer.Option(help=PRECISION_HELP)] = "",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    batch: Annotated[int | None, typer.Option(help="Images per pass; default: the file's, or 1.")] = None,
    pause: Annotated[
        list[float] | None, typer.Option(help="Pause in ms of `buffered`; may be repeated.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Passes of `buffered`.")] = 50,
    seconds: Annotated[float, typer.Option(help="Length of `sustained` and `rate`.")] = 10.0,
    fps: Annotated[
        list[float] | None, typer.Option(help="Frames per second of `rate`; may be repeated.")
    ] = None,
    coco: Annotated[str | None, typer.Option(help="Also evaluate the same artifact on this dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of --coco.")] = "val",
    images: Annotated[int | None, typer.Option(help="At most so many images of --coco.")] = None,
    nms: Annotated[bool, typer.Option(help="End every pass with non-maximum suppression.")] = False,
    device: Annotated[int, typer.Option(help="Index of the GPU, as CUDA counts.")] = 0,
    categories: Categories = None,
    out: Annotated[Path | None, typer.Option(help="File of records (JSON lines) to append to.")] = None,
) -> None:
    """Time one artifact under one or more protocols and, with --coco, evaluate the same artifact."""
    from rfdetr.benchmark.lab import benchmark_command

    check_counts(threads=threads, batch=batch, samples=samples, images=images)
    if out is not None:
        check_target(out)
    benchmark_command(
        target,
        runtime or runtime_for(target),
        protocol or ["buffered"],
        arch,
        precision,
        threads,
        batch,
        pause or [200.0],
        samples,
        seconds,
        fps or [30.0],
        coco=coco,
        split=split,
        images=images,
        nms=nms,
        device=device,
        categories=categories,
        out=out,
    )


def t4(
    out: Annotated[Path, typer.Option(help="Folder of engines, records.jsonl and t4.csv.")] = Path("runs/t4"),
    data: Annotated[str, typer.Option(help="Dataset of the accuracies; empty leaves them out.")] = "coco2017",
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    model: Annotated[
        list[str] | None, typer.Option(help="Networks; may be repeated. Default: nano to large and seg-nano.")
    ] = None,
    other: Annotated[
        list[str] | None, typer.Option(help="name=file.onnx of another detector; may be repeated.")
    ] = None,
    engines: Annotated[int, typer.Option(help="Engine builds per network and precision.")] = 3,
    samples: Annotated[int, typer.Option(help="Passes per engine and pause.")] = 100,
    sustained: Annotated[
        float, typer.Option(help="Seconds of the sustained protocol; 0 leaves it out.")
    ] = 30.0,
    device: Annotated[int, typer.Option(help="Index of the GPU.")] = 0,
) -> None:
    """Table 1 and Table 20 on an NVIDIA T4: engines, pauses, and the accuracy of the engine that was
    timed.
    """
    from rfdetr.benchmark import t4 as recipe
    from rfdetr.benchmark.lab import table_text
    from rfdetr.data.registry import load_dataset

    others = {}
    for text in other or []:
        name, _, path = text.partition("=")
        if not path:
            raise UserError(f"--other takes name=file.onnx, not {text!r}")
        others[name] = path
    check_folder(out)
    recipe.check_device(device)
    dataset = load_dataset(data, split) if data else None
    frame = recipe.run_t4(
        out,
        dataset,
        tuple(model or recipe.MODELS),
        others,
        engines=engines,
        samples=samples,
        sustained_s=sustained,
        device=device,
    )
    print(table_text(frame, recipe.COLUMNS))
    print(f"records: {out / 'records.jsonl'}, table: {out / 't4.csv'}")
