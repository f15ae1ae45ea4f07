"""Does the package work on a CUDA device? Parity with the processor, and the commands, in a few minutes.

    python benchmarks/cuda_checks.py [--out FOLDER] [--seconds 180] [--device cuda]

Prints one line a check and writes checks.json and one log a command. Exit code 1 when a check failed.
`--device cpu` tries the script itself where there is no GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from rfdetr import RFDETR, Arch
from rfdetr.data.scenes import scenes
from rfdetr.data.transforms import collate
from rfdetr.training.losses import Criterion
from rfdetr.training.precision import Precision

ARCHS = ("r96-p8-w2-d3-q30", "r64-p16-w1-d0-q10", "r112-p14-w4-d2-q20")
SIZES = {
    "embed_dim": 96,
    "depth": 6,
    "heads": 3,
    "feature_layers": (2, 4, 6),
    "base_patch": 16,
    "position_grid": 16,
    "hidden_dim": 96,
    "decoder_layers": 3,
    "queries": 30,
    "groups": 5,
    "self_heads": 4,
    "cross_heads": 8,
    "points": 2,
    "ffn_dim": 256,
}
LIMITS = {"fp32": 1e-4, "bf16": 0.3}
"""Largest relative error, in the norm of all predictions, losses or gradients, against float64 on the
processor. In bfloat16 some proposals change places, which alone makes a tenth.
"""


def parity(device: str, arch: Arch, precision: str) -> dict[str, float]:
    """Relative errors of predictions, losses and gradients of one training step's passes."""
    data = scenes("digits", "train", size=8, canvas=96)
    images, targets = collate(data, range(8), arch.resolution)
    found = {}
    kinds = {"truth": ("cpu", torch.float64, "fp32"), "other": (device, torch.float32, precision)}
    for kind, (place, dtype, name) in kinds.items():
        torch.manual_seed(0)
        model = RFDETR(categories=data.category_ids, **SIZES)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        model = model.to(place, dtype).train()
        with Precision(name, torch.device(place)).autocast():
            output = model(images.to(place, dtype), arch)
        losses = Criterion(model.config.groups)(output, targets)
        losses["total"].backward()
        layers = [*output.layers, output.encoder]
        parts = [part.detach().double().flatten().cpu() for p in layers for part in (p.logits, p.boxes)]
        found[kind] = {
            "predictions": torch.cat(parts),
            "losses": torch.stack([value.detach().double().cpu() for value in losses.values()]),
            "gradients": torch.cat(
                [p.grad.double().flatten().cpu() for p in model.parameters() if p.grad is not None]
            ),
        }
    truth, other = found["truth"], found["other"]
    return {name: float((other[name] - truth[name]).norm() / truth[name].norm()) for name in truth}


def commands(out: Path, device: str) -> dict[str, list[str]]:
    """Name -> arguments of `python -m rfdetr`."""
    trained = str(out / "run" / "checkpoint.pt")
    found = {
        "train": [
            "train",
            "--profile",
            "smoke",
            "--data",
            "digits",
            "--steps",
            "6",
            "--out",
            str(out / "run"),
        ],
        "search": ["search", trained, "--data", "digits", "--profile", "smoke", "--resolutions", "64"],
    }
    found["train"] += ["--out", str(out / "run")]
    found["search"] += ["--measured", "2", "--device", device, "--out", str(out / "search")]
    for name in ("torch", "torch-cudagraph", "torch-compile") if device == "cuda" else ("torch",):
        found[name] = ["benchmark", trained, "--runtime", name, "--arch", "r96-p8-w2-d2-q12"]
        found[name] += ["--samples", "20", "--coco", "digits", "--images", "8", "--pause", "20"]
        found[name] += ["--out", str(out / "records.jsonl")]
    return found


def run_commands(out: Path, device: str, end: float) -> Iterator[dict[str, object]]:
    """Run the commands one after the other; each may take what is left of the time."""
    for name, arguments in commands(out, device).items():
        started, log = time.monotonic(), out / f"{name}.log"
        command = [sys.executable, "-m", "rfdetr", *arguments]
        with log.open("w") as file:
            try:
                left = max(1.0, end - started)
                code = subprocess.run(command, stdout=file, stderr=file, timeout=left, check=False).returncode
            except subprocess.TimeoutExpired:
                code = -1
        last = log.read_text(errors="replace").strip().splitlines()[-3:]
        seconds = round(time.monotonic() - started, 1)
        yield {"check": name, "good": code == 0, "code": code, "seconds": seconds, "last": last}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/cuda-checks"))
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    given.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[dict[str, object]] = []

    def note(row: dict[str, object]) -> None:
        rows.append(row)
        print(
            "good  " if row["good"] else "FAILED", {k: v for k, v in row.items() if k != "good"}, flush=True
        )
        (given.out / "checks.json").write_text(json.dumps(rows, indent=1))

    for precision, limit in LIMITS.items():
        for name in ARCHS:
            errors = parity(given.device, Arch.parse(name), precision)
            # In bfloat16 another assignment of a query to an object changes losses and gradients wholly.
            decisive = errors["predictions"] if precision == "bf16" else max(errors.values())
            note({"check": f"parity {precision} {name}", "good": decisive < limit, **errors})
    for row in run_commands(given.out, given.device, end):
        note(row)
    records = given.out / "records.jsonl"
    for line in records.read_text().splitlines() if records.is_file() else []:
        record = json.loads(line)
        record = record.get("latency", record)
        if "statistics" not in record:
            continue
        row = {name: record.get(name) for name in ("runtime", "throttle", "readings", "noisy")}
        watched = given.device != "cuda" or "power" in json.dumps(record["readings"])
        note({"check": "power is read", "good": watched, **row, "ms": record["statistics"]["median_ms"]})
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
