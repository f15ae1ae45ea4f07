"""Networks small enough that tracing one takes a second or two, and runtimes of known speed."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from conftest import TINY, scramble

from rfdetr import RFDETR, Arch
from rfdetr.data.scenes import scenes

ARCH = Arch(48, 8, 1, 2, 8)
CLASSES = scenes("digits", "val", size=1).category_ids
SIZES = TINY | {"num_classes": len(CLASSES), "depth": 2, "feature_layers": (1, 2), "queries": 12}


def network(segmentation: bool = False) -> RFDETR:
    return _network(segmentation)


@functools.cache
def _network(segmentation: bool) -> RFDETR:
    return scramble(RFDETR(**SIZES, segmentation=segmentation, categories=CLASSES)).eval()


_FOLDER = tempfile.TemporaryDirectory(prefix="rfdetr-exported-")


def exported(segmentation: bool = False):
    """The file of `network(segmentation)`; traced once for all tests of a process."""
    return _exported(segmentation)


@functools.cache
def _exported(segmentation: bool):
    from rfdetr.export.onnx import export_onnx

    return export_onnx(network(segmentation), ARCH, Path(_FOLDER.name) / f"tiny-{segmentation}.onnx")


def output_error(artifact, reference, inputs) -> dict[str, float]:
    """Largest absolute difference of every output of two files over `inputs`; infinite where one is not
    finite. FP16 files are emulated. Rounding may swap two queries of nearly the same rank.
    """
    from rfdetr.benchmark.runtimes import load_runtime

    names = [o.name for o in artifact.outputs]
    loaded = [
        load_runtime("onnxruntime", a, emulate_fp16=a.precision == "fp16") for a in (artifact, reference)
    ]
    worst = dict.fromkeys(names, 0.0)
    for feed in inputs:
        found, expected = (runtime.run(feed) for runtime in loaded)
        for name in names:
            a, b = found[name], expected[name]
            error = float(np.abs(a - b).max()) if np.isfinite(a).all() and np.isfinite(b).all() else np.inf
            worst[name] = max(worst[name], error)
    return worst


class Simulated:
    """A runtime that takes `services` seconds per pass (in turn) on a clock that only it and `sleep` move."""

    def __init__(self, *services: float, device: bool = False) -> None:
        self.services, self.now, self.passes, self.device = services, 0.0, 0, device

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def infer(self) -> None:
        self.last = self.services[self.passes % len(self.services)]
        self.now += self.last
        self.passes += 1

    def device_ms(self) -> float | None:
        # Device events do not see 1 ms of launch overhead.
        return self.last * 1000 - 1 if self.device else None
