"""Our exported graph against those of other packages: same sizes, same random weights, in turns.

    python benchmarks/bench_onnx.py [--preset nano seg-nano] [--runtimes onnxruntime openvino]
        [--threads 1 2] [--repeats 15] [--clock wall|cpu] [--published PYTHON] [--out FOLDER]

The Transformers package's goes through PyTorch's exporter as ours does (opset 18), with its optimiser on.
`--published` is the Python of another environment, where the published package is installed (its import
name is that of this one): it reads the checkpoint that we write in its layout, and exports that itself.
With `--out` (results/graph-ratio, which chapter 06 shows) the ratios are kept: wall time, on a machine that
does as little else as possible; passes in turns make a busy machine slow all alike.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from side_by_side import describe_machine, interleave, ratios, report

from rfdetr.export.graph import OPSET, quiet_exporter
from rfdetr.export.onnx import export_onnx
from rfdetr.export.published import write_published, write_transformers
from rfdetr.networks import RANDOM, open_network

OURS, TRANSFORMERS, PUBLISHED = "ours", "transformers", "rfdetr"
BOXES = {OURS: "boxes", TRANSFORMERS: "boxes", PUBLISHED: "dets"}


class Plain(torch.nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, model: torch.nn.Module, masks: bool) -> None:
        super().__init__()
        self.model, self.masks = model, masks

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(pixel_values=images)
        found = (output.logits, output.pred_boxes)
        return (*found, output.pred_masks) if self.masks else found


def exported(preset: str, folder: Path, python: str = "") -> tuple[dict[str, Path], np.ndarray]:
    """The files of a configuration with the same random weights, and their input.

    python: of an environment with the published package; empty: without its file.
    """
    try:
        from transformers import RfDetrForInstanceSegmentation, RfDetrForObjectDetection
    except ImportError as error:
        raise SystemExit(
            "this benchmark needs transformers 5.23 or newer: pip install transformers"
        ) from error
    network = open_network(RANDOM + preset)
    for weight in network.parameters():
        # As drawn, the last layers of boxes are zero: all graphs would agree on them.
        if weight.dim() > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    masks = network.config.segmentation
    kind = RfDetrForInstanceSegmentation if masks else RfDetrForObjectDetection
    theirs = kind.from_pretrained(write_transformers(network, folder / f"{preset}-transformers")).eval()
    side = network.config.default_arch.resolution
    images = torch.randn(1, 3, side, side)
    paths = {OURS: folder / f"{preset}-ours.onnx", TRANSFORMERS: folder / f"{preset}-theirs.onnx"}
    export_onnx(network, None, paths[OURS], preset=preset)
    with quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            Plain(theirs, masks),
            (images,),
            paths[TRANSFORMERS],
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits", "boxes", *(["masks"] if masks else [])],
            external_data=False,
            verbose=False,
        )
    if python:
        write_published(network, folder / f"{preset}.pth")
        script = Path(__file__).with_name("published_export.py")
        command = [python, script, folder / f"{preset}.pth", folder / f"{preset}-published"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        paths[PUBLISHED] = Path(done.stdout.splitlines()[-1])
    return paths, images.numpy()


def session(path: Path, threads: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (image,) = loaded.get_inputs()
    names = [output.name for output in loaded.get_outputs()]
    return lambda images: dict(zip(names, loaded.run(None, {image.name: images}), strict=True))


def compiled(path: Path, threads: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file in OpenVINO, FP32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(str(path)), "CPU", options).create_infer_request()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {output.any_name: value for output, value in request.infer([images]).items()}

    return run


RUNTIMES = {"onnxruntime": session, "openvino": compiled}


def version(package: str) -> str:
    """Name and version of a package here."""
    from importlib.metadata import version as of

    return f"{package} {of(package)}"


def versions(python: str) -> dict[str, str]:
    """Name of another exporter -> the package and its version, as a reader knows it."""
    found = {TRANSFORMERS: version(TRANSFORMERS)}
    if python:
        script = f"from importlib.metadata import version; print(version({PUBLISHED!r}))"
        done = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
        found[PUBLISHED] = f"published {PUBLISHED} {done.stdout.strip()}"
    return found


def compared(
    preset: str, options: argparse.Namespace, folder: Path, against: dict[str, str]
) -> list[dict[str, Any]]:
    """One row per runtime, number of threads and other exporter."""
    paths, images = exported(preset, folder, options.published)
    nodes = {name: len(onnx.load(path, load_external_data=False).graph.node) for name, path in paths.items()}
    print(f"\n{preset}: nodes exported {nodes}")
    rows = []
    for runtime in options.runtimes:
        for threads in options.threads:
            loaded = {name: RUNTIMES[runtime](path, threads) for name, path in paths.items()}
            boxes = {name: run(images)[BOXES[name]] for name, run in loaded.items()}
            runs = {name: lambda run=run: run(images) for name, run in loaded.items()}
            times = interleave(runs, options.repeats, options.clock)
            report(f"{preset}, {runtime}, threads: {threads}", times)
            for other, known in against.items():
                # The middle one: queries whose scores are nearly equal may change places.
                difference = float(np.median(np.abs(boxes[OURS] - boxes[other])))
                assert difference < 1e-4, f"{other} computes other boxes ({difference})"
                low, *_, high = found = ratios(times[other], times[OURS])
                rows.append(
                    {
                        "against": known,
                        "preset": preset,
                        "runtime": version(runtime),
                        "threads": threads,
                        "ours_ms": 1e3 * median(times[OURS]),
                        "theirs_ms": 1e3 * median(times[other]),
                        "ratio": median(found),
                        "low": low,
                        "high": high,
                        "passes": options.repeats,
                        "ours_nodes": nodes[OURS],
                        "theirs_nodes": nodes[other],
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", nargs="+", default=["nano"])
    parser.add_argument("--runtimes", nargs="+", choices=list(RUNTIMES), default=["onnxruntime"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--published", metavar="PYTHON", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    describe_machine()
    against = versions(options.published)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for one in options.preset for row in compared(one, options, Path(scratch), against)]
    if options.out is not None:
        import pandas as pd

        from rfdetr.experiments.base import kept
        from rfdetr.provenance import provenance

        kept.keep(
            options.out,
            {"ratios": pd.DataFrame(rows)},
            provenance("cpu", 0),
            clock=options.clock,
        )


if __name__ == "__main__":
    main()
