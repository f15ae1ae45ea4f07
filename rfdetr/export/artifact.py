"""The artifact: one file that is both timed and evaluated, named by the SHA-256 of its content."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfdetr.arch import Arch
from rfdetr.data.categories import CategoryMap
from rfdetr.errors import UserError
from rfdetr.export import openvino_files
from rfdetr.files import sha256_file, write_json

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output; a text in the shape is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def sized(self, batch: int = 1) -> tuple[int, ...]:
        """The shape with every dynamic dimension set to `batch`."""
        return tuple(batch if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True)
class Artifact:
    """An ONNX file (`format` "onnx"), a TensorRT engine ("engine"), an OpenVINO model ("openvino") or a
    network in memory ("torch", path None).

    `sha256` names the file's content; latency and accuracy may be joined only if it is the same
    (`rfdetr.benchmark.records.join`). `metadata` holds texts: arch, categories (JSON), preset, source_sha256,
    opset, precision, versions (JSON) and more; a file of another maker may have none of them.
    """

    path: Path | None
    sha256: str
    format: str
    metadata: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def file(self) -> Path:
        """The path. Raises UserError for a network in memory."""
        if self.path is None:
            raise UserError("this network exists in memory only; export it first (rfdetr.export.onnx)")
        return self.path

    @property
    def arch(self) -> Arch | None:
        """The sub-network, if the file says which one it is."""
        return Arch.parse(self.metadata["arch"]) if self.metadata.get("arch") else None

    @property
    def precision(self) -> str:
        """fp32, fp16, ... as written in the file ("unknown" if it is not)."""
        return self.metadata.get("precision", "unknown")

    @property
    def categories(self) -> CategoryMap | None:
        """Names and ids of the classes, if the file says them."""
        if text := self.metadata.get("categories"):
            return CategoryMap(**json.loads(text))
        # Files of earlier versions have one name per class index.
        names = self.metadata.get("class_names")
        return CategoryMap.from_class_names(json.loads(names)) if names else None

    def with_categories(self, categories: CategoryMap) -> "Artifact":
        """The same file read with another map: for a file that does not say its classes, or says them wrong.

        Raises UserError when the graph has another number of classes.
        """
        if self.num_classes not in (None, categories.num_classes):
            raise UserError(
                f"{self.name} has {self.num_classes} classes, the categories given are those of"
                f" {categories.num_classes} ({categories})"
            )
        return replace(self, metadata={**self.metadata, "categories": categories_text(categories)})

    @property
    def num_classes(self) -> int | None:
        """K, the last dimension of the output `logits`; None where the graph has no such output."""
        logits = next((o for o in self.outputs if o.name == "logits"), None)
        size = logits.shape[-1] if logits is not None and logits.shape else None
        return size if isinstance(size, int) else None

    @property
    def name(self) -> str:
        """Preset or architecture name, or the file's name."""
        return self.metadata.get("preset") or self.metadata.get("arch") or self.file.stem

    @property
    def has_masks(self) -> bool:
        """Whether the graph computes masks."""
        return any(o.name == "masks" for o in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record (no path: a record is about the content)."""
        return {
            "sha256": self.sha256,
            "format": self.format,
            "name": self.name,
            "precision": self.precision,
            "arch": self.metadata.get("arch"),
            "preset": self.metadata.get("preset"),
            "source_sha256": self.metadata.get("source_sha256"),
        }


def categories_text(categories: CategoryMap | None) -> str:
    """What `metadata["categories"]` holds; `Artifact.categories` reads it back."""
    return json.dumps(categories.to_dict()) if categories is not None else ""


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    from onnx import helper

    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(d.dim_param or int(d.dim_value) for d in tensor.shape.dim)
        specs.append(TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape))
    return tuple(specs)


def load_artifact(path: str | Path) -> Artifact:
    """Read an ONNX file, an OpenVINO model (.xml and .bin), or a TensorRT engine with its `.json` description
    beside it.

    A graph whose weights are in other files is named by the content of all of them. Raises UserError when the
    file, or one that holds its weights, is missing, or when it is none of these kinds.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}; export one with `python -m rfdetr export`")
    if path.suffix in _DESCRIBED:
        return _load_described(path)
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as an ONNX file ({error}); TensorRT engines end in .engine"
        ) from error
    initializers = {t.name for t in model.graph.initializer}
    return Artifact(
        path=path,
        sha256=_sha256(path, model),
        format="onnx",
        metadata={p.key: p.value for p in model.metadata_props},
        inputs=_specs(v for v in model.graph.input if v.name not in initializers),
        outputs=_specs(model.graph.output),
    )


