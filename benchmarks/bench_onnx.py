"""Our exported graph against the Transformers package's, in ONNX Runtime on the CPU: same sizes, same
weights.

    python benchmarks/bench_onnx.py [--preset nano] [--repeats 15] [--threads 1 2] [--clock wall|cpu]

Both go through PyTorch's exporter (opset 18), theirs with its optimiser on; passes are taken in turns.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from side_by_side import describe_machine, interleave, pair, report

from rfdetr.export.graph import OPSET, quiet_exporter
from rfdetr.export.onnx import export_onnx


class Plain(torch.nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(pixel_values=images)
        return output.logits, output.pred_boxes


def session(path: Path, threads: int, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    torch.manual_seed(0)
    describe_machine()
    ours, theirs = pair(options.preset)
    ours.eval(), theirs.eval()
    side = ours.config.default_arch.resolution
    images = torch.randn(1, 3, side, side)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = {"ours": folder / "ours.onnx", "Transformers": folder / "theirs.onnx"}
        export_onnx(ours, None, paths["ours"])
        with quiet_exporter(), torch.no_grad():
            torch.onnx.export(
                Plain(theirs).eval(),
                (images,),
                paths["Transformers"],
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits", "boxes"],
                external_data=False,
                verbose=False,
            )
        for name, path in paths.items():
            optimised = folder / f"optimised-{path.name}"
            session(path, 1, optimised)
            print(
                f"{name}: {nodes(path)} nodes exported, {nodes(optimised)} after ONNX Runtime's optimisation"
            )
        feed = {"images": images.numpy()}
        for threads in options.threads:
            sessions = {name: session(path, threads) for name, path in paths.items()}
            boxes = {name: s.run(["boxes"], feed)[0] for name, s in sessions.items()}
            difference = float(np.median(np.abs(boxes["ours"] - boxes["Transformers"])))
            assert difference < 1e-2, f"the graphs do not compute the same boxes ({difference})"
            runs = {name: lambda s=s: s.run(None, feed) for name, s in sessions.items()}
            times = interleave(runs, options.repeats, options.clock)
            report(f"{options.preset}, {threads} threads", times)


if __name__ == "__main__":
    main()
