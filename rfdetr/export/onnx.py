"""Export of sub-networks to ONNX with PyTorch's modern exporter.

One artifact holds one sub-network at one resolution: patch kernel and positions already resized, unused
layers and query groups gone, preprocessing outside (`rfdetr.data.transforms.preprocess`). Input `images` [B,
3, R, R] float32, normalised; outputs `logits` [B, Q, K], `boxes` [B, Q, 4] (cxcywh, 0..1) and, for
segmentation, `masks` [B, Q, R/4, R/4] (logits). The model in memory is never changed.
"""

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rfdetr.arch import PRESETS, Arch
from rfdetr.data.transforms import MEAN, STD
from rfdetr.errors import UserError
from rfdetr.export import graph, variants
from rfdetr.export.artifact import Artifact, categories_text, load_artifact
from rfdetr.export.graph import OPSET
from rfdetr.files import check_target, write_atomic
from rfdetr.model.config import ModelConfig, preset_config
from rfdetr.model.detector import RFDETR, SubNet
from rfdetr.model.identity import fingerprint

if TYPE_CHECKING:
    import onnx

PREPROCESSING = (
    "RGB values / 255, resized to a square (bilinear with antialiasing, aspect ratio not kept), minus mean"
    f" {MEAN}, divided by deviation {STD}; channels first, float32"
)
OUTPUTS = {
    "logits": "[batch, queries, classes]: sigmoid gives the score of every (query, class) pair; take the best"
    " pairs, without non-maximum suppression; `categories` says what the class indexes mean",
    "boxes": "[batch, queries, 4]: centre x, centre y, width, height, in 0..1 of the picture",
    "masks": "[batch, queries, side / 4, side / 4]: logits over the whole picture; above 0 is inside, after"
    " bilinear resizing to the picture",
}
TOLERANCE = 1e-4  # of FP32 outputs against eager ones
LOWEST_OPSET = 17


class ExportError(RuntimeError):
    """The exported graph does not compute what the network computes."""


def export_onnx(
    model: RFDETR | SubNet,
    arch: Arch | str | None,
    path: str | Path,
    dynamic_batch: bool = False,
    batch: int = 1,
    opset: int = OPSET,
    preset: str | None = None,
    check: bool = True,
) -> Artifact:
    """Export one sub-network.

    model          a supernet, or a sub-network of one (then `arch` must be its own or None)
    arch           the sub-network, as a value or a text ("r384-p16-w2-d2-q300"); None takes the default one
    path           file to write (atomically)
    dynamic_batch  leave the batch open; otherwise it is fixed to `batch`. Everything else is static.
    opset          17 or later; 18 is native, others are converted
    preset         name of the configuration, written into the file; found from the sizes if None
    check          run the file in ONNX Runtime and compare with the network (ExportError if it differs)

    The same weights, arch and library versions give the same bytes, so the same sha256. Raises UserError
    before the work when `path` is a folder or cannot be written.
    """
    check_target(path, "the path")
    _check_options(opset, batch)
    subnet = _subnet(model, arch)
    proto = graph.cut(
        graph.trace(subnet, [subnet.arch.decoder_layers], opset, dynamic_batch, batch),
        subnet.arch.decoder_layers,
    )
    batch_text = "dynamic" if dynamic_batch else str(batch)
    return _write(proto, subnet, path, fingerprint(model), batch_text, opset, preset, check)


def export_many(
    model: RFDETR,
    archs: Iterable[Arch],
    folder: str | Path,
    opset: int = OPSET,
    check: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Arch, Artifact]:
    """Export many sub-networks of one supernet, batch 1, each the same file that `export_onnx` writes.

    Sub-networks that differ only in decoder layers are cut out of one trace, those that differ only in
    queries are read off two traces; so a grid costs about one or two traces per (resolution, patch size,
    windows). Files already in `folder`, named by architecture and content of the source, are used again.
    `progress(done, total)` is called after each.
    """
    _check_options(opset, 1)
    wanted = sorted({model.resolve(a) for a in archs})
    folder, source = Path(folder), fingerprint(model)
    done: dict[Arch, Artifact] = {}
    by_encoder: dict[tuple[int, int, int], list[Arch]] = defaultdict(list)
    for arch in wanted:
        path = _cache_path(folder, model.config, arch, source, opset)
        if path.is_file():
            done[arch] = load_artifact(path)
        else:
            by_encoder[arch.encoder].append(arch)
    if progress and done:
        progress(len(done), len(wanted))
    for family in by_encoder.values():
        for arch, proto in _family(model, family, opset):
            path = _cache_path(folder, model.config, arch, source, opset)
            done[arch] = _write(proto, _subnet(model, arch), path, source, "1", opset, None, check)
            if progress:
                progress(len(done), len(wanted))
    return {arch: done[arch] for arch in wanted}


