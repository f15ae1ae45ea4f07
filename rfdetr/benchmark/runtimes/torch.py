"""PyTorch: eager, `torch.compile`, and CUDA graphs. Runs networks, not files."""

import copy
import hashlib
from contextlib import nullcontext
from typing import Any, Self

import numpy as np
import torch

from rfdetr.benchmark.devices import with_torch
from rfdetr.benchmark.runtimes.base import Arrays, Runtime, RuntimeInfo
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, TensorSpec, categories_text
from rfdetr.export.graph import DeployedGraph, output_names
from rfdetr.model.detector import SubNet
from rfdetr.model.identity import fingerprint
from rfdetr.provenance import cpu_name

MODES = ("eager", "compile", "cudagraph")


def check_torch(mode: str, device: int = 0) -> None:
    """Raise UserError when PyTorch cannot run in this mode here, or sees no GPU of this index."""
    if mode not in MODES:
        raise UserError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    if mode == "cudagraph" and not torch.cuda.is_available():
        raise UserError("CUDA graphs need a CUDA device and a PyTorch for it; this one sees none")
    if device and not 0 <= device < torch.cuda.device_count():
        raise UserError(f"there is no GPU {device}: PyTorch sees {torch.cuda.device_count()}, from 0 on")


_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def torch_artifact(subnet: SubNet, precision: str = "fp32", batch: int = 1) -> Artifact:
    """A network in memory as an artifact: its name is the hash of weights, architecture and precision."""
    weights, arch = fingerprint(subnet), subnet.arch
    name = hashlib.sha256(f"torch {weights} {arch.id} {precision}".encode()).hexdigest()
    config, side = subnet.config, subnet.arch.resolution
    queries, quarter = arch.queries, side // 4
    shapes = [(batch, queries, config.num_classes), (batch, queries, 4), (batch, queries, quarter, quarter)]
    names = output_names(config.segmentation)
    return Artifact(
        path=None,
        sha256=name,
        format="torch",
        metadata={
            "arch": arch.id,
            "precision": precision,
            "source_sha256": weights,
            "categories": categories_text(config.categories),
        },
        inputs=(TensorSpec("images", "float32", (batch, 3, side, side)),),
        outputs=tuple(TensorSpec(n, "float32", s) for n, s in zip(names, shapes, strict=False)),
    )


class TorchRuntime(Runtime):
    """A sub-network in PyTorch."""

    def __init__(
        self, artifact: Artifact, module: torch.nn.Module, mode: str, device: str, threads: int
    ) -> None:
        self.artifact, self._threads = artifact, threads
        self._names = [o.name for o in artifact.outputs]
        self._module, self._device = module, torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._type = _TYPES[artifact.precision]
        self._graph: Any = None
        self._mode = mode
        self._images: Any = None
        self._outputs: Any = None
        self._events: Any = None
        if self._cuda:
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        gpu = with_torch(self._device.index or 0) if self._cuda else None
        self.info = RuntimeInfo(
            runtime=f"torch-{mode}",
            version=torch.__version__,
            device=gpu.name if gpu else cpu_name(),
            precision=artifact.precision,
            driver=gpu.driver if gpu else "",
            gpu=gpu.uuid if gpu else None,
            details={} if self._cuda else {"threads": threads},
        )

    @classmethod
    def load(cls, artifact: Artifact, **options: Any) -> Self:
        """PyTorch has no file format here: use `TorchRuntime.of(subnet)`."""
        raise UserError(
            f"PyTorch runs networks, not files ({artifact.path}); name a preset or a checkpoint instead"
        )

    @classmethod
    def of(
        cls,
        subnet: SubNet,
        mode: str = "eager",
        device: str = "cpu",
        precision: str = "fp32",
        threads: int = 1,
        batch: int = 1,
    ) -> Self:
        """A copy of the sub-network on a device.

        mode       eager, compile (torch.compile, static shapes) or cudagraph (GPU only)
        device     cpu, cuda or cuda:1, as CUDA counts
        precision  fp32, or the type of products under autocast, fp16 or bf16: coordinates and normalisations
                   stay in float32, as in training
        threads    CPU threads; set for the whole process whenever inputs are bound
        batch      images in a pass
        """
        if mode not in MODES:
            raise UserError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
        if threads < 1 or batch < 1:
            raise UserError(f"threads and batch must be at least 1, not {threads} and {batch}")
        if precision not in _TYPES:
            raise UserError(f"unknown precision {precision!r}; choose one of {', '.join(_TYPES)}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("this PyTorch sees no CUDA device; use --device cpu, or a CUDA build of torch")
        if mode == "cudagraph" and not device.startswith("cuda"):
            raise UserError("CUDA graphs need a CUDA device; use --device cuda")
        module: Any = DeployedGraph(copy.deepcopy(subnet).eval(), [subnet.arch.decoder_layers])
        module = module.to(device=device, dtype=torch.float32).requires_grad_(False)
        if mode == "compile":
            module = torch.compile(module, dynamic=False)
        return cls(torch_artifact(subnet, precision, batch), module, mode, device, threads)

    @property
    def has_copies(self) -> bool:
        """True on a GPU."""
        return self._cuda

    def _here(self) -> Any:
        """Makes this runtime's GPU the current one: streams and events are made on that."""
        return torch.cuda.device(self._device) if self._cuda else nullcontext()

    @torch.inference_mode()
    def bind(self, inputs: Arrays) -> None:
        """Copy the images to the device; with CUDA graphs, record the graph on first use of a shape."""
        images = torch.from_numpy(np.ascontiguousarray(inputs["images"]))
        if not self._cuda:
            torch.set_num_threads(self._threads)
        with self._here():
            if self._mode == "cudagraph" and self._images is not None and self._images.shape == images.shape:
                self._images.copy_(images)
            else:
                self._images = images.to(self._device)
                if self._mode == "cudagraph":
                    self._record()
            if self._cuda:
                torch.cuda.synchronize()

    def _record(self) -> None:
        # Warm up on a side stream first, as recording needs all lazily created state to exist.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._forward()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self._forward()

    def _forward(self) -> Any:
        if self._type is torch.float32:
            return self._module(self._images)
        # Without gradients autocast has no cache of cast weights to fill or to leave behind.
        with torch.autocast(self._device.type, self._type, cache_enabled=False):
            return self._module(self._images)

    @torch.inference_mode()
    def infer(self) -> None:
        """One pass over the bound images."""
        if not self._cuda:
            self._outputs = self._forward()
            return
        start, end = self._events
        with self._here():
            start.record()
            if self._graph is not None:
                self._graph.replay()
            else:
                self._outputs = self._forward()
            end.record()
        end.synchronize()

    def device_ms(self) -> float | None:
        """Time between the two events around the last pass (GPU)."""
        return self._events[0].elapsed_time(self._events[1]) if self._cuda else None

    def fetch(self) -> dict[str, np.ndarray]:
        """Outputs by name, float32."""
        return {n: o.float().cpu().numpy() for n, o in zip(self._names, self._outputs, strict=True)}
