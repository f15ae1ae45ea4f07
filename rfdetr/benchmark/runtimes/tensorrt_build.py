"""Build TensorRT engines from ONNX files and read back at which precision they were really built."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rfdetr.benchmark.devices import Gpu
from rfdetr.benchmark.runtimes.cuda import Cuda
from rfdetr.benchmark.runtimes.tensorrt import load_tensorrt
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, describe, load_artifact
from rfdetr.files import write_atomic

PRECISIONS = ("fp32", "tf32", "fp16", "int8")


def build_engine(
    artifact: Artifact,
    path: str | Path,
    precision: str = "fp16",
    keep_fp32: Sequence[str] = (),
    timing_cache: str | Path | None = None,
    workspace_mb: int = 2048,
    batches: tuple[int, int, int] = (1, 1, 8),
    library_tactics: bool = True,
    device: int = 0,
) -> Artifact:
    """Build an engine and describe it in `<path>.json`; the engine's own SHA-256 is then its name.

    precision        fp32 (TF32 off), tf32, fp16, or int8 (the file must hold quantise/dequantise nodes, as
                     there is no calibration here). The builder may choose more precise kernels: the
                     description's `precision` is what was built, `requested` what was asked for
    keep_fp32        names of nodes that must not run in FP16 (`rfdetr.benchmark.fp16.nodes_to_keep`)
    timing_cache     file of kernel timings, read and updated: later builds are faster and choose alike
    batches          smallest, usual and largest batch, if the file's batch is open
    library_tactics  allow cuDNN and cuBLAS kernels (8.x); False where these libraries are not installed
    device           index of the GPU to build for and on, as CUDA counts

    A rebuild alone moves latencies by about 0.1 ms: build three engines and report the spread.
    """
    trt = load_tensorrt()
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if artifact.format != "onnx":
        raise UserError(f"engines are built from ONNX files, not from {artifact.path}")
    logger = trt.Logger(trt.Logger.WARNING)
    with closing(Cuda(device)) as cuda:  # the builder times its kernels on the thread's current device
        builder = trt.Builder(logger)
        if builder is None:
            raise UserError("TensorRT found no GPU; engines are built on the GPU that runs them")
        # An FP16 file already says which tensor has which type; TensorRT 10 can be told to obey it.
        typed = artifact.precision == "fp16" and hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        network = _parsed(trt, logger, builder, artifact, typed)
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        _set_precision(trt, config, network, "fp16" if typed else precision, typed, keep_fp32)
        if not library_tactics:
            config.set_tactic_sources(_own_tactics(trt))
        _set_profile(builder, config, artifact, batches)
        cache = _timing_cache(config, timing_cache)
        serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise UserError(
            f"TensorRT {trt.__version__} could not build an engine from {artifact.path}; its log above says"
            f" why (often too little workspace: {workspace_mb} MB)"
        )
    write_atomic(path, bytes(serialized))
    if cache is not None and timing_cache is not None:
        write_atomic(timing_cache, bytes(cache.serialize()))
    return _describe(trt, logger, artifact, Path(path), precision, keep_fp32, cuda.gpu)


def _parsed(trt: Any, logger: Any, builder: Any, artifact: Artifact, typed: bool) -> Any:
    network = builder.create_network(_network_flags(trt, typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(artifact.file.read_bytes()):
        errors = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise UserError(f"TensorRT {trt.__version__} cannot read {artifact.path}: {errors}")
    return network


def _network_flags(trt: Any, typed: bool) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # TensorRT 10 has explicit batches only; the flag stays until it is removed.
    value = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    return value | (1 << int(flags.STRONGLY_TYPED) if typed else 0)


def _set_precision(
    trt: Any, config: Any, network: Any, precision: str, typed: bool, keep_fp32: Sequence[str]
) -> None:
    flags = trt.BuilderFlag
    if precision == "tf32":
        config.set_flag(flags.TF32)
    else:
        # On by default, and silently another precision than FP32.
        config.clear_flag(flags.TF32)
    if typed:
        return
    if precision in ("fp16", "int8"):
        config.set_flag(flags.FP16)
    if precision == "int8":
        config.set_flag(flags.INT8)
    if keep_fp32:
        config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
        found = set()
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.name in set(keep_fp32):
                found.add(layer.name)
                layer.precision = trt.float32
                for output in range(layer.num_outputs):
                    layer.set_output_type(output, trt.float32)
        lost = sorted(set(keep_fp32) - found)
        if lost:
            raise UserError(f"the network has no layer {', '.join(lost[:5])} to keep in FP32")


def _own_tactics(trt: Any) -> int:
    """Every tactic source except cuDNN and cuBLAS."""
    libraries = {"CUBLAS", "CUBLAS_LT", "CUDNN"}
    sources = {n: s for n, s in trt.TacticSource.__members__.items() if n not in libraries}
    return sum(1 << int(s) for s in sources.values())


def _set_profile(builder: Any, config: Any, artifact: Artifact, batches: tuple[int, int, int]) -> None:
    spec = artifact.inputs[0]
    if all(isinstance(d, int) for d in spec.shape):
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(spec.name, *(spec.sized(b) for b in batches))
    config.add_optimization_profile(profile)


def _timing_cache(config: Any, path: str | Path | None) -> Any:
    if path is None:
        return None
    known = Path(path).read_bytes() if Path(path).is_file() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _describe(
    trt: Any, logger: Any, artifact: Artifact, path: Path, requested: str, keep: Sequence[str], gpu: Gpu
) -> Artifact:
    engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers = layer_precisions(json.loads(text))
    metadata = {
        "precision": precision_as_built(layers, requested),
        "requested": requested,
        "kept_in_fp32": json.dumps(sorted(keep)),
        "layers_by_precision": json.dumps(dict(Counter(layers.values()))),
        "onnx_sha256": artifact.sha256,
        "tensorrt": trt.__version__,
        "gpu": gpu.name,
        "driver": gpu.driver,
    }
    describe(path, artifact, metadata, layers)
    return load_artifact(path)


_TYPES = {"fp32": "fp32", "float": "fp32", "tf32": "tf32", "fp16": "fp16", "half": "fp16", "int8": "int8"}


def layer_precisions(information: dict[str, Any]) -> dict[str, str]:
    """Precision of every layer from the engine inspector's JSON: the least precise of its floating-point
    outputs.

    Layers of whole numbers are left out; a layer whose type is not told is "unknown". Raises UserError for an
    engine that was built without detailed information.
    """
    found: dict[str, str] = {}
    for layer in information.get("Layers", []):
        if not isinstance(layer, dict):
            raise UserError("this engine tells layer names only; build it with detailed profiling verbosity")
        types = [_type_of(o.get("Format/Datatype", "")) for o in layer.get("Outputs", [])]
        known = [t for t in types if t not in ("", "whole")]
        if known:
            order = ("int8", "fp16", "tf32", "fp32")
            found[layer["Name"]] = min(known, key=order.index)
        elif "" in types:
            found[layer["Name"]] = "unknown"
    return found


def _type_of(text: str) -> str:
    lowered = text.lower()
    if re.search(r"\b(int32|int64|bool|uint8)\b", lowered):
        return "whole"
    for word, precision in _TYPES.items():
        if re.search(rf"\b{word}\b", lowered):
            return precision
    return ""


def precision_as_built(layers: dict[str, str], requested: str) -> str:
    """One word for an engine: fp32, tf32, fp16, int8, "mixed" if the request was followed by a minority, or
    "unknown".

    A lower precision was asked for counts as built when most layers have it (some always stay in FP32).
    """
    counts = Counter(layers.values())
    counts.pop("unknown", None)
    if not counts:
        return "unknown"
    if set(counts) == {"fp32"}:
        # The inspector does not tell TF32 kernels from FP32 ones: their tensors are FP32.
        return "tf32" if requested == "tf32" else "fp32"
    low = counts.get(requested, 0)
    return requested if requested in ("fp16", "int8") and 2 * low > sum(counts.values()) else "mixed"
