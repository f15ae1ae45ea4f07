"""Our exported graph against that of the Transformers package: same sizes, same weights, in turns.

    python benchmarks/bench_onnx.py [--preset nano seg-nano] [--runtimes onnxruntime openvino]
        [--threads 1 2] [--repeats 15] [--clock wall|cpu] [--out FOLDER]

Both go through PyTorch's exporter (opset 18), theirs with its optimiser on. With `--out`
(results/graph-ratio, which chapter 06 shows) the ratios are kept: wall time, on a machine that does as
little else as possible; passes in turns make a busy machine slow both alike.
"""

import argparse
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
from rfdetr.export.published import write_transformers
from rfdetr.networks import RANDOM, open_network

OURS, THEIRS = "ours", "Transformers"


class Plain(torch.nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, model: torch.nn.Module, masks: bool) -> None:
        super().__init__()
        self.model, self.masks = model, masks

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(pixel_values=images)
        found = (output.logits, output.pred_boxes)
        return (*found, output.pred_masks) if self.masks else found


def exported(preset: str, folder: Path) -> tuple[dict[str, Path], dict[str, np.ndarray]]:
    """The two files of a configuration with the same random weights, and their input."""
    try:
        from transformers import RfDetrForInstanceSegmentation, RfDetrForObjectDetection
    except ImportError as error:
        raise SystemExit(
            "this benchmark needs transformers 5.23 or newer: pip install transformers"
        ) from error
    network = open_network(RANDOM + preset)
    masks = network.config.segmentation
    kind = RfDetrForInstanceSegmentation if masks else RfDetrForObjectDetection
    theirs = kind.from_pretrained(write_transformers(network, folder / f"{preset}-transformers")).eval()
    side = network.config.default_arch.resolution
    images = torch.randn(1, 3, side, side)
    paths = {OURS: folder / f"{preset}-ours.onnx", THEIRS: folder / f"{preset}-theirs.onnx"}
    export_onnx(network, None, paths[OURS], preset=preset)
    with quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            Plain(theirs, masks),
            (images,),
            paths[THEIRS],
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits", "boxes", *(["masks"] if masks else [])],
            external_data=False,
            verbose=False,
        )
    return paths, {"images": images.numpy()}


def session(path: Path, threads: int) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in loaded.get_outputs()]
    return lambda feed: dict(zip(names, loaded.run(None, feed), strict=True))


def compiled(path: Path, threads: int) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The file in OpenVINO, FP32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(str(path)), "CPU", options).create_infer_request()

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {output.any_name: value for output, value in request.infer(feed).items()}

    return run


RUNTIMES = {"onnxruntime": session, "openvino": compiled}


def version(runtime: str) -> str:
    """Name and version of a runtime."""
    from importlib.metadata import version as of

    return f"{runtime} {of(runtime)}"


def compared(preset: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row per runtime and number of threads."""
    paths, feed = exported(preset, folder)
    nodes = {name: len(onnx.load(path, load_external_data=False).graph.node) for name, path in paths.items()}
    print(f"\n{preset}: nodes exported {nodes}")
    rows = []
    for runtime in options.runtimes:
        for threads in options.threads:
            loaded = {name: RUNTIMES[runtime](path, threads) for name, path in paths.items()}
            boxes = {name: run(feed)["boxes"] for name, run in loaded.items()}
            difference = float(np.median(np.abs(boxes[OURS] - boxes[THEIRS])))
            assert difference < 1e-2, f"the graphs do not compute the same boxes ({difference})"
            runs = {name: lambda run=run: run(feed) for name, run in loaded.items()}
            times = interleave(runs, options.repeats, options.clock)
            report(f"{preset}, {runtime}, threads: {threads}", times)
            low, *_, high = found = ratios(times[THEIRS], times[OURS])
            rows.append(
                {
                    "preset": preset,
                    "runtime": version(runtime),
                    "threads": threads,
                    "ours_ms": 1e3 * median(times[OURS]),
                    "theirs_ms": 1e3 * median(times[THEIRS]),
                    "ratio": median(found),
                    "low": low,
                    "high": high,
                    "passes": options.repeats,
                    "ours_nodes": nodes[OURS],
                    "theirs_nodes": nodes[THEIRS],
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
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for preset in options.preset for row in compared(preset, options, Path(scratch))]
    if options.out is not None:
        import pandas as pd

        from rfdetr.experiments.base import kept
        from rfdetr.provenance import provenance

        kept.keep(
            options.out,
            {"ratios": pd.DataFrame(rows)},
            provenance("cpu", 0),
            against=version("transformers"),
            clock=options.clock,
        )


if __name__ == "__main__":
    main()
