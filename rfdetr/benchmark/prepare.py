"""From an exported FP32 file to the one that a runtime executes at a precision: engines, FP16, INT8."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rfdetr.benchmark.inputs import Feed, image_inputs, random_inputs
from rfdetr.errors import UserError
from rfdetr.export.artifact import Artifact, load_artifact

if TYPE_CHECKING:
    from rfdetr.data.dataset import DetectionDataset

Log = Callable[[str], None]
_HALVES = ("onnxruntime", "onnxruntime-cuda")  # which take a file that is written in FP16
RANGE_IMAGES = 8  # enough to see which tensors leave FP16's range


def converts(runtime: str, precision: str) -> bool:
    """Whether `prepare` makes another file than the exported one."""
    if quantises(runtime, precision):
        return True
    return runtime == "tensorrt" or (precision == "fp16" and runtime in _HALVES)


def quantises(runtime: str, precision: str) -> bool:
    """Whether the file is quantised here, by the runtime's own tool."""
    return runtime in ("openvino", "onnxruntime") and precision.startswith("int8")


def looks_at_images(runtime: str, precision: str) -> bool:
    """Whether the conversion takes ranges from images of the data: FP16 files, INT8."""
    return precision.startswith("int8") or (precision == "fp16" and runtime in _HALVES)


def prepare(
    artifact: Artifact,
    runtime: str,
    precision: str,
    folder: Path,
    images: "DetectionDataset | None" = None,
    device: int = 0,
    log: Log = print,
) -> Artifact:
    """The file that `runtime` is to load for `precision`; made in `folder`, or found there from before.

    precision  one of the runtime's (`rfdetr.benchmark.runtimes.check_runtime`)
    images     of the data that the network is for: FP16 needs to see its ranges, INT8 is calibrated with
               them. FP16 makes do with noise, and says so
    device     index of the GPU that TensorRT builds for

    One timing cache in `folder` serves all engines. Raises UserError when a file cannot be had.
    """
    _check_format(artifact, runtime, precision)
    if artifact.format != "onnx" or not converts(runtime, precision):
        return artifact
    stem = folder / artifact.file.stem
    if runtime == "tensorrt":
        return _engine(artifact, Path(f"{stem}-{precision}.engine"), precision, device, log)
    if quantises(runtime, precision):
        if artifact.precision == "int8":
            return artifact
        return _quantised(artifact, int8_path(artifact, folder, runtime), images, runtime, log)
    return (
        artifact if artifact.precision == "fp16" else _half(artifact, Path(f"{stem}-fp16.onnx"), images, log)
    )


def int8_path(artifact: Artifact, folder: Path, runtime: str) -> Path:
    """Where `prepare` keeps a runtime's INT8 file of an exported one."""
    return folder / f"{artifact.file.stem}-int8{'.xml' if runtime == 'openvino' else '.onnx'}"


def _check_format(artifact: Artifact, runtime: str, precision: str) -> None:
    needed = {"engine": "tensorrt", "openvino": "openvino"}.get(artifact.format, runtime)
    if runtime != needed:
        raise UserError(f"{artifact.path} runs with --runtime {needed} alone, not with {runtime}")
    if (
        runtime == "tensorrt"
        and precision == "int8"
        and artifact.format == "onnx"
        and not _quantises(artifact)
    ):
        raise UserError(
            f"TensorRT quantises no file by itself, and {artifact.name} has no QuantizeLinear nodes: use"
            " --precision fp16, or --runtime openvino --precision int8"
        )


def _quantises(artifact: Artifact) -> bool:
    import onnx

    graph = onnx.load(artifact.file, load_external_data=False).graph
    return any(node.op_type == "QuantizeLinear" for node in graph.node)


def _kept(path: Path, **wanted: str) -> Artifact | None:
    """The file of an earlier call with this metadata, or None."""
    if not path.is_file():
        return None
    try:
        found = load_artifact(path)
    except (UserError, OSError, KeyError, json.JSONDecodeError):  # half-written or another version's
        return None
    return found if all(found.metadata.get(key) == value for key, value in wanted.items()) else None


def _engine(artifact: Artifact, path: Path, precision: str, device: int, log: Log) -> Artifact:
    from rfdetr.benchmark.runtimes.cuda import Cuda
    from rfdetr.benchmark.runtimes.tensorrt import load_tensorrt
    from rfdetr.benchmark.runtimes.tensorrt_build import build_engine

    cuda = Cuda(device)
    cuda.close()
    kept = _kept(
        path,
        onnx_sha256=artifact.sha256,
        requested=precision,
        tensorrt=load_tensorrt().__version__,
        gpu=cuda.gpu.name,
    )
    if kept is not None:
        return kept
    log(f"building the TensorRT engine of {artifact.name} ({precision}); this takes minutes")
    cache = path.with_name(f"timing-{cuda.gpu.name.replace(' ', '-')}.cache")
    return build_engine(artifact, path, precision, timing_cache=cache, device=device)


def quantiser(runtime: str) -> "tuple[Callable[..., Artifact], dict[str, str]]":
    """(what makes a runtime's INT8 file, what its metadata say of the version)."""
    if runtime == "openvino":
        from rfdetr.export.int8 import load_nncf, to_int8

        return to_int8, {"nncf": load_nncf().__version__}
    from rfdetr.export.int8_onnx import to_int8_onnx, version

    return to_int8_onnx, {"quantiser": version()}


def _quantised(
    artifact: Artifact, path: Path, images: "DetectionDataset | None", runtime: str, log: Log
) -> Artifact:
    from rfdetr.export.int8 import CALIBRATION_IMAGES

    if images is None:
        raise UserError(
            "int8 is calibrated with images of the data that the network is for: name it (--coco DATA)"
        )
    quantise, version = quantiser(runtime)
    kept = _kept(path, fp32_sha256=artifact.sha256, data=images.fingerprint, **version)
    if kept is not None:
        return kept
    inputs = _images(artifact, images, CALIBRATION_IMAGES)
    log(f"quantising {artifact.name} with {len(inputs)} images of {images!r}")
    return quantise(artifact, path, inputs, metadata={"data": images.fingerprint})


def _half(artifact: Artifact, path: Path, images: "DetectionDataset | None", log: Log) -> Artifact:
    from rfdetr.benchmark.fp16 import to_fp16_safely

    if images is None:
        log("FP16's ranges are seen on noise, which does not reach those of images: name the data (--coco)")
        inputs = [random_inputs(artifact, seed=seed) for seed in range(2)]
    else:
        inputs = _images(artifact, images, RANGE_IMAGES)
    converted, table = to_fp16_safely(artifact, path, inputs)
    beyond = int((table["beyond"] | table["inside_beyond"]).sum())
    log(f"{artifact.name}: {beyond} tensors or sums beyond FP16's range are kept in FP32")
    return converted


def _images(artifact: Artifact, images: "DetectionDataset", count: int) -> list[Feed]:
    spec = artifact.inputs[0]
    shape = spec.sized()
    return image_inputs(images, int(shape[-1]), count, shape[0], spec.name)
