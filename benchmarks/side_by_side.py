"""Shared by the benchmarks: two networks with the same weights, fair timing, and where the time goes."""

import argparse
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

import rfdetr
from rfdetr.model.config import preset_config
from rfdetr.model.official import from_published
from rfdetr.model.published_names import from_transformers

# What the floor of the running time is made of; everything else is overhead to be removed.
KERNELS = {
    "matrix products": r"(add|b|badd)?(mm|bmm)$|linear|mkldnn::_linear_pointwise",
    "convolutions": r".*(convolution|conv2d)",
    "attention": r"_scaled_dot_product|_flash_attention",
    "sampling": r"grid_sampler",
}


def options(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Options that all side-by-side benchmarks have; `start` reads them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The given options, with torch's threads and seed set and the machine described."""
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    describe_machine()
    return given


def pair(name: str, num_classes: int = 91):
    """(our network, the Transformers package's) of a detection preset with the same random weights,
    float32.
    """
    try:
        from transformers import RfDetrConfig, RfDetrForObjectDetection
    except ImportError as error:
        raise SystemExit(
            "this benchmark needs transformers 5.23 or newer: pip install transformers"
        ) from error
    config = preset_config(name, num_classes)
    arch = config.default_arch
    theirs = RfDetrForObjectDetection(
        RfDetrConfig(
            backbone_config={
                "model_type": "rf_detr_dinov2",
                "hidden_size": config.embed_dim,
                "num_attention_heads": config.heads,
                "num_hidden_layers": config.depth,
                "image_size": arch.resolution,
                "patch_size": arch.patch_size,
                "num_windows": arch.windows,
                "out_features": [f"stage{i}" for i in config.feature_layers],
                "window_block_indexes": [i for i in range(config.depth) if i not in config.feature_layers],
                "apply_layernorm": True,
            },
            d_model=config.hidden_dim,
            decoder_layers=arch.decoder_layers,
            num_queries=arch.queries,
            group_detr=config.groups,
            num_labels=num_classes,
            decoder_n_points=config.points,
            dropout=0.0,
        )
    )
    ours = rfdetr.RFDETR(**config.to_dict())
    published, _ = from_transformers(theirs.state_dict())
    ours.load_state_dict(from_published(published, config))
    return ours, theirs


def interleave(runs: dict[str, Callable[[], object]], repeats: int, clock: str) -> dict[str, list[float]]:
    """Seconds of every run, taken in turns so that a busy machine slows all alike; one warm-up each.

    clock: "wall", or "cpu" (time of this process on the processor: use it with one thread on a shared
    machine).
    """
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = now()
            run()
            times[name].append(now() - start)
    return times


def in_bfloat16(run: Callable[[], object]) -> Callable[[], object]:
    """The same call with matrix products and convolutions in bfloat16."""

    def inside() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return inside


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """Ratios of neighbouring runs, in increasing order."""
    return sorted(a / b for a, b in zip(slow, fast, strict=True))


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on stderr, not even from libraries: the profiler writes a line at its start and end, whatever
    its level.
    """
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Share of the operators' own CPU time by kind, and "the rest", of one call."""
    with _no_stderr(), profile(activities=[ProfilerActivity.CPU]) as record:
        run()
    spent = dict.fromkeys([*KERNELS, "the rest"], 0.0)
    for event in record.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((k for k, pattern in KERNELS.items() if re.match(pattern, name)), "the rest")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: value / total for kind, value in spent.items()}


def report(title: str, times: dict[str, list[float]]) -> None:
    """Medians of all runs and of the ratios to ours, which must be named "ours", with the lowest and highest
    ratio.
    """
    print(f"\n{title}")
    for name, values in times.items():
        line = f"  {name:14s} {1e3 * median(values):8.1f} ms"
        if name != "ours":
            low, *_, high = found = ratios(values, times["ours"])
            line += f"   {median(found):.2f} times the time of ours ({low:.2f} to {high:.2f})"
        print(line, flush=True)


def report_shares(title: str, run: Callable[[], object]) -> None:
    """One line of `shares`."""
    print(f"  {title:14s} " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares(run).items()))


def describe_machine() -> None:
    """Threads and library versions, for the record."""
    import platform

    import transformers

    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()}"
        f" threads, {platform.machine()} {platform.system()}"
    )