def _sha256(path: Path, model: "onnx.ModelProto") -> str:
    """Hex SHA-256 of the file; of its digest and those of its weight files where there are some."""
    locations = sorted(set(_weight_files(model)))
    for location in locations:
        inside = (path.parent / location).resolve().is_relative_to(path.parent.resolve())
        if not inside or not (path.parent / location).is_file():
            raise UserError(
                f"{path} has weights in the file {location}, which is not in {path.parent}: copy it there, or"
                " export the network again (python -m rfdetr export)"
            )
    if not locations:
        return sha256_file(path)
    digests = [f"{location} {sha256_file(path.parent / location)}" for location in locations]
    return hashlib.sha256("\n".join([sha256_file(path), *digests]).encode()).hexdigest()


def _weight_files(message: Any) -> Iterator[str]:
    """Names of the files that tensors of a graph are kept in, wherever in it they are (initializers,
    constants, bodies of loops and functions).
    """
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in value if field.is_repeated else [value]:
            if part.DESCRIPTOR.name == "TensorProto":
                if part.data_location == part.EXTERNAL:
                    yield from (entry.value for entry in part.external_data if entry.key == "location")
            else:
                yield from _weight_files(part)


# What has no place for metadata of its own: suffix -> (format, suffix of a second file of its content or "").
_DESCRIBED = {".engine": ("engine", ""), ".plan": ("engine", ""), ".xml": ("openvino", ".bin")}


def describe(
    path: str | Path, source: Artifact, metadata: Mapping[str, str], layers: Mapping[str, str] | None = None
) -> None:
    """Write `<path>.json`, the description of a TensorRT engine or an OpenVINO model that was made from an
    ONNX file; `load_artifact` needs it.

    metadata: what differs from the source's. layers: precision of every layer, where it is known.
    """
    path = Path(path)
    specs = {
        kind: [{"name": s.name, "dtype": s.dtype, "shape": s.shape} for s in values]
        for kind, values in (("inputs", source.inputs), ("outputs", source.outputs))
    }
    about = {"sha256": _content_sha256(path), "metadata": dict(source.metadata) | dict(metadata), **specs}
    write_json(path.with_suffix(path.suffix + ".json"), about | ({"layers": dict(layers)} if layers else {}))


def _load_described(path: Path) -> Artifact:
    description = path.with_suffix(path.suffix + ".json")
    described = description.is_file()
    if not described and path.suffix != ".xml":
        raise UserError(
            f"{path} has no description {description.name} beside it: engines of this package have one; make"
            " the file here (python -m rfdetr export, benchmark, or search)"
        )
    sha256 = _content_sha256(path)
    values = json.loads(description.read_text(encoding="utf-8")) if described else openvino_files.read(path)
    if described and values["sha256"] != sha256:
        raise UserError(f"{description} describes another file than {path}; make the file again")
    return Artifact(
        path=path,
        sha256=sha256,
        format=_DESCRIBED[path.suffix][0],
        metadata=values["metadata"],
        inputs=tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in values["inputs"]),
        outputs=tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in values["outputs"]),
    )


def _content_sha256(path: Path) -> str:
    second = _DESCRIBED[path.suffix][1]
    if not second:
        return sha256_file(path)
    if not path.with_suffix(second).is_file():
        raise UserError(
            f"the weights of {path} are in {path.stem}{second}, which is not beside it: copy it there"
        )
    digests = [sha256_file(path.with_suffix(suffix)) for suffix in (path.suffix, second)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