def _family(model: RFDETR, family: list[Arch], opset: int) -> Iterable[tuple[Arch, "onnx.ModelProto"]]:
    """Graphs of sub-networks that share resolution, patch size and windows."""
    depths = sorted({a.decoder_layers for a in family})
    counts = sorted({a.queries for a in family})
    traces: dict[int, onnx.ModelProto] = {}

    def traced(queries: int) -> "onnx.ModelProto":
        if queries not in traces:
            deepest = family[0].replace(decoder_layers=depths[-1], queries=queries)
            traces[queries] = graph.trace(_subnet(model, deepest), depths, opset)
        return traces[queries]

    for arch in family:
        full = None
        if counts[0] < arch.queries < counts[-1]:
            ends = (counts[0], counts[-1])
            full = variants.between(traced(ends[0]), traced(ends[1]), ends, arch.queries)
        yield arch, graph.cut(full or traced(arch.queries), arch.decoder_layers)


def _check_options(opset: int, batch: int) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            version(package)
        except Exception as error:
            raise UserError(f"export needs the package {package}: pip install {package}") from error
    if opset < LOWEST_OPSET:
        raise UserError(
            f"opset {opset} is too old: layer normalisation needs {LOWEST_OPSET} or later; use --opset"
            f" {OPSET}"
        )
    if batch < 1:
        raise UserError(f"batch must be at least 1, not {batch}")


def _subnet(model: RFDETR | SubNet, arch: Arch | str | None) -> SubNet:
    """A copy on the CPU in evaluation mode, so that nothing here can change the caller's network."""
    if isinstance(model, SubNet):
        model.resolve(arch)
        subnet = copy.deepcopy(model)
    else:
        subnet = model.subnet(arch)
    return subnet.cpu().float().eval()


def _versions() -> dict[str, str]:
    from rfdetr.version import __version__

    return {"rfdetr": __version__, **{p: version(p) for p in ("torch", "onnx", "onnxscript")}}


def _cache_path(folder: Path, config: ModelConfig, arch: Arch, source: str, opset: int) -> Path:
    key = json.dumps([config.to_dict(), source, opset, _versions()], sort_keys=True)
    return folder / f"{arch.id}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.onnx"


def find_preset(config: ModelConfig) -> str:
    """Name of the published configuration with these sizes, or "" if there is none."""
    plain = config.replace(categories=None, groups=1)
    for name in PRESETS:
        if preset_config(name, config.num_classes, groups=1, layer_scale=config.layer_scale) == plain:
            return name
    return ""


def _write(
    proto: "onnx.ModelProto",
    subnet: SubNet,
    path: str | Path,
    source: str,
    batch: str,
    opset: int,
    preset: str | None,
    check: bool,
) -> Artifact:
    import onnx

    config = subnet.config
    metadata = {
        "arch": subnet.arch.id,
        "batch": batch,
        "categories": categories_text(config.categories),
        "num_classes": str(config.num_classes),
        "opset": str(opset),
        "precision": "fp32",
        "preprocessing": PREPROCESSING,
        "outputs": json.dumps({k: v for k, v in OUTPUTS.items() if k != "masks" or config.segmentation}),
        "preset": find_preset(config) if preset is None else preset,
        "source_sha256": source,
        "versions": json.dumps(_versions()),
    }
    write_graph(proto, path, metadata)
    artifact = load_artifact(path)
    if check:
        try:
            onnx.checker.check_model(str(path), full_check=True)
            compare_with_eager(artifact, subnet)
        except Exception:
            Path(path).unlink()
            raise
    return artifact


def write_graph(proto: "onnx.ModelProto", path: str | Path, metadata: dict[str, str]) -> None:
    """Write a graph with sorted metadata as one deterministic file, atomically."""
    del proto.metadata_props[:]
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    write_atomic(path, proto.SerializeToString(deterministic=True))


def compare_with_eager(
    artifact: Artifact, subnet: SubNet, tolerance: float = TOLERANCE, seed: int = 0
) -> float:
    """Largest difference between the artifact in ONNX Runtime (CPU) and the eager sub-network, of each output
    as a part of its largest value where that is above 1: float32 rounds large mask logits coarsely.

    Two tokens whose scores differ by rounding only may change ranks, which changes what they become; so up to
    four random images are tried and the best counts: a wrong graph is wrong for all of them. Raises
    ExportError above `tolerance`.
    """
    session = cpu_session(artifact.file)
    random = np.random.default_rng(seed)
    best = float("inf")
    for _ in range(4):
        images = random.standard_normal(artifact.inputs[0].sized(2)).astype(np.float32)
        with torch.no_grad():
            expected = subnet(torch.from_numpy(images))
        values: list[Any] = session.run(None, {"images": images})
        eager = [expected.logits, expected.boxes, *([expected.masks] if expected.masks is not None else [])]
        best = min(best, max(_apart(v, e.numpy()) for v, e in zip(values, eager, strict=True)))
        if best <= tolerance:
            return best
    raise ExportError(
        f"the exported {subnet.arch.id} differs from the network by {best:.2g} (allowed {tolerance:.2g}); "
        "this combination of torch and onnxscript versions is not usable for export"
    )


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


def cpu_session(path: str | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU that prints warnings to nobody."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
